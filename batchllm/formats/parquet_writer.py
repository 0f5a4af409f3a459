"""Writes Parquet: the columns of the input as they are, and beside them the answer columns with types of their own.

Where the input has Arrow types, its columns keep them, and the schema's metadata stays. The columns of other formats
get the kinds that ``kinds_of`` finds in all their values; what has no type of its own is JSON text.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from types import GenericAlias
from typing import TYPE_CHECKING, Any

from batchllm.errors import InputError
from batchllm.formats.arrow_values import ArrowOrigin, ArrowRows
from batchllm.formats.columns import Columns, UnfitValueError
from batchllm.formats.format import Source, Writer
from batchllm.formats.json_text import cell_text
from batchllm.formats.kinds import Kind, kinds_of
from batchllm.formats.memory import json_text
from batchllm.formats.output_file import OutputTarget
from batchllm.formats.spark import SPARK, spark_schema
from batchllm.records import Row

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH_ROWS = 4096
_BATCH_CHARACTERS = 8 << 20
_GROUP_ROWS = 1 << 16
_GROUP_BYTES = 32 << 20


class ParquetWriter(Writer):
    """Writes Parquet, a row group of at most 65,536 rows at a time."""

    def __init__(self, target: OutputTarget, source: Source, columns: Columns, suffix: str) -> None:
        self._input = _InputColumns(source, columns.input, columns.input_kinds)
        self._kinds = [columns.kinds.get(name, str) for name in columns.order]
        self._names = columns.order
        self._file = _ParquetFile(target, _schema(self._input.schema, columns, self._kinds))
        self._rows: list[Row] = []
        self._added: list[tuple[Any, ...]] = []
        self._last_batch: Any = None
        self._characters = 0

    def add(self, row: Row, values: Mapping[str, Any]) -> None:
        """Writes a row; see ``Writer``."""
        batch = self._input.batch_of(row)
        if (
            batch is not self._last_batch
            or len(self._rows) == _BATCH_ROWS
            or self._characters > _BATCH_CHARACTERS
        ):
            self._flush()
            self._last_batch = batch
        self._rows.append(row)
        self._added.append(tuple(values.values()))
        for value in values.values() if batch is not None else (*values.values(), *row.values.values()):
            if type(value) is str:
                self._characters += len(value)

    def _flush(self) -> None:
        if not self._rows:
            return
        arrays = [*self._input.arrays(self._rows)]
        for name, kind, values in zip(self._names, self._kinds, zip(*self._added, strict=True), strict=True):
            try:
                arrays.append(array_of(values, kind))
            except (ValueError, TypeError, OverflowError, NotImplementedError) as error:
                raise UnfitValueError(name) from error
        self._file.write(arrays)
        self._rows.clear()
        self._added.clear()
        self._characters = 0

    def finish(self) -> None:
        """Writes what is left, and the footer."""
        self._flush()
        self._file.close()


def input_kinds(source: Source, names: Sequence[str]) -> Mapping[str, Kind] | None:
    """Returns the kinds of columns of an input as all its rows decide them; ``None`` where none has to be looked at."""
    if not source.has_kinds or source.arrow_schema() is not None:
        return None
    return kinds_of((source.typed_cells(row, names) for row in source.rows()), names)


class _InputColumns:
    """The columns of the input: their schema, and their values in some rows."""

    def __init__(self, source: Source, names: Sequence[str], known: Mapping[str, Kind] | None) -> None:
        import pyarrow as pa

        self._source = source
        self._names = names
        own = source.arrow_schema()
        self._has_batches = own is not None
        if own is not None:
            positions = [source.columns.index(name) for name in names]
            self.schema: pa.Schema = pa.schema([own.field(position) for position in positions], own.metadata)
            return
        kinds = (input_kinds(source, names) if known is None else known) or {}
        self._kinds = [kinds.get(name, str) for name in names]
        header = source.header(names)
        fields = [pa.field(name, arrow_type(kind)) for name, kind in zip(header, self._kinds, strict=True)]
        self.schema = pa.schema(fields)

    def batch_of(self, row: Row) -> ArrowRows | None:
        """Returns the rows of the record batch to which a row belongs, where the input has any."""
        rows: ArrowRows | None = self._source.arrow_origin(row).rows if self._has_batches else None
        return rows

    def arrays(self, rows: Sequence[Row]) -> "Iterator[pa.Array]":
        """Yields each column of some rows, which are of one record batch where the input has any."""
        if self._has_batches:
            yield from self._of_batch([self._source.arrow_origin(row) for row in rows])
            return
        cells = [self._source.typed_cells(row, self._names) for row in rows]
        for position, kind in enumerate(self._kinds):
            values = [values[position] for values in cells]
            if kind is object:
                values = [None if value is None else json_text(value) for value in values]
            yield array_of(values, kind)

    def _of_batch(self, origins: Sequence[ArrowOrigin]) -> "Iterator[pa.Array]":
        import pyarrow as pa

        rows, first = origins[0]
        if origins[-1].offset - first == len(origins) - 1:
            batch = rows.batch.slice(first, len(origins))
        else:
            batch = rows.batch.take(pa.array([origin.offset for origin in origins]))
        for name, field in zip(self._names, self.schema, strict=True):
            position = rows.positions.get(name)
            if position is None:
                yield pa.nulls(len(origins), field.type)
                continue
            column = batch.column(position)
            yield column if column.type == field.type else column.cast(field.type)


class _ParquetFile:
    """The file as it grows."""

    def __init__(self, target: OutputTarget, schema: "pa.Schema") -> None:
        import pyarrow.parquet as pq

        self._schema = schema
        self._sink = _Sink(target)
        with self._sink:
            self._writer = pq.ParquetWriter(self._sink, schema)
        self._batches: list[pa.RecordBatch] = []
        self._group_rows = self._group_bytes = 0

    def write(self, arrays: "Sequence[pa.Array]") -> None:
        """Writes some rows."""
        import pyarrow as pa

        batch = pa.RecordBatch.from_arrays(arrays, schema=self._schema)
        self._batches.append(batch)
        self._group_rows += batch.num_rows
        self._group_bytes += batch.nbytes
        if self._group_rows + _BATCH_ROWS > _GROUP_ROWS or self._group_bytes > _GROUP_BYTES:
            self._write_group()

    def _write_group(self) -> None:
        import pyarrow as pa

        table = pa.Table.from_batches(self._batches, schema=self._schema)
        with self._sink:
            self._writer.write_table(table, row_group_size=max(1, self._group_rows))
        self._batches.clear()
        self._group_rows = self._group_bytes = 0

    def close(self) -> None:
        """Writes what is left, and the footer."""
        if self._batches:
            self._write_group()
        with self._sink:
            self._writer.close()


class _Sink(io.RawIOBase):
    """Hands bytes to a target while it is entered; pyarrow's writer also writes where it is abandoned."""

    def __init__(self, target: OutputTarget) -> None:
        self._target = target
        self._is_entered = False
        self._position = 0

    def __enter__(self) -> "_Sink":
        self._is_entered = True
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_entered = False

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: Any) -> int:
        content = bytes(data)
        if self._is_entered:
            self._target.write(content)
        self._position += len(content)
        return len(content)


def _schema(own: "pa.Schema", columns: Columns, kinds: Sequence[Kind]) -> "pa.Schema":
    import pyarrow as pa

    added = [pa.field(name, arrow_type(kind)) for name, kind in zip(columns.order, kinds, strict=True)]
    metadata = own.metadata
    if metadata and SPARK in metadata:
        metadata = {**metadata, SPARK: spark_schema(metadata[SPARK], own.names, columns.order, kinds)}
    return pa.schema([*own, *added], metadata)


def check_writable(source: Source, rows: int, columns: Columns) -> None:
    """Refuses columns that Parquet cannot hold, before anything is paid.

    Raises:
        InputError: There is such a column, or none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    own = source.arrow_schema()
    for field in own or ():
        try:
            pq.ParquetWriter(io.BytesIO(), pa.schema([field])).close()
        except pa.ArrowException as error:
            reason = f"the column {field.name!r} of type {field.type} cannot be written to Parquet ({error})"
            raise InputError(
                source.name, f"{reason}; write to another format with -o, or leave it out"
            ) from error


def arrow_type(kind: Kind) -> "pa.DataType":
    """Returns the Arrow type of a kind of ``kinds``."""
    import pyarrow as pa

    if isinstance(kind, GenericAlias):
        return pa.list_(arrow_type(kind.__args__[0]))
    return {
        int: pa.int64(),
        float: pa.float64(),
        bool: pa.bool_(),
        datetime: pa.timestamp("us"),
        date: pa.date32(),
        time: pa.time64("us"),
        timedelta: pa.duration("us"),
    }.get(kind, pa.string())


def array_of(values: Sequence[Any], kind: Kind) -> "pa.Array":
    """Returns a column of values; where it is text, what is no text is JSON, digits or nothing, as in CSV.

    Raises:
        ValueError, TypeError, OverflowError: A value does not fit the kind.
    """
    import pyarrow as pa

    if arrow_type(kind) == pa.string():
        return pa.array([_text(value) for value in values], pa.string())
    if kind is int:
        values = [
            int(value) if isinstance(value, float) and value.is_integer() else value for value in values
        ]
    elif kind is float:
        values = [None if value is None else float(value) for value in values]
    return pa.array(values, type=arrow_type(kind))


def _text(value: Any) -> str | None:
    if value is None:
        return None
    text = value if type(value) is str else cell_text(value)
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
