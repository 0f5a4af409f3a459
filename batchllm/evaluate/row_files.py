"""Writes tables of few columns, such as the rows that differ, in any format of the registry."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from batchllm.errors import JobError, UsageError
from batchllm.formats import Columns, InputStatistics, Source, open_source, output_format
from batchllm.formats.files import output_target
from batchllm.formats.input_file import LocalFile
from batchllm.formats.suffixes import format_suffix
from batchllm.records import Row


class MadeRows(Source):
    """Rows that a program makes, as the writers of all formats take them.

    Args:
        columns: Their columns.
        name: What messages call them.
        count: How many there are, where they can be read; otherwise the writer is handed its rows.
        values: Returns the values of a row by its index.
    """

    kind = "made"

    def __init__(
        self,
        columns: Iterable[str],
        name: str = "made rows",
        count: int = 0,
        values: Callable[[int], Mapping[str, Any]] = lambda index: {},
    ) -> None:
        super().__init__(LocalFile(Path(), name))
        self.columns = tuple(columns)
        self._count = count
        self._values = values

    def scan(self) -> InputStatistics:
        """Returns the number of rows; see ``Source``."""
        return InputStatistics(self._count, 0, "", self.columns, ())

    def rows(self, start: int = 0) -> Iterator[Row]:
        """Yields the rows; see ``Source``."""
        for index in range(start, self._count):
            yield Row(index, index + 1, self._values(index), None)


class RowFile:
    """A file that gets rows one by one; a context manager that puts it in place at its end, and only then.

    It replaces a file with the same columns, which an earlier run wrote, and no other.

    Args:
        path: The file; the suffix decides the format.
        columns: Its columns.

    Attributes:
        rows: Rows written so far.

    Raises:
        UsageError: The suffix names no format, or there is another file of that name.
        CannotWrite: It cannot be created.
    """

    def __init__(self, path: Path, columns: Iterable[str]) -> None:
        form = output_format(path)
        self._source = MadeRows(dict.fromkeys(columns))
        if path.exists() and path.stat().st_size and _columns_of(path) != self._source.columns:
            raise UsageError(f"{path} exists, and it was not written by this command; name another file")
        self._target = output_target(path)
        self._form, self._suffix = form, format_suffix(path)
        self.rows = 0

    def __enter__(self) -> "RowFile":
        self._target.__enter__()
        columns = Columns(self._source.columns, (), (), ())
        self._writer = self._form.opened_writer(self._target, self._source, columns, self._suffix)
        return self

    def add(self, values: Mapping[str, Any]) -> None:
        """Writes a row."""
        self._writer.add(Row(self.rows, self.rows + 1, values, None), {})
        self.rows += 1

    def __exit__(self, kind: object, *exception: object) -> None:
        try:
            if kind is None:
                self._writer.finish()
                self._target.finish()
                self._target.commit()
        finally:
            self._target.__exit__()


def _columns_of(path: Path) -> tuple[str, ...]:
    try:
        return open_source(path).scan().columns
    except JobError:  # something else, which is not to be replaced
        return ()
