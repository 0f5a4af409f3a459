"""What ``progress=`` may be: ``True``, a function, or an object of the protocol ``Progress``."""

from collections.abc import Callable
from typing import Any

from batchllm.errors import UsageError
from batchllm.progress import AutoBar, Progress

_METHODS = ("start", "show", "tell", "close")


def progress_of(given: Any) -> Progress | None:
    """Returns the progress that a call asked for; ``None`` shows nothing.

    Raises:
        UsageError: It is nothing that can show progress.
    """
    if given is None or given is False:
        return None
    if given is True:
        return AutoBar()
    if all(callable(getattr(given, name, None)) for name in _METHODS):
        return given  # type: ignore[no-any-return]
    if callable(given):
        return _Function(given)
    methods = ", ".join(_METHODS)
    raise UsageError(
        f"progress= takes True, a function of rows done and rows in all, or an object with {methods}; not {given!r}"
    )


class _Function:
    """Calls a function with the rows that are done and all rows."""

    def __init__(self, function: Callable[[int, int], Any]) -> None:
        self._function = function
        self._total = 0

    def start(self, total: int, done: int) -> None:
        self._total = total
        self._function(done, total)

    def show(self, done: int, failed: int, tokens: int | None, note: str, waits: str = "") -> None:
        self._function(done, self._total)

    def tell(self, line: str) -> None:
        """Has no line for a function of two numbers."""

    def close(self) -> None:
        """Has nothing to close."""
