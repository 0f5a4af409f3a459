"""The condition of a step: a template whose text says yes or no."""

from collections.abc import Callable

from batchllm.records import Row
from batchllm.template import Renderer

NO = frozenset({"", "false", "no", "none", "null", "0", "0.0", "[]", "{}"})
"""The texts that say no, without regard to case and to blanks around them; every other one says yes."""


class Condition:
    """Decides for a row whether it takes a step.

    Args:
        renderer: Renders the condition.
        shown: Returns a row with the columns that a template may read.
    """

    def __init__(self, renderer: Renderer, shown: Callable[[Row], Row]) -> None:
        self._renderer = renderer
        self._shown = shown

    @property
    def used_columns(self) -> frozenset[str]:
        """The columns that it reads."""
        return self._renderer.used_columns

    def holds(self, row: Row) -> bool:
        """Returns whether the condition holds.

        Raises:
            RenderError: The row does not fit it.
        """
        (message,) = self._renderer.messages(self._shown(row))
        return message["content"].strip().lower() not in NO
