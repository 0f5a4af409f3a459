"""What a row asks for, before the job's own settings are laid around it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from batchllm.answer import Reader
from batchllm.records import Row
from batchllm.request.images import Media
from batchllm.request.messages import Messages, last_user, with_media
from batchllm.template import Renderer, Template


@dataclass(frozen=True, slots=True)
class RowRequest:
    """The messages of a row, and what it says about parameters.

    Attributes:
        messages: What is sent.
        own: Where the row's own turn begins; earlier turns of a conversation go before it.
        template_parameters: Those that the job's override.
        row_parameters: Those that override the job's.
        static: Whether the parameters are the same for every row.
    """

    messages: Messages
    own: int
    template_parameters: Mapping[str, Any] = field(default_factory=dict)
    row_parameters: Mapping[str, Any] = field(default_factory=dict)
    static: bool = False


class Task:
    """A template made ready for rows.

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
        """Whether the row has nothing to ask about: no text, or where no text is read, no value at all."""
        values = row.values
        if self._column is not None:
            return self._column in values and _is_blank(values[self._column])
        used = self.renderer.used_columns
        return bool(used) and all(name in values and _is_blank(values[name]) for name in used)

    def row_request(self, row: Row, row_parameters: Mapping[str, Any] | None = None) -> RowRequest:
        """What the row asks for.

        Raises:
            RenderError: The row does not fit the template.
            Refused: An image of the template cannot be sent.
        """
        messages = self.renderer.messages(row)
        for number in self._parts:
            messages[number] = with_media(messages[number], self._media)
        parameters = self.renderer.parameters(row)
        static = row_parameters is None and self.renderer.has_fixed_parameters
        return RowRequest(messages, self._own, parameters, row_parameters or {}, static)


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def image_cells(values: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    """The filled image cells of a row; a JSONL cell may be a list of them."""
    cells: list[str] = []
    for column in columns:
        value = values.get(column)
        cells += [
            str(cell) for cell in (value if isinstance(value, list) else [value]) if not _is_blank(cell)
        ]
    return cells
