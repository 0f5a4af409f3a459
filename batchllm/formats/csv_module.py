"""A copy of Python's CSV parser, with a limit for the size of a cell that is not the whole program's.

``csv.field_size_limit`` is one setting for the process. The parser keeps it in its module's state, and a second module
object of the same extension has a state of its own (PEP 489).
"""

import importlib.util
from types import ModuleType
from typing import TYPE_CHECKING


def _own_copy() -> ModuleType:
    specification = importlib.util.find_spec("_csv")
    assert specification is not None and specification.loader is not None, "Python has a CSV parser"
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


if TYPE_CHECKING:
    import csv
else:
    csv = _own_copy()

__all__ = ["csv"]
