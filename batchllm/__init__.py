"""batchllm: send every row of a file through a language model, and get the file back with the answers.

``run`` and ``Job`` are the library; ``batchllm.cli`` is the command line on top of it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchllm.api import run
    from batchllm.job import Job
    from batchllm.runner import Result, Summary

__version__ = "0.2.0"
__all__ = ["Job", "Result", "Summary", "run"]


def __getattr__(name: str) -> Any:
    """Public names load what they need when they are first used, so that importing the package is instant."""
    if name == "Job":
        from batchllm.job import Job

        return Job
    if name == "run":
        from batchllm.api import run

        return run
    if name in ("Result", "Summary"):
        from batchllm import runner

        return getattr(runner, name)
    raise AttributeError(f"module 'batchllm' has no attribute {name!r}")
