"""A job: what one run does, decided and validated before anything is sent.

Names load what they need when they are first used, so that the command line reads ``job.options`` alone.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchllm.job.assembly import assemble
    from batchllm.job.connection import reconnect
    from batchllm.job.record import Job

__all__ = ["Job", "assemble", "reconnect"]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    modules = {"Job": "record", "assemble": "assembly", "reconnect": "connection"}
    if name not in modules:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{modules[name]}"), name)
