"""What a file format is: a source that reads rows and a writer that writes them.

A row is columns and values. What a format has to remember of a row to write it again as it was, such as the
bytes of a line, is the row's ``origin``, which only the source that made it understands. Writers ask the source
for what they need: the row's cells as text, or the row as a JSON object. So each format can be written from any
other, and no format knows another.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from batchllm.errors import InputError, UsageError
from batchllm.extras import install_command
from batchllm.formats.columns import Columns
from batchllm.formats.input_file import InputFile
from batchllm.formats.json_text import cell_text, json_bytes
from batchllm.formats.layout import TextLayout
from batchllm.formats.output_file import OutputTarget
from batchllm.formats.scan import InputStatistics, counted_sample
from batchllm.records import Row


def changed(name: str, what: str = "", *, line: int | None = None) -> InputError:
    """Returns the error of an input that is another than the one that was scanned; ``what``: only this of it is."""
    return InputError(name, f"{what}changed while the job ran; run the same command again", line=line)


class Source(ABC):
    """An input file; use ``open_source``.

    Attributes:
        kind: Name of the format.
        has_kinds: Cells may be something else than text.
        file: The file.
        columns: Names of the columns, in order; where the file has no header they are known after ``scan``.
        notes: What a reader of the file would not expect of it, in words.
        layout: How the file is written, where it is text.
        base: The folder relative to which files are shown that lie in it; ``None`` is the working folder.
    """

    kind: str
    has_kinds: bool = True
    layout: TextLayout | None = None

    def __init__(self, file: InputFile) -> None:
        self.file = file
        self.columns: tuple[str, ...] = ()
        self.notes: tuple[str, ...] = ()
        self.base: Path | None = None
        self._digest: str | None = None

    @property
    def name(self) -> str:
        """What messages call the file."""
        return self.file.name

    @abstractmethod
    def scan(self) -> InputStatistics:
        """Reads the whole file once; raises ``InputError`` for the first thing that is wrong with it."""

    @abstractmethod
    def rows(self, start: int = 0) -> Iterator[Row]:
        """Streams the rows from row ``start`` on; raises ``InputError``.

        After a complete pass from row 0, ``digest`` knows the hash of what was read.
        """

    def close(self) -> None:  # noqa: B027 - most sources hold nothing
        """Removes what was put on disk to read the file; the source is not used any more."""

    def release(self) -> None:  # noqa: B027 - most sources hold nothing
        """Frees what is held in memory of the file; the next pass over the rows reads it again."""

    def digest(self) -> str:
        """Returns the SHA-256 of the bytes that the last complete pass over ``rows`` read, in hexadecimal digits.

        Raises:
            ValueError: There was no such pass.
        """
        if self._digest is None:
            raise ValueError("no pass over rows() has been completed")
        return self._digest

    def place_of(self, row: int) -> Any:
        """Returns where a pass begins to read for a row, as JSON has it; call it after ``scan``."""
        return None

    def recall(self, statistics: InputStatistics, place: Any) -> None:  # noqa: B027 - most sources need nothing
        """Takes what the scan of the same input by another source found, instead of a scan of its own.

        Args:
            statistics: What that scan found; the sample is not needed.
            place: What ``place_of`` returned; passes from that row on do not read what is before it.
        """

    def restrict(self, rows: range, whole: InputStatistics) -> InputStatistics:
        """Makes ``rows`` yield only a range of the rows from now on, with indexes from 0, and reads them once.

        Args:
            rows: The range.
            whole: What the scan of the whole input found.

        Returns:
            The statistics of the rows: ``sha256`` is the hash of the rows, which ``digest`` returns too from now on,
            and the columns are those of the whole input.

        Raises:
            InputError: They cannot be read, or the input has fewer rows than that.
        """
        every, expected = self.rows, ""

        def ranged(start: int = 0) -> Iterator[Row]:
            wanted = islice(every(rows.start + start), max(0, len(rows) - start))
            count = start
            for row in self._hashed(row._replace(index=index) for index, row in enumerate(wanted, start)):
                count += 1
                yield row
            if count < len(rows) or (not start and expected not in ("", self._digest)):
                raise changed(self.name)
            if start:
                self._digest = None

        self.rows = ranged  # type: ignore[method-assign]
        _, sample = counted_sample(ranged(), self.sampled)
        expected = self.digest()
        return replace(
            whole,
            rows=len(rows),
            bytes=whole.bytes * len(rows) // max(1, whole.rows),
            sha256=expected,
            sample=sample,
            bad_rows=0,
        )

    def sampled(self, row: Row) -> Row:
        """Returns a row without what would keep a part of the file in memory, for the sample."""
        return row

    def digest_of(self, rows: Iterable[Row]) -> str:
        """Returns the hash of rows, of how they are read, their columns and values, in hexadecimal digits."""
        for _ in self._hashed(rows):
            pass
        return self.digest()

    def _hashed(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Yields rows, and makes ``digest`` return their hash once all are read."""
        schema = self.arrow_schema()
        kinds = None if schema is None else list(map(str, schema.types))
        found = hashlib.sha256(f"{self.reading()} {kinds}".encode())
        for row in rows:
            found.update(self.json_object(row, {}) + b"\n")
            yield row
        self._digest = found.hexdigest()

    def header(self, names: Sequence[str]) -> list[str]:
        """Returns the names of columns as they are written, which may be empty or equal."""
        return list(names)

    def reading(self) -> str:
        """Returns what the rows depend on beside the bytes of the file; another text means other rows."""
        return ""

    def skipped_file(self) -> Iterator[bytes]:
        """Yields the bytes of a file with the records that are left out because they cannot be rows."""
        yield from ()

    def file_of(self, row: Row) -> str:
        """Returns the file of a row for people; see ``base``."""
        path = Path(self.name)
        if not path.is_absolute():
            return self.name
        base = self.base or Path.cwd()
        return str(path.relative_to(base)) if path.is_relative_to(base) else self.name

    def cells(self, row: Row, names: Sequence[str]) -> list[str]:
        """Returns the values of columns of a row as text, as they are written in the file where that can be had."""
        return [cell_text(row.values.get(name)) for name in names]

    def typed_header(self, names: Sequence[str]) -> Sequence[Any]:
        """Returns the names of columns for a format with typed cells: numbers and dates as such."""
        return self.header(names)

    def typed_cells(self, row: Row, names: Sequence[str]) -> Sequence[Any]:
        """Returns the values of a row for a format with typed cells: dates as ``date``, not as text."""
        return [row.values.get(name) for name in names]

    def arrow_schema(self) -> Any:
        """Returns the Arrow schema of the columns, where each row has an ``arrow_origin``; ``None`` where none has."""
        return None

    def arrow_origin(self, row: Row) -> Any:
        """Returns the ``ArrowOrigin`` of a row; called where there is an Arrow schema."""
        raise NotImplementedError

    def json_object(self, row: Row, further: Mapping[str, Any], names: Sequence[str] | None = None) -> bytes:
        """Returns a row with further members as a JSON object, the row as it is written where that can be had.

        Args:
            row: The row.
            further: The further members.
            names: The columns that it has, in this order; ``None`` is all of them.
        """
        if names is None:
            return json_bytes({**row.values, **further})
        kept = {name: row.values[name] for name in names if name in row.values}
        return json_bytes({**kept, **further})

    def _of_columns(self, values: Sequence[Any], names: Sequence[str]) -> list[Any]:
        """Returns those of values, one for each column, that belong to some columns."""
        if names == self.columns:
            return list(values)
        by_name = dict(zip(self.columns, values, strict=True))
        return [by_name[name] for name in names]

    def size_of(self, row: Row) -> int | None:
        """Returns about how many bytes of the file a row takes; ``None`` where that cannot be said."""
        return None

    def describe(self) -> str:
        """Returns how the file is written, in a few words."""
        return self.kind

    def kept_options(self, suffix: str) -> dict[str, str]:
        """Returns the options with which ``open_source`` reads an output of the same format.

        Args:
            suffix: Suffix of the output.
        """
        return {}


class Writer(ABC):
    """Writes the rows of a source with further columns.

    Args:
        target: Takes the bytes.
        source: The input, which says how it is written.
        columns: The columns of the output.
        suffix: Suffix of the output, ``""`` for standard output.
    """

    @abstractmethod
    def __init__(self, target: OutputTarget, source: Source, columns: Columns, suffix: str) -> None: ...

    @abstractmethod
    def add(self, row: Row, values: Mapping[str, Any]) -> None:
        """Writes a row of the source, and beside it the values of ``columns.order``, which are in this order."""

    def set_encoding(self, source: Source, encoding: str) -> None:  # noqa: B027 - what is no text has none
        """Writes in an encoding that the user names, where the format is text; called before the first row.

        Raises:
            UsageError: There is no such encoding.
        """

    @abstractmethod
    def finish(self) -> None:
        """Writes what is left; called once, after the last row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A file format.

    Attributes:
        suffixes: Suffixes of its files, the usual one first; without the dot they are values of ``--input-format``.
        source: Opens a file: takes an ``InputFile``, the suffix, and ``options`` as keywords.
        writer: Makes a writer; ``None``: it is only read.
        options: Options of ``open_source`` that it understands.
        begins_with: How its content begins, byte-order mark and blanks aside; ``b""`` where anything may.
        nested: Values may be lists and objects, so that rows can bring their own messages.
        check: Refuses rows that the format cannot hold, before they are paid for: takes the source, the number of rows
            and the columns of the output.
        documents: A file is one row, whose text is read when the row is asked.
        magic: The first bytes of a binary format; content that begins with none of them is something else.
        output: The suffix of its outputs, where that is not the input's own; it may be that of another format.
        libraries: Packages that it needs, which come with the extra of the name ``extra``.
        extra: See ``libraries``.
    """

    suffixes: tuple[str, ...]
    source: Callable[..., Source]
    writer: type[Writer] | None = None
    options: tuple[str, ...] = ()
    begins_with: bytes = b""
    nested: bool = False
    check: Callable[[Source, int, Columns], None] | None = None
    documents: bool = False
    magic: tuple[bytes, ...] = ()
    output: str | None = None
    libraries: tuple[str, ...] = ()
    extra: str = ""

    @property
    def name(self) -> str:
        """The name of the format, such as ``csv``."""
        return self.suffixes[0].removeprefix(".")

    @property
    def title(self) -> str:
        """What messages call the format, such as ``CSV``."""
        return "SQLite" if self.name == "db" else self.name.upper()

    @property
    def written_suffixes(self) -> tuple[str, ...]:
        """Suffixes of outputs in this format."""
        if self.output is None:
            return self.suffixes
        return tuple(suffix for suffix in self.suffixes if suffix == self.output)

    def opened_writer(self, target: OutputTarget, source: Source, columns: Columns, suffix: str) -> Writer:
        """Makes a writer; see ``Writer``."""
        assert self.writer is not None, "an output has a format that is written"
        return self.writer(target, source, columns, suffix)

    def check_libraries(self, called: object) -> None:
        """Makes sure that the format can be read and written, before anything is read.

        Args:
            called: The file, for the message.

        Raises:
            UsageError: A package is missing; the message has the command that installs it.
        """
        missing = [name for name in self.libraries if find_spec(name) is None]
        if missing:
            raise UsageError(
                f"{called}: {self.title} needs {' and '.join(missing)}; install with:"
                f" {install_command(self.extra)}"
            )
