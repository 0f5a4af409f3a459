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


def write_output(
    source: RowSource,
    outcomes: Iterable[Outcome],
    *,
    path: Path | None,
    columns: Columns,
    output_format: str,
    partial: bool = False,
    expected_sha256: str | None = None,
    announce: Callable[[str], None] = lambda sha256: None,
) -> Written:
    """Writes every row of the input beside its outcome.

    Args:
        source: The input; it is read once more from its start.
        outcomes: In the order of ``row_index``.
        path: Where the output appears, all at once; ``None`` is standard output, row by row.
        columns: Which columns it has.
        output_format: ``csv`` or ``jsonl``; a path that ends in ``.tsv`` gets tabs.
        partial: Rows without an outcome are left out; otherwise there must be none.
        expected_sha256: The hash that the input must still have, or nothing is put in place.
        announce: Told the hash of the whole output before it is put in place.

    Raises:
        InputError: The input changed.
        CannotWrite: The output cannot be created, or there is no room.
        StorageFailure: The disk reported an error.
    """
    layout = layout_of(source, path, output_format)
    from_csv = source.format.kind == "csv"
    records = _Records(layout)
    record_of: RowWriter
    if layout.kind == "csv":
        record_of = csv_writer(columns, layout.delimiter, from_csv=from_csv)
        records.add(csv_header(columns, layout.delimiter))
    else:
        record_of = jsonl_writer(columns, from_csv=from_csv)
    pairs = _Pairs(source.rows())
    with _target(path) as target:
        try:
            for row, outcome in pairs.of(outcomes):
                records.add(record_of(row, outcome))
                if records.size > _BATCH_CHARACTERS:
                    target.write(records.encoded())
        except InputError as error:
            if expected_sha256 is None:
                raise
            raise _changed(source) from error
        if expected_sha256 is not None and source.digest() != expected_sha256:
            raise _changed(source)
        assert pairs.missing is None, f"there is no row {pairs.missing}"
        assert partial or pairs.skipped is None, f"row {pairs.skipped} has no outcome"
        target.write(records.encoded(last=True))
        announce(target.sha256())
        target.commit()
    is_cut = isinstance(target, Stream) and target.is_cut
    return Written(target.sha256(), target.size_bytes, pairs.rows, is_cut)


class _Pairs:
    """Pairs outcomes with their rows, and reads the input to its end.

    Attributes:
        rows: Pairs so far.
        skipped: The first row without an outcome.
        missing: The first outcome without a row.
    """

    def __init__(self, source_rows: Iterator[Row]) -> None:
        self._source_rows = source_rows
        self.rows = 0
        self.skipped: int | None = None
        self.missing: int | None = None

    def of(self, outcomes: Iterable[Outcome]) -> Iterator[tuple[Row, Outcome]]:
        for outcome in outcomes:
            row = self._next_row(outcome.row_index)
            if row is None:
                self.missing = outcome.row_index
                return
            yield row, outcome
            self.rows += 1
        self._next_row(None)

    def _next_row(self, index: int | None) -> Row | None:
        for row in self._source_rows:
            if row.index == index:
                return row
            if self.skipped is None:
                self.skipped = row.index
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


class _Records:
    """Records that wait to be joined and encoded many at a time.

    Attributes:
        size: Characters, or bytes, that wait.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._end = layout.newline.encode(layout.encoding)
        self._before = layout.bom
        self._records: list[Any] = []
        self.size = 0

    def add(self, record: str | bytes) -> None:
        self._records.append(record)
        self.size += len(record)

    def encoded(self, *, last: bool = False) -> bytes:
        """The waiting records as bytes, with the last newline after the last of all where the layout has one."""
        data = b""
        if self._records:
            data = self._before + self._joined()
            self._before = self._end
            self._records.clear()
            self.size = 0
        if last and self._before is not self._end:
            data += self._before
        elif last and self._layout.final_newline:
            data += self._end
        return data

    def _joined(self) -> bytes:
        encoding = self._layout.encoding
        if self._layout.kind == "csv":
            return self._layout.newline.join(self._records).encode(encoding, "backslashreplace")
        if encoding == "utf-8":
            return self._end.join(self._records)
        text = self._layout.newline.join([record.decode() for record in self._records])
        return text.encode(encoding, JSON_ESCAPE)
