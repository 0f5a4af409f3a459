"""pandas frames, read by position, so that any index and any names will do."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from batchllm.api.tables import AnswerColumn, Table, column_name
from batchllm.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

_TYPES = {str: "string", int: "Int64", float: "Float64", bool: "boolean"}


class PandasTable(Table):
    """A frame; the result is a copy with the same index, columns, types and attributes."""

    def __init__(self, frame: "pd.DataFrame") -> None:
        if frame.ndim != 2:
            raise UsageError("rows must be a pandas DataFrame, not a Series: call .to_frame() first")
        self._frame = frame
        self.columns = tuple(map(column_name, frame.columns))

    def __len__(self) -> int:
        return len(self._frame)

    def column(self, position: int) -> Iterable[Any]:
        """Returns the values of a column; see ``Table``."""
        values: Iterable[Any] = self._frame.iloc[:, position].array
        return values

    def cell(self, position: int, index: int) -> Any:
        """Returns one value of a column; see ``Table``."""
        return self._frame.iat[index, position]

    def arrow(self) -> Any:
        """Returns the frame as a pyarrow table; see ``Table``."""
        import pyarrow as pa

        try:
            return pa.Table.from_pandas(
                self._frame.set_axis(list(self.columns), axis="columns"), preserve_index=False
            )
        except (pa.ArrowException, TypeError, ValueError, OverflowError):  # values of any class
            return None

    def joined(
        self, rows: Sequence[int] | None, answers: Sequence[AnswerColumn], own: Sequence[int] | None
    ) -> "pd.DataFrame":
        """Returns a frame with the answer columns at its end; see ``Table``."""
        import pandas as pd

        taken = self._frame if rows is None else self._frame.iloc[list(rows)]
        if own is not None:
            taken = taken.iloc[:, list(own)]
        if not answers:
            return taken.copy()
        columns = taken.columns
        names: Any = [column.name for column in answers]
        if isinstance(columns, pd.MultiIndex):
            names = pd.MultiIndex.from_tuples([(name, *[""] * (columns.nlevels - 1)) for name in names])
        ours = pd.concat([pd.Series(_array(column), index=taken.index) for column in answers], axis=1)
        ours.columns = pd.Index(names) if not isinstance(names, pd.MultiIndex) else names
        ours.columns.names = columns.names
        joined = pd.concat([taken, ours], axis=1)
        joined.attrs = dict(taken.attrs)
        return joined


def _array(column: AnswerColumn) -> Any:
    """The values in pandas's nullable type, or as objects where they do not fit it."""
    import pandas as pd

    try:
        return pd.array(column.values, dtype=_TYPES.get(column.kind, "object"))  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        return pd.array(column.values, dtype="object")  # such as integers beyond 64 bits
