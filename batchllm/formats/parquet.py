"""Parquet: read and written a part at a time, every column of the input as it is.

A row's values are those of ``arrow_values``. Its ``origin`` is its record batch and its position in that; a writer of
Parquet takes the rows of the input out of their batches, without a way through Python.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from batchllm.errors import InputError
from batchllm.formats.arrow_values import ArrowOrigin, ArrowRow, ArrowRows
from batchllm.formats.csv_text import column_names
from batchllm.formats.format import Format, Source, changed
from batchllm.formats.input_file import InputFile
from batchllm.formats.json_text import cell_text, json_bytes
from batchllm.formats.memory import json_line
from batchllm.formats.parquet_writer import ParquetWriter, check_writable
from batchllm.formats.scan import InputStatistics, Reservoir
from batchllm.records import Row

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_BATCH_BYTES = 8 << 20
_MOST_ROWS = 4096
_BUFFER_BYTES = 1 << 18


class ParquetSource(Source):
    """A Parquet file.

    Args:
        file: The file.
        suffix: Its suffix, of no meaning here.

    Attributes:
        schema: Its Arrow schema.
    """

    kind = "parquet"

    def __init__(self, file: InputFile, suffix: str) -> None:
        super().__init__(file)
        with self._opened() as opened:
            self.schema: pa.Schema = opened.schema_arrow
            metadata = opened.metadata
            groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        if not len(self.schema):
            raise InputError(self.name, "is a Parquet file without columns; write the file with its columns")
        self.columns = column_names(self.schema.names)
        self._temporal = {
            name: position
            for position, (name, kind) in enumerate(zip(self.columns, self.schema.types, strict=True))
            if _is_temporal(kind)
        }
        self._row_count: int = metadata.num_rows
        self._group_ends = list(accumulate(group.num_rows for group in groups))
        unpacked_bytes = sum(group.total_byte_size for group in groups)
        row_bytes = max(1, unpacked_bytes // max(1, self._row_count))
        self._batch_rows = min(_MOST_ROWS, max(1, _BATCH_BYTES // row_bytes))

    @contextmanager
    def _opened(self) -> "Iterator[pq.ParquetFile]":
        """Opens the file; what goes wrong in reading it is an ``InputError``."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with (
                self.file.at_random() as content,
                pq.ParquetFile(
                    content, buffer_size=_BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True
                ) as opened,
            ):
                yield opened
        except (pa.ArrowException, OSError, ValueError, MemoryError, KeyError) as error:
            raise InputError(self.name, _explained(error)) from error

    def _batches(self, start: int = 0) -> "Iterator[tuple[int, pa.RecordBatch]]":
        """Yields record batches from that of row ``start`` on, each with the number of its first row."""
        first = bisect_right(self._group_ends, start)
        row = self._group_ends[first - 1] if first else 0
        with self._opened() as opened:
            if opened.schema_arrow != self.schema:
                raise changed(self.name, "its columns ")
            groups = range(first, opened.metadata.num_row_groups)
            batches = opened.iter_batches(self._batch_rows, row_groups=groups, use_threads=False)
            while (batch := next(batches, None)) is not None:
                yield row, batch
                row += batch.num_rows

    def scan(self) -> InputStatistics:
        """Reads the whole file once; see ``Source``."""
        reservoir: Reservoir[Row] = Reservoir()
        rows = 0
        for first, batch in self._batches():
            self._validate(first, batch)
            rows += batch.num_rows
            while reservoir.wanted < rows:
                row = self._row(ArrowRows(batch, self._positions()), reservoir.wanted - first, first)
                reservoir.take(self.sampled(row))
        return InputStatistics(rows, *self.file.size_and_sha256(), self.columns, reservoir.items())

    def sampled(self, row: Row) -> Row:
        """Returns a row without its record batch; see ``Source``."""
        return row._replace(values=dict(row.values), origin=None)

    def _validate(self, first: int, batch: "pa.RecordBatch") -> None:
        import pyarrow as pa

        for name, column in zip(self.columns, batch.columns, strict=True):
            try:
                column.validate(full=True)
            except pa.ArrowInvalid as error:
                where = f"column {name!r}, rows {first + 1} to {first + batch.num_rows}"
                raise InputError(self.name, f"{where}: {_explained(error)}") from error

    def _positions(self) -> Mapping[str, int]:
        return {name: position for position, name in enumerate(self.columns)}

    def _row(self, rows: ArrowRows, offset: int, first: int) -> Row:
        index = first + offset
        return Row(index, index + 1, ArrowRow(rows, offset), ArrowOrigin(rows, offset))

    def rows(self, start: int = 0) -> Iterator[Row]:
        """Streams the rows; see ``Source``. Row groups before ``start`` are not read."""
        self._digest = None
        positions = self._positions()
        for first, batch in self._batches(start):
            rows = ArrowRows(batch, positions)
            for offset in range(max(0, start - first), batch.num_rows):
                yield self._row(rows, offset, first)
        if start == 0:
            self._digest = self.file.size_and_sha256()[1]

    def header(self, names: Sequence[str]) -> list[str]:
        """Returns the names of the columns as they are written."""
        return self._of_columns(self.schema.names, names)

    def cells(self, row: Row, names: Sequence[str]) -> list[str]:
        """Returns texts as they are, every other value as its JSON text."""
        values = [row.values.get(name) for name in names]
        return [repr(value) if type(value) is float else cell_text(value) for value in values]

    def json_object(self, row: Row, further: Mapping[str, Any], names: Sequence[str] | None = None) -> bytes:
        """Returns a row with further members, decimals with all their digits; see ``Source``."""
        values = row.values if names is None else {name: row.values[name] for name in names}
        line = json_line(row.index, values).encode()
        if not further:
            return line
        return b"".join((line[:-1], b"," if values else b"", json_bytes(further)[1:]))

    def typed_cells(self, row: Row, names: Sequence[str]) -> list[Any]:
        """Returns dates, times and durations as such, where Python has them; see ``Source``."""
        return [_temporal(row, self._temporal.get(name), name) for name in names]

    def arrow_schema(self) -> "pa.Schema":
        """Returns the schema with the metadata of the file; see ``Source``."""
        return self.schema

    def arrow_origin(self, row: Row) -> ArrowOrigin:
        """Returns where a row is; see ``Source``."""
        origin: ArrowOrigin = row.origin
        return origin

    def describe(self) -> str:
        """Returns the name of the format."""
        return "Parquet"


def _is_temporal(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    is_local = pa.types.is_timestamp(kind) and kind.tz is None
    return is_local or pa.types.is_date(kind) or pa.types.is_time(kind) or pa.types.is_duration(kind)


def _temporal(row: Row, position: int | None, name: str) -> Any:
    """A value of a row, dates, times and durations as such where Python can hold them."""
    if position is not None:
        rows, offset = row.origin
        with suppress(ValueError, OverflowError):
            return rows.batch.column(position)[offset].as_py()
    return row.values.get(name)


def _explained(error: BaseException) -> str:
    text = str(error).strip().partition("\n")[0].rstrip(".")
    if "encrypt" in text or "decrypt" in text:
        return "is an encrypted Parquet file; decrypt it and save it anew"
    if "magic bytes" in text or "footer" in text.lower():
        return f"is cut off, or no Parquet file; copy or download it again ({text})"
    if "codec" in text.lower() or "compression" in text.lower() or "NotImplemented" in type(error).__name__:
        return (
            f"has something that pyarrow does not read ({text}); save it anew with another program or codec"
        )
    return f"cannot be read as Parquet ({text}); copy or download it again"


FORMAT = Format(
    suffixes=(".parquet",),
    source=ParquetSource,
    writer=ParquetWriter,
    begins_with=b"PAR1",
    nested=True,
    magic=(b"PAR1",),
    libraries=("pyarrow",),
    extra="parquet",
    check=check_writable,
)
