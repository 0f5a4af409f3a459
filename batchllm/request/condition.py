"""The condition of a step: a template whose text says yes or no."""

from collections.abc import Callable, Sequence

from batchllm.errors import UsageError
from batchllm.records import Row
from batchllm.template import Message, Renderer, Template

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


def condition(
    name: str,
    source: str,
    columns: Sequence[str] | None,
    column: str | None,
    hidden: frozenset[str],
    shown: Callable[[Row], Row],
) -> Condition:
    """Compiles the condition of a step.

    Args:
        name: The step.
        source: The condition.
        columns: The columns that there are, ``None`` where nobody knows.
        column: The text column.
        hidden: Columns that it may not read.
        shown: Returns a row with the columns that a template may read.

    Raises:
        UsageError: It reads no column, or one that does not exist.
    """
    template = Template(f"step {name}, when", "", (Message("user", source),))
    renderer = Renderer(template, columns, column, hidden=hidden)
    if not renderer.used_columns:
        raise UsageError(
            f"step {name}: its condition {source!r} reads no column, so it is the same for every row"
        )
    return Condition(renderer, shown)
