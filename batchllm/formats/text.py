"""What text formats have in common: passes that may begin in the middle, and records that are joined and encoded."""

import codecs
import re
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple

from batchllm.errors import InputError, UsageError
from batchllm.formats.encodings import is_narrow, text_codec, undecodable
from batchllm.formats.format import Source, Writer
from batchllm.formats.input_file import InputFile, InputPass
from batchllm.formats.layout import TextLayout
from batchllm.formats.output_file import OutputTarget
from batchllm.formats.scan import InputStatistics, Reservoir
from batchllm.records import Row

BAD_ROWS = ("fail", "pad", "skip")
"""Values of ``--bad-rows``: refuse the file, fill short rows with empty cells, leave such records out."""

_EVEN_CODECS = re.compile(
    r"utf-(16|32)-[lb]e|ascii|iso8859-\d+|cp(125\d|437|850|852|866|874)|koi8-[ru]|mac-roman"
)
"""Codecs without a state in mid-file that write as many bytes as they read."""

_LINE_LIMIT_BYTES = 128 << 20
_BATCH_CHARACTERS = 1 << 18


class RecordStart(NamedTuple):
    """A place in a file where a record begins.

    Attributes:
        index: The record's position, from 0.
        line: Its first line, from 1.
        offset: Its first byte; 0 is the beginning of the file, byte-order mark and header included.
    """

    index: int  # type: ignore[assignment]  # tuple.index, which nobody means by a record's
    line: int
    offset: int


BEGINNING = RecordStart(0, 1, 0)


class Block(NamedTuple):
    """Some lines of a file, with their ends.

    Attributes:
        line: Number of the first one, from 1.
        offset: Where it begins in the file; of no meaning where passes begin at the beginning alone.
        data: The lines in UTF-8.
    """

    line: int
    offset: int
    data: bytes


class TextSource(Source):
    """A source that reads records out of lines.

    Args:
        file: The file.
        layout: How it is written.
        bad_rows: One of ``BAD_ROWS``: what becomes of a record that cannot be a row.

    Attributes:
        layout: How the file is written.
    """

    def __init__(self, file: InputFile, layout: TextLayout, bad_rows: str | None = None) -> None:
        super().__init__(file)
        self.layout: TextLayout = layout
        self._bad_rows = bad_rows or BAD_ROWS[0]
        self._bad_count = 0
        self._bad_records: list[bytes] | None = None
        self._end = b"\r" if layout.newline == "\r" else b"\n"
        self._is_even = _EVEN_CODECS.fullmatch(layout.encoding) is not None
        self._starts: list[RecordStart] = []

    @abstractmethod
    def _records(
        self, opened: InputPass, start: RecordStart, starts: list[RecordStart]
    ) -> Iterator[tuple[int, int, Any]]:
        """Yields index, line and content of every record.

        Args:
            opened: The pass.
            start: Where it begins.
            starts: Gets a record's start for each block, where that can be had.
        """

    @abstractmethod
    def _row(self, index: int, line: int, record: Any) -> Row:
        """Makes the row of a record."""

    def beginning(self) -> bytes | None:
        """Returns the bytes before the first record; ``None`` where nobody can say."""
        return self.layout.bom

    def _inspect(self, line: int, record: Any) -> None:
        """Looks at a record during the scan; raises ``InputError`` where it is wrong."""

    def scan(self) -> InputStatistics:
        """Reads the whole file once; see ``Source``."""
        opened = InputPass(self.file)
        starts: list[RecordStart] = []
        self._bad_count = 0
        reservoir: Reservoir[Row] = Reservoir()
        index = -1
        try:
            for index, line, record in self._records(opened, BEGINNING, starts):
                self._inspect(line, record)
                if index == reservoir.wanted:
                    reservoir.take(self._row(index, line, record))
        except InputError:
            self.file.check_whole()
            raise
        self._starts = starts if self._is_even or self.layout.encoding == "utf-8" else []
        return InputStatistics(
            index + 1, opened.size_bytes, opened.sha256(), self.columns, reservoir.items(), self._bad_count
        )

    def _refuse(self, error: InputError, record: bytes) -> None:
        """Raises the error of a record, or leaves the record out and counts it; it comes in UTF-8."""
        if self._bad_rows != "skip":
            raise error
        self._bad_count += 1
        if self._bad_records is not None:
            self._bad_records.append(record)

    def skipped_head(self) -> bytes:
        """Returns what stands above the records of a file, in UTF-8."""
        return b""

    def skipped_file(self) -> Iterator[bytes]:
        """Yields a file of the records that are left out; see ``Source``."""
        end = self.layout.newline
        found = self._bad_records = [head] if (head := self.skipped_head()) else []
        yield self.layout.bom
        for _ in chain(self._records(InputPass(self.file), BEGINNING, []), (None,)):
            for record in found:
                yield (record.decode() + end).encode(self.layout.encoding)
            found.clear()
        self._bad_records = None

    def reading(self) -> str:
        """Returns what rows depend on beside the bytes of the file; see ``Source``."""
        return f"{self.layout.encoding} {self._bad_rows}"

    def rows(self, start: int = 0) -> Iterator[Row]:
        """Streams the rows; see ``Source``. What is before ``start`` is not read where the scan knows its place."""
        self._digest = None
        begin = self._start_of(start)
        opened = InputPass(self.file, begin.offset)
        for index, line, record in self._records(opened, begin, []):
            if index >= start:
                yield self._row(index, line, record)
        if start == 0:
            self._digest = opened.sha256()

    def _start_of(self, row: int) -> RecordStart:
        """Returns the last known start of a record that is not behind a row."""
        after = bisect_right(self._starts, row, key=lambda record: record.index)
        return self._starts[after - 1] if after and row else BEGINNING

    def place_of(self, row: int) -> Any:
        """Returns where a record begins, a block before the row at most; see ``Source``."""
        return list(self._start_of(row))

    def recall(self, statistics: InputStatistics, place: Any) -> None:
        """Takes the columns, and the start of a record; see ``Source``."""
        self._starts = [] if place is None else [RecordStart(*place)]

    def _blocks(self, opened: InputPass, start: RecordStart) -> Iterator[Block]:
        """Yields all lines from a place on, many at a time."""
        line, offset = start.line, start.offset or len(self.layout.bom)
        rest = b""
        for chunk in self._utf8(opened):
            cut = chunk.rfind(self._end) + 1
            if not cut:
                rest += chunk
                if len(rest) > _LINE_LIMIT_BYTES:
                    reason = f"this line has more than 128 MiB; is it {self.kind.upper()}?"
                    raise InputError(self.name, reason, line=line)
                continue
            data = rest + chunk[:cut]
            yield Block(line, offset, data)
            line += data.count(self._end)
            offset += self._size_in_file(data)
            rest = chunk[cut:]
        if rest:
            yield Block(line, offset, rest)

    def _size_in_file(self, data: bytes) -> int:
        """Returns how many bytes of the file a text in UTF-8 takes, where passes can begin in the middle."""
        return len(data.decode().encode(self.layout.encoding)) if self._is_even else len(data)

    def _utf8(self, opened: InputPass) -> Iterator[bytes]:
        """The bytes without the byte-order mark, in UTF-8."""
        skip = 0 if opened.start else len(self.layout.bom)
        if self.layout.encoding == "utf-8":
            for chunk in opened.chunks():
                yield chunk[skip:]
                skip = 0
            return
        decoder = codecs.getincrementaldecoder(self.layout.encoding)("strict")
        try:
            for chunk in opened.chunks():
                yield decoder.decode(chunk[skip:]).encode()
                skip = 0
            yield decoder.decode(b"", final=True).encode()
        except UnicodeError:
            raise self._undecodable() from None

    def _undecodable(self) -> InputError:
        return undecodable(self.file, self.layout.encoding, len(self.layout.bom))

    def describe(self) -> str:
        """Returns format and encoding, and the notes."""
        return ", ".join((self.kind, self.layout.encoding, *self.notes))

    def kept_options(self, suffix: str) -> dict[str, str]:
        """Returns the encoding; see ``Source``."""
        return {"encoding": self.layout.encoding}


def output_layout(source: Source, kind: str, encoding: str | None) -> TextLayout:
    """Returns how an output is written: like a source of the same format, else in UTF-8 with LF.

    An encoding that has not every character, such as cp1252, is used only where the user names it, because nobody
    knows which characters answers will have.

    Args:
        source: The input.
        kind: Name of the output's format.
        encoding: The encoding that the user names; ``None`` decides by the source.

    Raises:
        UsageError: There is no such encoding.
    """
    own = source.layout if source.kind == kind else None
    layout = own or TextLayout()
    if encoding is None:
        return replace(layout, encoding="utf-8", bom=b"") if is_narrow(layout.encoding) else layout
    try:
        codec = text_codec(encoding)
    except ValueError as error:
        raise UsageError(f"there is {error}; well-known ones: utf-8, utf-8-sig, utf-16, cp1252") from None
    if codec == "utf-8-sig":
        return replace(layout, encoding="utf-8", bom=codecs.BOM_UTF8)
    if codec in ("utf-16", "utf-32"):
        bom = codecs.BOM_UTF16_LE if codec == "utf-16" else codecs.BOM_UTF32_LE
        return replace(layout, encoding=f"{codec}-le", bom=bom)
    return replace(layout, encoding=codec, bom=layout.bom if codec == layout.encoding else b"")


class TextWriter(Writer):
    """A writer of records with newlines between them, joined and encoded many at a time.

    The layout is that of ``output_layout``.
    """

    kind: str

    def __init__(self, target: OutputTarget, source: Source) -> None:
        self.layout = output_layout(source, self.kind, None)
        self._target = target
        self._records: list[Any] = []
        self._size = 0
        self._set_layout(self.layout)

    def set_encoding(self, source: Source, encoding: str) -> None:
        """Writes in an encoding that the user names; see ``Writer``."""
        self._set_layout(output_layout(source, self.kind, encoding))

    def _set_layout(self, layout: TextLayout) -> None:
        self.layout = layout
        self._before = layout.bom
        self._end = layout.newline.encode(layout.encoding)

    @abstractmethod
    def _joined(self, records: list[Any]) -> bytes:
        """Encodes records with newlines between them."""

    def _put(self, record: str | bytes) -> None:
        self._records.append(record)
        self._size += len(record)
        if self._size > _BATCH_CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        if self._records:
            self._target.write(self._before + self._joined(self._records))
            self._before = self._end
            self._records.clear()
            self._size = 0

    def finish(self) -> None:
        """Writes what is left, and the last newline where the layout has one."""
        self._flush()
        if self._before is not self._end:  # there was no record
            self._target.write(self._before)
        elif self.layout.final_newline:
            self._target.write(self._end)
