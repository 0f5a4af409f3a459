"""batchllm: send every row of a file through a language model, and get the file back with the answers.

``run``, ``arun`` and ``astream`` run jobs, ``Job`` is one, ``compare`` compares their outputs, ``jobs`` and ``clean``
look after what runs leave behind.
Every other module is internal; ``batchllm.cli`` is the command line on top of it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchllm.api import arun, astream, compare, run
    from batchllm.errors import (
        BudgetStop,
        CannotWrite,
        InputError,
        Interrupted,
        JobError,
        NotNow,
        NotReady,
        StorageFailure,
        Unavailable,
        UsageError,
    )
    from batchllm.evaluate.comparison import Comparison
    from batchllm.evaluate.evaluation import Evaluation
    from batchllm.inspect.jobs import clean, jobs
    from batchllm.job import Job
    from batchllm.job.keywords import Options
    from batchllm.progress import Progress
    from batchllm.runner import FinishedRow, Result, Summary

__version__ = "0.2.0"
__all__ = [
    "BudgetStop",
    "CannotWrite",
    "Comparison",
    "Evaluation",
    "FinishedRow",
    "InputError",
    "Interrupted",
    "Job",
    "JobError",
    "NotNow",
    "NotReady",
    "Options",
    "Progress",
    "Result",
    "StorageFailure",
    "Summary",
    "Unavailable",
    "UsageError",
    "arun",
    "astream",
    "clean",
    "compare",
    "jobs",
    "run",
]

_MODULES = {
    "api": ("arun", "astream", "compare", "run"),
    "evaluate.comparison": ("Comparison",),
    "evaluate.evaluation": ("Evaluation",),
    "inspect.jobs": ("clean", "jobs"),
    "job": ("Job",),
    "job.keywords": ("Options",),
    "progress": ("Progress",),
    "runner": ("FinishedRow", "Result", "Summary"),
}


def __getattr__(name: str) -> Any:
    """Public names load what they need when they are first used, so that importing the package is instant."""
    if name not in __all__:
        raise AttributeError(f"module 'batchllm' has no attribute {name!r}")
    from importlib import import_module

    module = next((module for module, names in _MODULES.items() if name in names), "errors")
    return getattr(import_module(f"batchllm.{module}"), name)


def __dir__() -> list[str]:
    return sorted({*__all__, "__version__"})
