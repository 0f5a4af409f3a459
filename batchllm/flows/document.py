"""A row whose text is in a file: the text is taken once in the life of the job, and kept."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from functools import partial

from batchllm.flows.flow import Flow, Kept, SlowValues, Unsent
from batchllm.records import Row
from batchllm.request import Unsendable
from batchllm.request.documents import Documents, with_text
from batchllm.request.outcome import InvalidRow


def kept_text(documents: Documents, row: Row) -> Kept | None:
    """Returns the text of a row as a kept value; ``None`` where the row names no file."""
    name = documents.name(row)
    if name is None:
        return None
    return Kept("text", documents.subject(name), partial(_text, documents, row, name))


def slow_values(documents: Documents, then: SlowValues | None, row: Row) -> Generator[Kept, bytes, None]:
    """Yields the text of a row, and what takes long in the flow of the row that has it."""
    kept = kept_text(documents, row)
    if kept is not None:
        text = (yield kept).decode()
        if then is not None:
            yield from then(with_text(row, text))


def of_document(documents: Documents, start: Callable[[Row], Flow], row: Row) -> Flow:
    """Reads the text of a row, and goes on with the flow of the row that has it."""
    kept = kept_text(documents, row)
    text = "" if kept is None else (yield kept).decode()
    return (yield from start(with_text(row, text)))


def rows_with_texts(documents: Documents, rows: Callable[[], Iterable[Row]]) -> Iterator[Row]:
    """Yields the rows that have a text, each with it."""
    for row in rows():
        with suppress(InvalidRow):  # the row fails when it is asked
            yield documents.filled(row)


def _text(documents: Documents, row: Row, name: str) -> bytes:
    try:
        return documents.text(row, name).encode("utf-8", "replace")
    except InvalidRow as error:
        raise Unsent(Unsendable(row.index, str(error), error.reason)) from error
