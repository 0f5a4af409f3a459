"""polars frames, and every other table that speaks the Arrow C stream: pyarrow, duckdb and more."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from batchllm.api.tables import AnswerColumn, Table, column_name
from batchllm.errors import UsageError
from batchllm.extras import install_command
from batchllm.formats.memory import json_text

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa


class PolarsTable(Table):
    """A polars frame; needs no pyarrow."""

    def __init__(self, frame: "pl.DataFrame") -> None:
        import polars as pl

        if not isinstance(frame, pl.DataFrame):
            kind = type(frame).__name__
            hint = ".collect()" if kind == "LazyFrame" else ".to_frame()"
            raise UsageError(f"rows must be a polars DataFrame, not a {kind}: call {hint} first")
        self._frame = frame
        self.columns = tuple(map(column_name, frame.columns))

    def __len__(self) -> int:
        return self._frame.height

    def column(self, position: int) -> Iterable[Any]:
        """Returns the values of a column; see ``Table``."""
        return self._frame.to_series(position)

    def cell(self, position: int, index: int) -> Any:
        """Returns one value of a column; see ``Table``."""
        return self._frame.to_series(position)[index]

    def arrow(self) -> "pa.Table":
        """Returns the frame as a pyarrow table; see ``Table``."""
        return self._frame.to_arrow().rename_columns(list(self.columns))

    def joined(
        self, rows: Sequence[int] | None, answers: Sequence[AnswerColumn], own: Sequence[int] | None
    ) -> "pl.DataFrame":
        """Returns a frame with the answer columns at its end; see ``Table``."""
        import polars as pl

        types = {str: pl.String, int: pl.Int64, float: pl.Float64, bool: pl.Boolean, object: None}

        def series(column: AnswerColumn) -> "pl.Series":
            try:
                return pl.Series(column.name, column.values, dtype=types[column.kind], strict=True)
            except (TypeError, OverflowError, ValueError, pl.exceptions.PolarsError):
                return pl.Series(column.name, _as_json(column.values), dtype=pl.String)

        taken = self._frame if rows is None else self._frame[list(rows)]
        if own is not None:
            taken = taken[:, list(own)]
        if not taken.width:  # a frame without columns has no rows either, whatever its height
            return pl.DataFrame([series(column) for column in answers])
        return taken.hstack([series(column) for column in answers])


class ArrowTable(Table):
    """A table that gives an Arrow C stream; the result is a pyarrow table, or what its library makes of one."""

    def __init__(self, rows: Any) -> None:
        try:
            import pyarrow as pa
        except ImportError:
            kind = f"{type(rows).__module__}.{type(rows).__qualname__}"
            raise UsageError(f"to read a {kind}, install pyarrow: {install_command('parquet')}") from None
        self._library = type(rows).__module__.partition(".")[0]
        try:
            self._table: pa.Table = pa.table(rows)
        except (TypeError, ValueError, pa.ArrowException) as error:
            raise UsageError(f"rows of {type(rows).__name__} cannot be read as a table: {error}") from None
        self.columns = tuple(map(column_name, self._table.column_names))

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def column(self, position: int) -> Iterable[Any]:
        """Returns the values of a column; see ``Table``."""
        return (value for chunk in self._table.column(position).chunks for value in chunk.to_pylist())

    def cell(self, position: int, index: int) -> Any:
        """Returns one value of a column; see ``Table``."""
        return self._table.column(position)[index].as_py()

    def arrow(self) -> "pa.Table":
        """Returns the table with the names of its columns as text; see ``Table``."""
        return self._table.rename_columns(list(self.columns))

    def joined(
        self, rows: Sequence[int] | None, answers: Sequence[AnswerColumn], own: Sequence[int] | None
    ) -> Any:
        """Returns a table with the answer columns at its end; see ``Table``."""
        import pyarrow as pa

        types = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_(), object: None}

        def array(column: AnswerColumn) -> "pa.Array":
            try:
                return pa.array(column.values, type=types[column.kind])
            except (pa.ArrowException, OverflowError, TypeError, ValueError):
                return pa.array(_as_json(column.values), type=pa.string())

        table = self._table if rows is None else self._table.take(list(rows))
        if own is not None:
            table = table.select(list(own))
        for column in answers:
            table = table.append_column(column.name, array(column))
        if self._library in ("duckdb", "_duckdb"):
            import duckdb

            return duckdb.from_arrow(table)
        return table


def _as_json(values: Sequence[Any]) -> list[str | None]:
    """Values of no common type, or beyond 64 bits, as JSON; texts as they are."""
    return [value if value is None or isinstance(value, str) else json_text(value) for value in values]
