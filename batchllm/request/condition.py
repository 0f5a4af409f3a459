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
        name: The step.
        source: The condition.
        columns: The columns that there are, ``None`` where nobody knows.
        column: The text column.
        hidden: Columns that it may not read.
        shown: Returns a row with the columns that a template may read.

    Attributes:
        used_columns: The columns that it reads.

    Raises:
        UsageError: It reads no column, or one that does not exist.
    """

    def __init__(
        self,
        name: str,
        source: str,
        columns: Sequence[str] | None,
        column: str | None,
        hidden: frozenset[str],
        shown: Callable[[Row], Row],
    ) -> None:
        template = Template(f"step {name}, when", "", (Message("user", source),))
        self._renderer = Renderer(template, columns, column, hidden=hidden)
        self._shown = shown
        self.used_columns = self._renderer.used_columns
        if not self.used_columns:
            raise UsageError(
                f"step {name}: its condition {source!r} reads no column, so it is the same for every row"
            )

    def holds(self, row: Row) -> bool:
        """Returns whether the condition holds.

        Raises:
            RenderError: The row does not fit it.
        """
        (message,) = self._renderer.messages(self._shown(row))
        return message["content"].strip().lower() not in NO
