"""JSONL: one JSON object a line, its bytes kept as they are, its values as JSON says.

Rules. LF or CRLF ends a line (CR, where it ends the first one); blank lines are skipped. ``Row.raw`` is the
line without its end, in UTF-8 whatever the file's encoding. A number whose Python form would read otherwise
than it is written (``1e5``, ``1.50``, ``-0``, 5,000 digits) is a ``WrittenNumber``. NaN and Infinity are not
JSON and are refused. Half of a surrogate pair (``"\\ud83d"``, what a careless cut leaves) stays in ``raw``
and is U+FFFD in ``values``, which can be encoded. Of two equal keys the last one counts, as everywhere in
Python. Objects nested deeper than 200 levels are refused, the same at every call depth.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

import orjson

from batchllm.errors import InputError
from batchllm.records import Row
from batchllm.source.reading import RECORD_LIMIT_BYTES, Reading, RecordMark, Source
from batchllm.source.statistics import InputStatistics, Reservoir

DEPTH_LIMIT = 200

_HALF_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)


class WrittenNumber(float):
    """A number that remembers how it was written: ``str`` and ``format`` give that back.

    As a ``float`` it is what ``float`` makes of the text, infinite where that is too large.
    """

    __slots__ = ("text",)

    def __new__(cls, text: str) -> "WrittenNumber":
        """Make a number of its JSON text."""
        number = super().__new__(cls, text)
        number.text = text
        return number

    text: str

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__

    def __format__(self, specification: str) -> str:
        return format(float(self), specification) if specification else self.text

    def __reduce__(self) -> tuple[type["WrittenNumber"], tuple[str]]:
        return WrittenNumber, (self.text,)


class JsonlSource(Source):
    """A JSONL file; ``columns`` is empty until ``check`` has seen every key."""

    _place: tuple[int, int] | None = None  # the line and the offset behind the last piece that was read

    def check(self) -> InputStatistics:
        """Read the whole file once; see ``Source``."""
        reading = Reading(self.path, self.name)
        columns: dict[str, None] = {}
        known = columns.keys()
        reservoir: Reservoir[Row] = Reservoir()
        count = 0
        self._marks, self._place = [], None
        place = None
        for line, raw in self._lines(reading):
            if self._place is not place and (place := self._place) is not None:
                self._marks.append(RecordMark(count, *place))
            values = self._glance(reading, line, raw)
            if not known >= values.keys():
                columns.update(dict.fromkeys(values))
            if count == reservoir.wanted:
                reservoir.take(Row(count, line, self._parsed(reading, line, raw), raw))
            count += 1
        self.columns = tuple(columns)
        sample = tuple(sorted(reservoir.items(), key=lambda row: row.index))
        return InputStatistics(count, reading.size_bytes, reading.sha256(), self.columns, sample)

    def rows(self, start: int = 0) -> Iterator[Row]:
        """The rows, streamed; see ``Source``."""
        self._digest = None
        mark = self._mark_before(start) or RecordMark(0, 1, 0)
        reading = Reading(self.path, self.name, mark.offset)
        for index, (line, raw) in enumerate(self._lines(reading, mark.line), mark.index):
            if index >= start:
                yield Row(index, line, self._parsed(reading, line, raw), raw)
        if start == 0:
            self._digest = reading.sha256()

    def _lines(self, reading: Reading, first: int = 1) -> Iterator[tuple[int, bytes]]:
        """Every line that is not blank, with its number and without its end.

        Args:
            reading: The bytes.
            first: The number of the line that they begin with.
        """
        end = b"\r" if self.format.newline == "\r" else b"\n"
        number = first - 1
        rest = b""
        offset = len(self.format.bom)
        for chunk in self._chunks(reading):
            lines = (rest + chunk).split(end)
            offset += len(rest) + len(chunk) - len(lines[-1])
            rest = lines.pop()
            for number, line in enumerate(lines, number + 1):  # noqa: B020 - goes on where the last chunk ended
                if line and not line.isspace():
                    yield number, line[:-1] if line.endswith(b"\r") else line
            if len(rest) > RECORD_LIMIT_BYTES:
                raise InputError(self.name, "this line has more than 64 MiB; is it JSONL?", line=number + 1)
            if self.format.encoding == "utf-8":
                self._place = number + 1, offset
        if rest and not rest.isspace():
            yield number + 1, rest[:-1] if rest.endswith(b"\r") else rest

    def _chunks(self, reading: Reading) -> Iterator[bytes]:
        """The file as UTF-8, without its byte-order mark."""
        if self.format.encoding != "utf-8":
            yield from (text.encode() for text in reading.texts(self.format))
            return
        skip = 0 if reading.start else len(self.format.bom)
        for chunk in reading.chunks():
            yield chunk[skip:]
            skip = 0

    def _glance(self, reading: Reading, line: int, raw: bytes) -> dict[str, Any]:
        """The object of a line, its numbers unlike ``Row.values``: enough to accept it and know its keys.

        What the faster parser refuses, the exact one judges.
        """
        if raw.count(b"[") + raw.count(b"{") <= DEPTH_LIMIT:
            try:
                values = orjson.loads(raw)
            except orjson.JSONDecodeError:
                pass
            else:
                if type(values) is dict:
                    return values
        return self._parsed(reading, line, raw)

    def _parsed(self, reading: Reading, line: int, raw: bytes) -> dict[str, Any]:
        try:
            values = parse_object(raw)
        except UnicodeDecodeError:
            raise reading.undecodable(self.format) from None
        except ValueError as error:
            raise InputError(self.name, self._explained(str(error), line, raw), line=line) from None
        return values

    def _explained(self, reason: str, line: int, raw: bytes) -> str:
        if b"\0" in raw[:16]:
            return f"{reason}; it has NUL bytes: name the file's --encoding"
        if line == 1 and raw.lstrip().startswith(b"["):
            return f"{reason}; JSONL has one object a line (jq -c '.[]' makes them of an array)"
        return f"{reason}; each line must be one JSON object"


def parse_object(raw: bytes) -> dict[str, Any]:
    """Parse one line by the rules above.

    Raises:
        ValueError: It is not a JSON object; the message is the reason. ``UnicodeDecodeError``: not UTF-8.
    """
    if raw.count(b"[") + raw.count(b"{") > DEPTH_LIMIT and _depth(raw) > DEPTH_LIMIT:
        raise ValueError(f"nested deeper than {DEPTH_LIMIT} levels")
    text = raw.decode()
    try:
        values = (_EXACT if "-0" in text else _QUICK).decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg.removesuffix(' at')} at character {error.pos + 1}") from None
    except _NotJsonError:
        raise
    except ValueError:  # more digits than int() takes
        values = _EXACT.decode(text)
    if type(values) is not dict:
        raise ValueError(f"{_KIND_NAMES.get(type(values), 'a number')} where an object is expected")
    if _HALF_PAIR.search(raw):
        values = _encodable(values)
    return values  # type: ignore[no-any-return]


class _NotJsonError(ValueError):
    """A word that Python's parser takes and JSON does not have."""


_KIND_NAMES = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}


def _depth(raw: bytes) -> int:
    depth = deepest = 0
    for byte in _STRING.sub(b"", raw):
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def _float(text: str) -> float:
    number = float(text)
    return number if repr(number) == text else WrittenNumber(text)


def _integer(text: str) -> int | float:
    return WrittenNumber(text) if text == "-0" or len(text) > 4000 else int(text)


def _refuse(word: str) -> NoReturn:
    raise _NotJsonError(f"not JSON: {word} is no JSON value (null is)")


_QUICK = json.JSONDecoder(parse_float=_float, parse_constant=_refuse)
_EXACT = json.JSONDecoder(parse_float=_float, parse_int=_integer, parse_constant=_refuse)


def _encodable(value: Any) -> Any:
    """The same with U+FFFD for each half of a surrogate pair."""
    if type(value) is str:
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if type(value) is dict:
        return {_encodable(key): _encodable(inner) for key, inner in value.items()}
    if type(value) is list:
        return [_encodable(inner) for inner in value]
    return value
