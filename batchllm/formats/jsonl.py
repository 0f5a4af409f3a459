"""JSONL: one JSON object a line, its bytes kept as they are.

LF or CRLF ends a line (CR, where it ends the first one); blank lines are skipped. A row's ``origin`` is the line
without its end, in UTF-8 whatever the file's encoding. ``json_text`` says how its values are read. An output line
keeps the bytes of the input's, and further members go in before the closing brace.
"""

import codecs
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from batchllm.errors import InputError
from batchllm.formats.columns import Columns
from batchllm.formats.format import Format, Source
from batchllm.formats.input_file import InputFile, InputPass
from batchllm.formats.json_text import cell_text, json_bytes, members_as_written, parse_object, parse_quickly
from batchllm.formats.layout import read_layout
from batchllm.formats.output_file import OutputTarget
from batchllm.formats.scan import InputStatistics
from batchllm.formats.text import RecordStart, TextSource, TextWriter
from batchllm.records import Row


class JsonlSource(TextSource):
    """A JSONL file; ``columns`` is empty until ``scan`` has seen every key.

    Args:
        file: The file.
        suffix: Its suffix, of no meaning here.
        encoding: See ``read_layout``.
        bad_rows: See ``TextSource``.
    """

    kind = "jsonl"

    def __init__(
        self, file: InputFile, suffix: str, encoding: str | None = None, bad_rows: str | None = None
    ) -> None:
        super().__init__(file, read_layout(file, encoding)[0], bad_rows)
        self._keys: dict[str, None] = {}

    def _records(
        self, opened: InputPass, start: RecordStart, starts: list[RecordStart]
    ) -> Iterator[tuple[int, int, bytes]]:
        index = start.index
        for block in self._blocks(opened, start):
            starts.append(RecordStart(index, block.line, block.offset))
            for line, raw in enumerate(block.data.split(self._end), block.line):
                if raw and not raw.isspace():
                    raw = raw.rstrip(b"\r")
                    if self._bad_rows == "skip" and not self._is_object(line, raw):
                        continue
                    yield index, line, raw
                    index += 1

    def _is_object(self, line: int, raw: bytes) -> bool:
        try:
            self._parsed(parse_quickly, line, raw)
        except InputError as error:
            if isinstance(error.__context__, UnicodeDecodeError):
                raise
            self._refuse(error, raw)
            return False
        return True

    def _inspect(self, line: int, record: bytes) -> None:
        keys = self._parsed(parse_quickly, line, record).keys()
        if not self._keys.keys() >= keys:
            self._keys |= dict.fromkeys(keys)

    def scan(self) -> InputStatistics:
        """Reads the whole file once; see ``Source``."""
        self._keys = {}
        statistics = super().scan()
        self.columns = tuple(self._keys)
        return replace(statistics, columns=self.columns)

    def recall(self, statistics: InputStatistics, place: Any) -> None:
        """Takes the keys as columns; see ``Source``."""
        super().recall(statistics, place)
        self.columns = statistics.columns

    def _row(self, index: int, line: int, record: bytes) -> Row:
        return Row(index, line, self._parsed(parse_object, line, record), record)

    def _parsed(self, parse: Callable[[bytes], dict[str, Any]], line: int, raw: bytes) -> dict[str, Any]:
        try:
            return parse(raw)
        except UnicodeDecodeError:
            raise self._undecodable() from None
        except ValueError as error:
            raise InputError(self.name, _explained(str(error), line, raw), line=line) from None

    def cells(self, row: Row, names: Sequence[str]) -> list[str]:
        """Returns strings as they are, every other value as it is written."""
        written: dict[str, str] | None = None
        cells: list[str] = []
        for name in names:
            value = row.values.get(name)
            if isinstance(value, dict | list):
                written = written or members_as_written(row.origin)
                cells.append(written[name])
            elif isinstance(value, float):
                cells.append(str(value))
            else:
                cells.append(cell_text(value))
        return cells

    def json_object(self, row: Row, further: Mapping[str, Any], names: Sequence[str] | None = None) -> bytes:
        """Returns the line as it is, with further members before its closing brace; see ``Source``."""
        line: bytes = row.origin if names is None else _chosen_members(row.origin, names)
        if not further:
            return line
        end = line.rindex(b"}")
        is_empty = not row.values if names is None else line == b"{}"
        return b"".join((line[:end], b"" if is_empty else b",", json_bytes(further)[1:-1], line[end:]))

    def size_of(self, row: Row) -> int | None:
        """Returns the bytes of a line; see ``Source``."""
        return len(row.origin) + 1 if self.layout.encoding == "utf-8" else None


def _chosen_members(line: bytes, names: Sequence[str]) -> bytes:
    written = members_as_written(line)
    members = (
        f"{json.dumps(name, ensure_ascii=False)}: {written[name]}" for name in names if name in written
    )
    return f"{{{', '.join(members)}}}".encode()


def _explained(reason: str, line: int, raw: bytes) -> str:
    if b"\0" in raw[:16]:
        return f"{reason}; it has NUL bytes: name the file's --encoding"
    if raw.rstrip().endswith((b"},", b"} ,")):
        return (
            "a comma follows the object; JSONL has one object a line and nothing between them"
            " (sed 's/,$//' removes the commas)"
        )
    if line == 1 and raw.lstrip().startswith(b"["):
        return f"{reason}; JSONL has one object a line (jq -c '.[]' makes them of an array)"
    return f"{reason}; each line must be one JSON object, and --bad-rows skip leaves out those that are not"


class JsonlWriter(TextWriter):
    """Writes JSONL; what the encoding does not have becomes a JSON escape."""

    kind = "jsonl"

    def __init__(self, target: OutputTarget, source: Source, columns: Columns, suffix: str) -> None:
        super().__init__(target, source)
        self._object = source.json_object
        self._names = None if columns.input == source.columns else columns.input

    def add(self, row: Row, values: Mapping[str, Any]) -> None:
        """Writes a line; see ``Writer``."""
        self._put(
            self._object(row, values) if self._names is None else self._object(row, values, self._names)
        )

    def _joined(self, records: list[bytes]) -> bytes:
        if self.layout.encoding == "utf-8":
            return self._end.join(records)
        text = self.layout.newline.join([record.decode() for record in records])
        return text.encode(self.layout.encoding, _JSON_ESCAPE)


def _escape_for_json(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return json.dumps(missing)[1:-1], error.end


_JSON_ESCAPE = "batchllm.json"
codecs.register_error(_JSON_ESCAPE, _escape_for_json)

FORMAT = Format(
    suffixes=(".jsonl", ".ndjson"),
    source=JsonlSource,
    writer=JsonlWriter,
    options=("encoding", "bad_rows"),
    begins_with=b"{",
    nested=True,
)
