"""Tables of the caller: rows are read out of them, and answer columns are put beside their own.

pandas frames are read by position. polars has its own way; every other table comes through the Arrow C stream
(``__arrow_c_stream__``), which pyarrow reads. A list or an iterator of dictionaries is a table too.
"""

import os
import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from batchllm.errors import InputError, UsageError
from batchllm.exact import encodable
from batchllm.formats import SUFFIXES, format_named, format_of, open_source
from batchllm.formats.memory import ROWS, json_line
from batchllm.formats.suffixes import format_suffix
from batchllm.printable import one_line
from batchllm.records import Row
from batchllm.stores import located

_KINDS = "a path, a pandas or polars frame, an Arrow table, or a list or iterator of dictionaries"


@dataclass(frozen=True, slots=True)
class AnswerColumn:
    """A column of answers.

    Attributes:
        name: Its name.
        kind: ``str``, ``int``, ``float``, ``bool``, or ``object`` for what has no type of its own.
        values: Its values, ``None`` where there is none.
    """

    name: str
    kind: type
    values: Sequence[Any]


class Table(ABC):
    """A table in memory.

    Attributes:
        columns: Names of its columns by position, as prompts know them.
        nested: Its rows are objects, as those of JSONL are; ``text`` alone in one is a request.
    """

    columns: tuple[str, ...]
    nested: bool = False

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def column(self, position: int) -> Iterable[Any]:
        """Returns the values of a column."""

    @abstractmethod
    def joined(
        self, rows: Sequence[int] | None, answers: Sequence[AnswerColumn], own: Sequence[int] | None
    ) -> Any:
        """Returns a table of the same kind with answer columns beside its own.

        Args:
            rows: The positions of the rows to take; ``None`` takes all.
            answers: The answer columns of these rows.
            own: The positions of the table's own columns to take, in order; ``None`` takes all.
        """

    @abstractmethod
    def cell(self, position: int, index: int) -> Any:
        """Returns one value of a column."""

    def row(self, index: int) -> Mapping[str, Any]:
        """Returns a row by its position; a cell is read when it is asked for."""
        return _RowView(self, index)

    def sample(self, size: int = 100) -> list[Row]:
        """Returns rows that are spread evenly over the table; a cell that cannot be read is ``None`` in them."""
        step = max(1, len(self) // size)
        indices = range(0, len(self), step)[:size]
        return [
            Row(index, index + 1, {name: self._cell(name, index) for name in self.columns})
            for index in indices
        ]

    def _cell(self, name: str, index: int) -> Any:
        try:
            return self.row(index).get(name)
        except Exception:  # noqa: BLE001 - a column that no prompt reads may hold anything
            return None

    def positions(self, names: Iterable[str]) -> dict[str, int]:
        """Returns the positions of columns by name, in the order of the table.

        Raises:
            UsageError: Two columns have one of the names.
        """
        wanted = set(names)
        counted = Counter(self.columns)
        for name in self.columns:
            if name in wanted and counted[name] > 1:
                raise UsageError(f"{counted[name]} columns are called {name!r}; rename all but one of them")
        return {name: position for position, name in enumerate(self.columns) if name in wanted}

    def records(self, names: Iterable[str]) -> Iterator[dict[str, Any]]:
        """Yields rows as dictionaries of the named columns."""
        positions = self.positions(names)
        if not positions:
            yield from ({} for _ in range(len(self)))
            return
        for cells in zip(*(self.column(position) for position in positions.values()), strict=True):
            yield dict(zip(positions, cells, strict=True))

    def arrow(self) -> Any:
        """Returns the table as a pyarrow table of the same columns; ``None`` where it has no types of its own."""
        return None

    def parquet(self, names: Iterable[str]) -> bytes | None:
        """Returns the named columns as a Parquet file; ``None`` where the table cannot be one.

        Raises:
            UsageError: Two columns have one of the names.
        """
        positions = list(self.positions(names).values())
        table = self.arrow() if positions and find_spec("pyarrow") is not None else None
        if table is None:
            return None
        import pyarrow as pa
        from pyarrow import parquet

        written = pa.BufferOutputStream()
        try:
            parquet.write_table(table.select(positions), written)
        except (pa.ArrowException, TypeError, ValueError):  # a type that Parquet does not have
            return None
        return written.getvalue().to_pybytes()  # type: ignore[no-any-return]

    def content(self, names: Iterable[str]) -> bytes:
        """Returns the named columns as JSONL.

        Raises:
            InputError: A value cannot be written.
        """
        return b"".join(f"{json_line(i, row)}\n".encode() for i, row in enumerate(self.records(names)))


def table_of(rows: Any) -> Table:
    """Returns the table that a caller gave; an iterator is read to its end.

    Raises:
        UsageError: It is no table.
        InputError: A row is no dictionary.
    """
    if _is(rows, "pandas", "DataFrame", "Series"):
        from batchllm.api.pandas_table import PandasTable

        return PandasTable(rows)
    if _is(rows, "polars", "DataFrame", "LazyFrame", "Series"):
        from batchllm.api.arrow_tables import PolarsTable

        return PolarsTable(rows)
    if hasattr(rows, "__arrow_c_stream__"):
        from batchllm.api.arrow_tables import ArrowTable

        return ArrowTable(rows)
    if isinstance(rows, Iterable) and not isinstance(rows, str | bytes | Mapping | Path):
        return DictTable(rows)
    raise UsageError(f"rows must be {_KINDS}, not {_described(rows)}")


def _is(rows: Any, library: str, *classes: str) -> bool:
    """Whether this is an object of another library, which is loaded already if it is."""
    module = sys.modules.get(library)
    return module is not None and isinstance(rows, tuple(getattr(module, name, ()) for name in classes))


def _described(rows: Any) -> str:
    if isinstance(rows, Mapping):
        return "one dictionary; put it into a list"
    return (
        f"{type(rows).__name__} ({str(rows)[:40]!r})"
        if not isinstance(rows, type)
        else f"the class {rows.__name__}"
    )


class _RowView(Mapping[str, Any]):
    """A row of a table as a mapping."""

    def __init__(self, table: Table, index: int) -> None:
        self._table = table
        self._index = index
        self._positions = {name: position for position, name in enumerate(table.columns)}

    def __getitem__(self, name: str) -> Any:
        return self._table.cell(self._positions[name], self._index)

    def __iter__(self) -> Iterator[str]:
        return iter(self._positions)

    def __len__(self) -> int:
        return len(self._positions)

    def __repr__(self) -> str:
        return repr(dict(self))


class DictTable(Table):
    """A list or an iterator of dictionaries; the result is a list of new ones.

    A key that a row does not have is missing there, and not ``None``.
    """

    nested = True

    def __init__(self, rows: Iterable[Any]) -> None:
        self._rows = list(rows)
        names: dict[str, None] = {}
        keys: set[Any] = set()
        for number, row in enumerate(self._rows, 1):
            if not isinstance(row, Mapping):
                reason = f"row {number} is {_described(row)}; each must be a dictionary of columns"
                raise InputError(ROWS, reason)
            if not keys.issuperset(row):
                keys.update(row)
                names |= dict.fromkeys(map(column_name, row))
        self.columns = tuple(names)

    def __len__(self) -> int:
        return len(self._rows)

    def column(self, position: int) -> Iterable[Any]:
        """Returns the values of a column; see ``Table``."""
        return (self.cell(position, index) for index in range(len(self)))

    def cell(self, position: int, index: int) -> Any:
        """Returns one value of a column; see ``Table``."""
        return self.row(index).get(self.columns[position])

    def row(self, index: int) -> Mapping[str, Any]:
        """Returns a copy of a row; see ``Table``."""
        return {column_name(key): value for key, value in self._rows[index].items()}

    def records(self, names: Iterable[str]) -> Iterator[dict[str, Any]]:
        """Yields what each row has of the named columns; see ``Table``."""
        wanted = set(names)
        for row in self._rows:
            named = ((column_name(key), value) for key, value in row.items())
            yield {name: value for name, value in named if name in wanted}

    def joined(
        self, rows: Sequence[int] | None, answers: Sequence[AnswerColumn], own: Sequence[int] | None
    ) -> list[dict[str, Any]]:
        """Returns new dictionaries; see ``Table``."""
        taken = self._rows if rows is None else [self._rows[index] for index in rows]
        if own is not None:
            names = [self.columns[position] for position in own]
            known = ({column_name(key): value for key, value in row.items()} for row in taken)
            taken = [{name: row[name] for name in names if name in row} for row in known]
        return [
            {**row, **{column.name: column.values[index] for column in answers}}
            for index, row in enumerate(taken)
        ]


class FilesTable(DictTable):
    """The rows of several files, one file after the other; the result is a pandas frame.

    Args:
        paths: The files.
        options: Options of ``open_source``, for all of them.
    """

    def __init__(self, paths: Iterable[Any], options: Mapping[str, Any]) -> None:
        rows: list[Mapping[str, Any]] = []
        self.nested = True
        for path in paths:
            if (
                isinstance(path, str)
                and format_suffix(located(path)) not in SUFFIXES
                and not os.path.exists(path)  # noqa: PTH110 - false for a text that is too long for a name
            ):
                reason = "there is no such file; a list of strings is read as files, so give texts as [{'text': …}]"
                raise InputError(one_line(path, 60), reason)
            named = options.get("format")
            self.nested &= (format_named(named) if named else format_of(located(path))).nested
            source = open_source(located(path), **options)
            source.scan()
            rows += (row.values for row in source.rows())
        super().__init__(rows)

    def joined(
        self, rows: Sequence[int] | None, answers: Sequence[AnswerColumn], own: Sequence[int] | None
    ) -> Any:
        """Returns a frame of all rows; see ``Table``."""
        import pandas as pd

        from batchllm.api.pandas_table import PandasTable

        return PandasTable(pd.DataFrame(self._rows, columns=self.columns)).joined(rows, answers, own)


def column_name(label: Any) -> str:
    """Returns the name by which prompts know a column: its text; the parts of several levels joined by ``_``."""
    if isinstance(label, tuple):
        return "_".join(str(part) for part in label if str(part)) or "_"
    return encodable(str(label))
