"""A row and its outcome as bytes of the output.

What is the input's own stays equal: a cell of CSV is written as it was read, quoted where a strict reader
needs it; a line of JSONL keeps its bytes, and our keys go in before the closing brace. Across formats, CSV
cells become JSON strings; JSON strings become cells as they are, null and missing keys empty ones, and
every other value its JSON text as it was written.

Our values are never an error: what the output's encoding cannot hold becomes a visible escape.
"""

import codecs
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any

import orjson

from batchllm.records import Answer, Row
from batchllm.sink.columns import Columns
from batchllm.sink.outcome import FIELDS, Outcome, Reader, answer_reader

_NO_ANSWER = Answer()
_SURROGATE = re.compile("[\ud800-\udfff]")
_BLANKS = re.compile(r"[ \t\r\n]*")
_AS_WRITTEN = json.JSONDecoder(parse_int=str, parse_float=str)
_HEADER_SPECIAL = ",;\t|"

RowWriter = Callable[[Row, Outcome], str | bytes]
"""Makes the record of a row, without the newline behind it."""


def _escape_for_json(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return json.dumps(missing)[1:-1], error.end


JSON_ESCAPE = "batchllm.json"
"""Error handler for encoding JSON text: what the encoding does not have becomes a JSON escape."""

codecs.register_error(JSON_ESCAPE, _escape_for_json)


def readers(columns: Columns) -> tuple[Reader, ...]:
    """What reads the value of each of our columns, in their order."""
    found = {written: answer_reader(name) for written, name in columns.answer}
    found |= {written: FIELDS[name] for written, name in columns.fields}
    return tuple(found[written] for written in columns.order)


def csv_writer(columns: Columns, delimiter: str, *, from_csv: bool) -> RowWriter:
    """The writer of CSV records."""
    ours = readers(columns)
    names = columns.input

    def write(row: Row, outcome: Outcome) -> str:
        answer = outcome.answer or _NO_ANSWER
        cells = [*row.raw] if from_csv else cells_of_json(row, names)
        for read in ours:
            value = read(outcome, answer)
            cells.append(value if type(value) is str else csv_text(value))
        return csv_record(cells, delimiter)

    return write


def csv_header(columns: Columns, delimiter: str) -> str:
    """The first record. Names with any usual delimiter are quoted, so that it shows only the real one."""
    names = [
        _quoted(name)
        if _is_special(name, delimiter) or any(mark in name for mark in _HEADER_SPECIAL)
        else name
        for name in (*columns.input, *columns.order)
    ]
    if names and names[0].startswith("\ufeff"):
        names[0] = _quoted(names[0])  # or it would be read as a byte-order mark
    return delimiter.join(names)


def csv_record(cells: Sequence[str], delimiter: str) -> str:
    """One record, quoted where strict reading needs it (a lone CR too)."""
    line = delimiter.join(cells)
    if '"' in line or "\n" in line or "\r" in line or line.count(delimiter) >= len(cells):
        return delimiter.join([_quoted(cell) if _is_special(cell, delimiter) else cell for cell in cells])
    return line or ('""' if len(cells) == 1 else "")


def _is_special(cell: str, delimiter: str) -> bool:
    return delimiter in cell or '"' in cell or "\n" in cell or "\r" in cell


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'


def csv_text(value: Any) -> str:
    """A value that is no string as a cell: nothing for ``None``, plain digits, or JSON."""
    if value is None:
        return ""
    if type(value) is int:
        return str(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    return json_bytes(value).decode()


def json_bytes(value: Any) -> bytes:
    """JSON of one of our values, whatever it is."""
    try:
        return orjson.dumps(value, default=_plain)
    except TypeError:  # half of a surrogate pair, or an integer beyond 64 bits
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_plain)
        return _SURROGATE.sub(lambda found: f"\\\\u{ord(found[0]):04x}", text).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, float | Decimal):
        return float(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable):
        return list(value)
    return str(value)


def cells_of_json(row: Row, names: Sequence[str]) -> list[str]:
    """The values of a JSON object as cells."""
    values = row.values
    written: Mapping[str, str] | None = None
    cells: list[str] = []
    for name in names:
        value = values.get(name)
        if type(value) is str:
            cells.append(value)
        elif value is None:
            cells.append("")
        elif value is True or value is False:
            cells.append("true" if value else "false")
        elif isinstance(value, dict | list):
            written = written or members_as_written(row.raw)
            cells.append(written[name])
        else:
            cells.append(str(value))
    return cells


def members_as_written(raw: list[str] | bytes) -> dict[str, str]:
    """Keys of a JSON object to the text of their values, cut out of the line."""
    assert isinstance(raw, bytes)
    text = raw.decode()
    members: dict[str, str] = {}
    position = _past_blanks(text, text.index("{") + 1)
    while text[position] == '"':
        key, position = scanstring(text, position + 1, True)
        position = _past_blanks(text, _past_blanks(text, position) + 1)
        _, end = _AS_WRITTEN.raw_decode(text, position)
        members[key] = text[position:end]
        position = _past_blanks(text, end)
        if text[position] == ",":
            position = _past_blanks(text, position + 1)
    return members


def _past_blanks(text: str, position: int) -> int:
    found = _BLANKS.match(text, position)
    return found.end() if found else position


def jsonl_writer(columns: Columns, *, from_csv: bool) -> RowWriter:
    """The writer of JSONL lines."""
    ours = tuple(zip(columns.order, readers(columns), strict=True))

    def write(row: Row, outcome: Outcome) -> bytes:
        answer = outcome.answer or _NO_ANSWER
        values = {name: read(outcome, answer) for name, read in ours}
        if from_csv:
            return json_bytes({**row.values, **values})
        return appended(row, values)

    return write


def appended(row: Row, values: Mapping[str, Any]) -> bytes:
    """The bytes of a JSON line with further members before its closing brace."""
    raw = row.raw
    assert isinstance(raw, bytes)
    if not values:
        return raw
    end = raw.rindex(b"}")
    return b"".join((raw[:end], b"," if row.values else b"", json_bytes(values)[1:-1], raw[end:]))
