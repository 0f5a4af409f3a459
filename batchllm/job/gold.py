"""Where ``--gold`` says that known answers are: columns of the input, which no prompt shows, or a file.

A value is ``COLUMN``, ``ANSWER=COLUMN`` where the answer has several columns, or ``FILE``.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from batchllm.errors import UsageError, did_you_mean, listed
from batchllm.formats import SUFFIXES
from batchllm.formats.suffixes import format_suffix


def is_gold_file(word: str, columns: Iterable[str] = ()) -> bool:
    """Whether a word of ``--gold`` names a file: it has the suffix of one, and no column is called so."""
    return word not in columns and format_suffix(Path(word)) in SUFFIXES


def gold_pairs(words: Iterable[str], columns: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yields answer column, empty where it is not said, and the column of its known answers."""
    for word in words:
        answer, equals, column = word.partition("=")
        yield (answer, column) if equals and word not in columns else ("", word)


def gold_columns(words: Sequence[str], columns: Sequence[str] | None) -> frozenset[str]:
    """Returns the columns of an input that hold known answers.

    Args:
        words: The values of ``--gold``.
        columns: The columns of the input; ``None`` where nobody knows.

    Raises:
        UsageError: There is no such column.
    """
    if any(is_gold_file(word, columns or ()) for word in words):
        return frozenset()
    found = frozenset(column for _, column in gold_pairs(words, columns or ()))
    for column in found if columns is not None else ():
        if column not in (columns or ()):
            raise UsageError(no_gold_column("the input", column, columns or ()))
    return found


def no_gold_column(where: str, column: str, columns: Sequence[str]) -> str:
    """Says that there is no column of that name."""
    hint = did_you_mean(column, columns)
    return f"--gold: {where} has no column {column!r}{hint}; its columns are: {listed(columns)}"
