"""Gold: the known answers, in a column of the output, in a file of their own, or in memory.

Each gold value is said in one of these ways:

================  ========================================================================================
``COLUMN``        a column of the output; where the answer has several fields, each cell is a JSON object
``ANSWER=COLUMN`` the column for one of the answer columns
``FILE``          a file with the known answers; ``on`` names the column that says which row each is for
================  ========================================================================================
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from batchllm.errors import InputError, UsageError, did_you_mean, listed
from batchllm.evaluate.answered import AnsweredRows, Values
from batchllm.evaluate.values import LABEL, TEXT, AnswerField, is_missing, read_value, shown
from batchllm.exact import parse_json
from batchllm.formats import open_source
from batchllm.job.gold import gold_pairs, is_gold_file, no_gold_column
from batchllm.printable import counted, one_line
from batchllm.stores import located

GoldWords = str | PathLike[str] | Sequence[Any] | Mapping[str, str]
"""What a caller may say: one of the ways above, several of them, pairs as a mapping, or the values themselves."""

_USUAL = ("gold", "label", "answer", "expected")


@dataclass(slots=True)
class Gold:
    """The known answers of an output's rows.

    Attributes:
        fields: The answer columns that have known answers.
        columns: Columns of the output that hold them.
        name: What messages call them.
        left: Keys of a gold file that no row has had yet; ``None`` where gold is in no file.
    """

    fields: tuple[AnswerField, ...]
    columns: frozenset[str]
    name: str
    _find: Callable[[int, Values], Mapping[str, Any]]
    left: set[str] | None = None

    def values(self, index: int, row: Values) -> dict[str, Any]:
        """Returns the known answers of a row by answer column; those that are missing are left out.

        Args:
            index: The row, from 0.
            row: Its values.

        Raises:
            UsageError: A cell is no JSON object where the answer has several fields.
        """
        return {name: value for name, value in self._find(index, row).items() if not is_missing(value)}

    def read(self, kind: str, value: Any, index: int, answer: AnswerField) -> Any:
        """Returns one of these values as a value of a kind; see ``read_value``.

        Raises:
            UsageError: It is no number where numbers are compared.
        """
        found = read_value(kind, value, answer)
        if found is None:
            raise UsageError(
                f"row {index + 1}: the known answer in {self.name} is {one_line(shown(value), 40)!r}, which is no "
                f"number; correct it, or compare as something else with --as {LABEL} or --as {TEXT}"
            )
        return found


def gold_of(words: GoldWords, rows: AnsweredRows, on: str | None) -> Gold:
    """Finds the known answers of an output.

    Args:
        words: Where they are; see ``GoldWords``.
        rows: The output.
        on: The column that says which row an entry of a gold file is for; it is in the output too.

    Raises:
        UsageError: A column is missing, or it is not clear which one is meant.
        InputError: The file cannot be read.
    """
    if isinstance(words, Mapping):
        words = [f"{answer}={column}" for answer, column in words.items()]
    words = fspath(words) if isinstance(words, PathLike) else words
    said = [words] if isinstance(words, str) else list(words)
    if not isinstance(words, str) and not _are_words(said, rows):
        return _in_memory(said, rows)
    files = [word for word in said if is_gold_file(word, rows.columns)]
    if files:
        return _in_file(files, [word for word in said if word not in files], rows, on)
    if on is not None:
        raise UsageError("--on says which row an entry of a gold file is for; name the file with --gold FILE")
    fields = _fields(list(gold_pairs(said, rows.columns)), rows, rows.columns, rows.name)
    columns = frozenset(fields.values())
    refuse_shown(columns, rows)
    return Gold(_known(fields, rows), columns, listed(sorted(columns)), _finder(fields, rows))


def _are_words(said: list[Any], rows: AnsweredRows) -> bool:
    """Whether a list says where gold is: each entry is a column, a pair or a file."""
    return bool(said) and all(
        isinstance(word, str)
        and (word in rows.columns or word.partition("=")[2] in rows.columns or is_gold_file(word))
        for word in said
    )


def refuse_shown(columns: frozenset[str], rows: AnsweredRows) -> None:
    """Refuses known answers that prompts show.

    Args:
        columns: The columns that hold them.
        rows: The output.

    Raises:
        UsageError: Its prompts read one of them.
    """
    shown_columns = sorted(columns & (rows.prompt_columns or frozenset()))
    if shown_columns:
        raise UsageError(
            f"the prompts of {rows.name} read the column {shown_columns[0]!r}, so the model saw the "
            "known answers and the figures would say nothing; run it again with --gold, which keeps that column out "
            "of the prompts"
        )


Fields = dict[str, str]
"""Answer column, or ``""`` for all of them, to gold column."""


def _fields(pairs: list[tuple[str, str]], rows: AnsweredRows, columns: Sequence[str], where: str) -> Fields:
    found: Fields = {}
    for answer, column in pairs:
        if column not in columns:
            raise UsageError(no_gold_column(where, column, columns))
        if answer:
            rows.answer_field(answer)
        elif not rows.fields:
            raise UsageError(
                f"{rows.name}: nothing says which of its columns is the answer; say it with --gold ANSWER={column}"
            )
        elif len(rows.fields) == 1:
            answer = rows.fields[0].name
        if answer in found:
            raise UsageError(f"--gold names two columns for {answer or 'the answer'}; leave one out")
        if answer == column:
            raise UsageError(f"--gold {column} is the answer itself; name the column with the known answers")
        found[answer] = column
    return found


def _known(fields: Fields, rows: AnsweredRows) -> tuple[AnswerField, ...]:
    return rows.fields if "" in fields else tuple(map(rows.answer_field, fields))


def _finder(fields: Fields, rows: AnsweredRows) -> Callable[[int, Values], Mapping[str, Any]]:
    whole = fields.get("")
    if whole is None:
        return lambda index, row: {answer: row.get(column) for answer, column in fields.items()}

    def find(index: int, row: Values) -> Mapping[str, Any]:
        cell = row.get(whole)
        found = _object(cell)
        if found is None and not is_missing(cell):
            raise UsageError(
                f"row {index + 1}: {whole!r} is {one_line(shown(cell), 40)!r}, and the answer has several "
                f"fields; put a JSON object there, or name a column for a field: --gold {rows.fields[0].name}=COLUMN"
            )
        return _by_answer(found or {}, rows)

    return find


def _by_answer(values: Mapping[str, Any], rows: AnsweredRows) -> dict[str, Any]:
    """The members of an object by answer column, whose names may have a prefix that the members have not."""
    return {it.name: values.get(it.name, values.get(rows.bare(it.name))) for it in rows.fields}


def _object(cell: Any) -> Mapping[str, Any] | None:
    if isinstance(cell, str) and cell.strip()[:1] == "{":
        try:
            cell = parse_json(cell)
        except ValueError:
            return None
    return cell if isinstance(cell, Mapping) else None


def _in_memory(values: list[Any], rows: AnsweredRows) -> Gold:
    count = sum(1 for _ in rows.read())
    if len(values) != count:
        raise UsageError(
            f"gold has {counted(len(values), 'value')}, and {rows.name} has {counted(count, 'row')}"
        )

    def find(index: int, row: Values) -> Mapping[str, Any]:
        if len(rows.fields) == 1:
            return {rows.fields[0].name: values[index]}
        return _by_answer(_object(values[index]) or {}, rows)

    return Gold(rows.fields, frozenset(), "gold", find)


def _in_file(files: list[str], words: list[str], rows: AnsweredRows, on: str | None) -> Gold:
    path = located(files[0])
    if len(files) > 1:
        raise UsageError(f"--gold names two files, {files[0]} and {files[1]}; name one")
    if on is None:
        raise UsageError(f"--gold {path}: say with --on which column tells the rows of both files apart")
    source = open_source(path)
    columns = source.scan().columns
    for name, known in ((str(path), columns), (rows.name, rows.columns)):
        if on not in known:
            raise UsageError(
                f"--on: {name} has no column {on!r}{did_you_mean(on, known)}; its columns are: {listed(known)}"
            )
    pairs = list(gold_pairs(words, columns)) or list(_columns_of(columns, rows, on, path))
    fields = _fields(pairs, rows, columns, str(path))
    find = _finder(fields, rows)
    entries: dict[str, Mapping[str, Any]] = {}
    for row in source.rows():
        key = shown(row.values.get(on)).strip()
        entry = find(row.index, row.values)
        if not key:
            raise InputError(
                path, f"the column {on!r} is empty, so nobody knows which row this is for", line=row.line
            )
        if entries.setdefault(key, entry) != entry:
            raise InputError(
                path, f"a second entry for {on} {key!r}, with another value; keep one", line=row.line
            )
    left = set(entries)

    def of_entry(index: int, row: Values) -> Mapping[str, Any]:
        key = shown(row.get(on)).strip()
        left.discard(key)
        return entries.get(key, {})

    return Gold(_known(fields, rows), frozenset(), str(path), of_entry, left)


def _columns_of(columns: Sequence[str], rows: AnsweredRows, on: str, path: Path) -> Iterator[tuple[str, str]]:
    """The columns of a gold file by answer column: those of the same names, else the usual or the only one."""
    others = [column for column in columns if column != on]
    same = [(a.name, c) for a in rows.fields for c in others if c in (a.name, rows.bare(a.name))]
    if same:
        yield from same
        return
    usual = [column for column in others if column in _USUAL]
    found = others if len(others) == 1 else usual
    if len(found) != 1:
        raise UsageError(
            f"{path}: it is not clear which column has the known answers; say it with one more --gold COLUMN. "
            f"Its columns are: {listed(columns)}"
        )
    yield "", found[0]
