"""The output, made of the source and the outcomes, row beside row in input order.

CSV to CSV keeps delimiter, newline style, byte-order mark and encoding, JSONL to JSONL the same without the
delimiter. Across formats the output is UTF-8 with LF.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from batchllm.errors import InputError
from batchllm.records import Row
from batchllm.sink.atomic import AtomicFile
from batchllm.sink.columns import Columns
from batchllm.sink.formats import JSON_ESCAPE, RowWriter, csv_header, csv_writer, jsonl_writer
from batchllm.sink.outcome import Outcome
from batchllm.sink.stream import Stream

_BATCH_CHARACTERS = 1 << 18


class SourceFormat(Protocol):
    """What the sink has to know of how the input is written."""

    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def encoding(self) -> str: ...  # noqa: D102
    @property
    def bom(self) -> bytes: ...  # noqa: D102
    @property
    def newline(self) -> str: ...  # noqa: D102
    @property
    def delimiter(self) -> str: ...  # noqa: D102
    @property
    def final_newline(self) -> bool: ...  # noqa: D102


class RowSource(Protocol):
    """What the sink reads the input from."""

    @property
    def path(self) -> Path: ...  # noqa: D102
    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def format(self) -> SourceFormat: ...  # noqa: D102
    def rows(self) -> Iterator[Row]: ...  # noqa: D102
    def digest(self) -> str: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Written:
    """An output that was written.

    Attributes:
        sha256: Hash of its bytes, in hexadecimal digits.
        bytes: Its size.
        rows: Records, the header not counted.
        is_cut: Whoever read standard output closed it before the end.
    """

    sha256: str
    bytes: int
    rows: int
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """How the output is written; see ``source.Format`` for the attributes."""

    kind: str
    encoding: str
    bom: bytes
    newline: str
    delimiter: str
    final_newline: bool


class Output:
    """An output in the making: its first records may be prepared in memory before the last outcomes are known.

    Args:
        source: The input; it is read once more from its start.
        path: Where the output appears, all at once; ``None`` is standard output, row by row.
        columns: Which columns it has.
        output_format: ``csv`` or ``jsonl``; a path that ends in ``.tsv`` gets tabs.
        partial: Rows without an outcome are left out; otherwise there must be none.
    """

    def __init__(
        self,
        source: RowSource,
        *,
        path: Path | None,
        columns: Columns,
        output_format: str,
        partial: bool = False,
    ) -> None:
        layout = layout_of(source, path, output_format)
        from_csv = source.format.kind == "csv"
        self._source = source
        self._path = path
        self._partial = partial
        self._input = source.rows()
        self._gap: int | None = None
        self._missing: int | None = None
        self._rows = 0
        self._records = _Batches(layout)
        self._format: RowWriter
        if layout.kind == "csv":
            self._format = csv_writer(columns, layout.delimiter, from_csv=from_csv)
            self._records.add(csv_header(columns, layout.delimiter))
        else:
            self._format = jsonl_writer(columns, from_csv=from_csv)

    def prepare(self, outcomes: Iterable[Outcome]) -> None:
        """Make records of the next rows; nothing is written yet.

        Args:
            outcomes: In the order of ``row_index``, all of them behind those that were prepared before.

        Raises:
            InputError: The input changed.
        """
        for outcome in outcomes:
            row = self._next_row(outcome.row_index)
            if row is None:
                self._missing = outcome.row_index
                return
            self._records.add(self._format(row, outcome))
            self._rows += 1

    def write(
        self,
        outcomes: Iterable[Outcome],
        *,
        expected_sha256: str | None = None,
        announce: Callable[[str], None] = lambda sha256: None,
    ) -> Written:
        """Write what was prepared and the rows behind it.

        Args:
            outcomes: Those behind the prepared ones.
            expected_sha256: What the input's hash has to be still, or nothing is put in place.
            announce: Told the hash of the whole output before it is put in place.

        Raises:
            InputError: The input changed.
            CannotWrite: The output cannot be created, or there is no room.
            StorageFailure: The disk reported an error.
        """
        with _target(self._path) as target:
            self._records.write_to(target)
            try:
                self.prepare(outcomes)
                self._next_row(None)
            except InputError as error:
                if expected_sha256 is None:
                    raise
                raise _changed(self._source) from error
            if expected_sha256 is not None and self._source.digest() != expected_sha256:
                raise _changed(self._source)
            assert self._missing is None, f"there is no row {self._missing}"
            assert self._gap is None, f"row {self._gap} has no outcome"
            self._records.finish()
            announce(target.sha256())
            target.commit()
        is_cut = isinstance(target, Stream) and target.is_cut
        return Written(target.sha256(), target.size_bytes, self._rows, is_cut)

    def _next_row(self, index: int | None) -> Row | None:
        """The row of an index, or ``None`` where the input ends before it."""
        for row in self._input:
            if row.index == index:
                return row
            if self._gap is None and not self._partial:
                self._gap = row.index
        return None


def layout_of(source: RowSource, path: Path | None, output_format: str) -> Layout:
    """How an output of this source is written."""
    form = source.format
    suffix = path.suffix.lower() if path is not None else ""
    if form.kind != output_format:
        return Layout(output_format, "utf-8", b"", "\n", "\t" if suffix == ".tsv" else ",", True)
    delimiter = form.delimiter
    if suffix == ".tsv":
        delimiter = "\t"
    elif suffix == ".csv" and source.path.suffix.lower() == ".tsv":
        delimiter = ","
    return Layout(form.kind, form.encoding, form.bom, form.newline, delimiter, form.final_newline)


def _target(path: Path | None) -> AtomicFile | Stream:
    if path is None or (path.exists() and not path.is_file() and not path.is_dir()):
        return Stream(path)
    return AtomicFile(path)


def _changed(source: RowSource) -> InputError:
    return InputError(source.name, "changed while the job ran; run the same command again")


class _Batches:
    """Records, joined and encoded many at a time; they wait in memory until there is a file for them."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._end = layout.newline.encode(layout.encoding)
        self._before = layout.bom
        self._records: list[Any] = []
        self._size = 0
        self._waiting: list[bytes] = []
        self._write: Callable[[bytes], None] = self._waiting.append

    def add(self, record: str | bytes) -> None:
        self._records.append(record)
        self._size += len(record)
        if self._size > _BATCH_CHARACTERS:
            self._flush()

    def write_to(self, target: AtomicFile | Stream) -> None:
        """Write what waits, and from now on what comes."""
        self._write = target.write
        for data in self._waiting:
            target.write(data)
        self._waiting.clear()

    def _flush(self) -> None:
        encoding = self._layout.encoding
        if self._layout.kind == "csv":
            data = self._layout.newline.join(self._records).encode(encoding, "backslashreplace")
        elif encoding == "utf-8":
            data = self._end.join(self._records)
        else:
            text = self._layout.newline.join([record.decode() for record in self._records])
            data = text.encode(encoding, JSON_ESCAPE)
        self._write(self._before + data)
        self._before = self._end
        self._records.clear()
        self._size = 0

    def finish(self) -> None:
        """Write the records that are left, and the last newline where the layout has one."""
        if self._records:
            self._flush()
        if self._before is not self._end:
            self._write(self._before)
        elif self._layout.final_newline:
            self._write(self._end)
