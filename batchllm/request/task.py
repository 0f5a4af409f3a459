"""Fills a template with rows."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from batchllm.answer import Reader
from batchllm.records import Row
from batchllm.request.images import Media
from batchllm.request.messages import last_user, with_media
from batchllm.request.outcome import RowRequest
from batchllm.template import Renderer, Template


class Task:
    """A template that is compiled for the columns of an input, with the reader of its answers.

    Args:
        template: The template, with the job's variables and system message in it.
        columns: The columns there are, ``None`` where nobody knows.
        column: The text column.
        media: Makes image URLs.
        reader: Reads the answers.

    Raises:
        UsageError: The template does not fit the columns.
    """

    def __init__(
        self,
        template: Template,
        columns: Iterable[str] | None,
        column: str | None,
        media: Media,
        reader: Reader,
    ) -> None:
        self.renderer = Renderer(template, columns, column)
        self.reader = reader
        self._media = media
        self._column = (column or "text") if self.renderer.reads_text else None
        self._own = last_user([{"role": message.role} for message in template.messages])
        self._parts = [
            number for number, message in enumerate(template.messages) if not isinstance(message.content, str)
        ]

    def is_empty(self, row: Row) -> bool:
        """Returns whether the row is empty: no text, or where no text is read, no value at all."""
        values = row.values
        if self._column is not None:
            return self._column in values and _is_blank(values[self._column])
        used = self.renderer.used_columns
        return bool(used) and all(name in values and _is_blank(values[name]) for name in used)

    def row_request(self, row: Row, row_parameters: Mapping[str, Any] | None = None) -> RowRequest:
        """Fills the template with a row.

        Raises:
            RenderError: The row does not fit the template.
            InvalidRow: An image of the template cannot be sent.
        """
        messages = self.renderer.messages(row)
        for number in self._parts:
            messages[number] = with_media(messages[number], self._media)
        return RowRequest(messages, self._own, self.renderer.parameters(row), row_parameters or {})


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def image_cells(values: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    """Returns the filled image cells of a row; a JSONL cell may be a list of them."""
    cells: list[str] = []
    for column in columns:
        value = values.get(column)
        cells += [
            str(cell) for cell in (value if isinstance(value, list) else [value]) if not _is_blank(cell)
        ]
    return cells
