"""Writes the output: the source's rows in order, each with its outcome beside it."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from batchllm.errors import InputError
from batchllm.formats.columns import Columns, Outcome, UnfitValueError, column_readers
from batchllm.formats.files import output_target
from batchllm.formats.format import Source, changed
from batchllm.formats.registry import format_named
from batchllm.formats.suffixes import format_suffix
from batchllm.records import Answer, Row

_NO_ANSWER = Answer()
Written = TypeVar("Written")
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")
_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)?")


@dataclass(frozen=True, slots=True)
class OutputStatistics:
    """What an output has.

    Attributes:
        sha256: Hash of its bytes, in hexadecimal digits.
        bytes: Its size.
        rows: Number of rows, the header not counted.
        is_cut: Whoever read standard output closed it before the end.
    """

    sha256: str
    bytes: int
    rows: int
    is_cut: bool = False


def write_output(
    source: Source,
    outcomes: Iterable[Outcome],
    *,
    path: Path | None,
    columns: Columns,
    output_format: str,
    partial: bool = False,
    expected_sha256: str | None = None,
    encoding: str | None = None,
    escape_formulas: bool = False,
    announce: Callable[[str], bool | None] = lambda sha256: None,
    tidies: bool = True,
) -> OutputStatistics:
    """Writes every row of the input with its outcome.

    Args:
        source: The input; it is read once more from its start.
        outcomes: In the order of ``row_index``.
        path: Where the output appears, all at once; ``None`` is standard output, row by row.
        columns: Which columns it has.
        output_format: Name of the format; the path's suffix may say more, such as tabs.
        partial: Rows without an outcome are left out; otherwise there must be none.
        expected_sha256: The hash that the input must still have, or nothing is put in place.
        encoding: The encoding of a text output; ``None`` is the input's, or UTF-8 where that lacks characters.
        escape_formulas: In CSV, put an apostrophe before a text that a spreadsheet would run as a formula.
        announce: Told the hash of the whole output before it is put in place; where that returns ``False``, the file
            that is there stays.
        tidies: See ``AtomicFile``.

    Raises:
        InputError: The input changed.
        UsageError: There is no such encoding.
        CannotWrite: The output cannot be created, or there is no room.
        StorageFailure: The disk reported an error.
    """
    readers, names_file = column_readers(columns), columns.names_file
    count = 0
    skipped: Row | None = None
    missing: Outcome | None = None
    suffix = format_suffix(path) if path is not None else ""
    with output_target(path, tidies=tidies) as target:
        writer = format_named(output_format).opened_writer(target, source, columns, suffix)
        if encoding is not None:
            writer.set_encoding(source, encoding)
        escapes = escape_formulas and output_format == "csv"
        try:
            for row, outcome in _paired(source.rows(), outcomes):
                if row is None or outcome is None:
                    skipped, missing = skipped or row, missing or outcome
                    continue
                count += 1
                if names_file:
                    outcome = outcome._replace(source_file=source.file_of(row))
                answer = outcome.answer or _NO_ANSWER
                values = {name: read(outcome, answer) for name, read in readers}
                if escapes:
                    values = {name: without_formula(value) for name, value in values.items()}
                writer.add(row, values)
        except InputError as error:
            if expected_sha256 is None:
                raise
            raise changed(source.name) from error
        if expected_sha256 is not None and source.digest() != expected_sha256:
            raise changed(source.name)
        assert missing is None, f"there is no row {missing.row_index}"
        assert partial or skipped is None, f"row {skipped.index} has no outcome"
        writer.finish()
        target.finish()
        if announce(target.sha256()) is not False:
            target.commit()
    return OutputStatistics(target.sha256(), target.size_bytes, count, target.is_cut)


def with_fitting_kinds(columns: Columns, write: Callable[[Columns], Written]) -> Written:
    """Writes an output; where a value of an added column is none of the column's kind, once more with text there.

    Args:
        columns: The columns of the output.
        write: Writes the output with some columns, from the beginning.
    """
    while True:
        try:
            return write(columns)
        except UnfitValueError as error:
            columns = columns.with_text(error.column)


def write_skipped(source: Source, path: Path, announce: Callable[[str], None]) -> None:
    """Writes the records of an input that are left out because they cannot be rows.

    Args:
        source: The input.
        path: The file to write.
        announce: Told the hash of the file before it is put in place.

    Raises:
        InputError: The input cannot be read again.
        CannotWrite, StorageFailure: The file cannot be written.
    """
    with output_target(path) as target:
        for data in source.skipped_file():
            target.write(data)
        target.finish()
        announce(target.sha256())
        target.commit()


def without_formula(value: Any) -> Any:
    """Returns a text that a spreadsheet would run as a formula with an apostrophe before it; all else as it is.

    The characters are those of OWASP's page on CSV injection, also behind blanks. Plain numbers are no formulas.
    """
    if not isinstance(value, str) or not _FORMULA.match(value) or _NUMBER.fullmatch(value):
        return value
    return f"'{value}"


def _paired(rows: Iterator[Row], outcomes: Iterable[Outcome]) -> Iterator[tuple[Row | None, Outcome | None]]:
    """Yields every row and every outcome, with ``None`` for what a row or an outcome lacks; both are in order."""
    for outcome in outcomes:
        for row in rows:
            if row.index == outcome.row_index:
                yield row, outcome
                break
            yield row, None
        else:
            yield None, outcome
    for row in rows:
        yield row, None
