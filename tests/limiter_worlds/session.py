"""Many worlds in several processes."""

from collections.abc import Iterable
from functools import partial
from importlib import import_module
from multiprocessing import get_context

from .spec import Spec
from .world import Maker, Outcome, product, run


def maker_of(name: str) -> Maker:
    """The limiter by name: ``product``, or ``module:function``."""
    if name == "product":
        return product
    module, _, function = name.partition(":")
    made: Maker = getattr(import_module(module), function)
    return made


def _one(spec: Spec, maker: str) -> Outcome:
    return run(spec, maker_of(maker))


def run_all(specs: Iterable[Spec], jobs: int = 2, maker: str = "product") -> list[Outcome]:
    """Runs worlds in several processes; the outcomes are in the order of the worlds."""
    if jobs == 1:
        return [_one(spec, maker) for spec in specs]
    with get_context("spawn").Pool(jobs) as pool:
        return pool.map(partial(_one, maker=maker), list(specs), chunksize=2)
