"""The input of the benchmarks: rows of English-like words, the same on every machine, and the check of an output.

Each text starts with its row's tag (``row-0000012``). The benchmark's own endpoint answers with that tag, so
a benchmark that sends a row twice, swaps two answers or loses one does not pass as fast.
"""

import csv
import random
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

PROMPT = "Summarize in one sentence: "
COLUMNS = ("id", "category", "text")
_WORDS = (  # noqa: SIM905
    "the of and to in is that for it as was with be by on not this are or from at which have an had were "
    "their one all we can has there been if more when will would who so no time people year way day man "
    "government company number group problem service market price question system program result business "
    "development information experience important different national available political international "
    "increase provide consider appear continue produce develop suggest require report describe operate "
    "customer product delivery quality support return refund package arrived broken excellent terrible"
).split()
_SYLLABLES = "ba do fi gra hel jor kin lum mer nov pel qui rasch ste tov ul vin wex yar zan".split()  # noqa: SIM905


def tag_of(index: int) -> str:
    """The mark of a row: first word of its text, and the answer of the benchmark's endpoint."""
    return f"row-{index:07d}"


def texts(rows: int, words: int) -> Iterator[str]:
    """The texts of an input, ``words`` words each, in sentences, with names and numbers that no vocabulary has."""
    chance = random.Random(f"{words} words")
    rare = ["".join(chance.choices(_SYLLABLES, k=3)).capitalize() for _ in range(2_000)]
    rare += [str(chance.randrange(100_000)) for _ in range(1_000)]
    words_of_all = [*_WORDS * 60, *rare, *(f"{word}{sign}" for word in _WORDS * 4 for sign in ",.;")]
    for index in range(rows):
        yield f"{tag_of(index)} {' '.join(chance.choices(words_of_all, k=words - 1))}"


def write_input(folder: Path, rows: int, words: int = 120) -> Path:
    """A CSV file of ``rows`` rows; made once, then reused."""
    path = folder / f"rows-{rows}x{words}.csv"
    if not path.exists():
        unfinished = path.with_suffix(".part")
        with unfinished.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows((index, "AB"[index % 2], text) for index, text in enumerate(texts(rows, words)))
        unfinished.rename(path)
    return path


def problem_of(source: Path, output: Path, *, tagged: bool) -> str | None:
    """What is wrong with an output: a cell that changed, a row out of place, an answer missing or another row's.

    Args:
        source: The input.
        output: CSV with the input's columns first, then the answer's.
        tagged: Whether the endpoint answered with each row's tag; the static one cannot.
    """
    with (
        source.open(encoding="utf-8", newline="") as left,
        output.open(encoding="utf-8", newline="") as right,
    ):
        wanted, written = csv.DictReader(left), csv.DictReader(right)
        answer = _answer_column(written.fieldnames or ())
        if answer is None:
            return f"{output.name} has no answer column: {written.fieldnames}"
        for index, (before, after) in enumerate(zip_longest(wanted, written)):
            if before is None or after is None:
                return (
                    f"{output.name} has {'more' if before is None else 'fewer'} rows than its input ({index})"
                )
            if any(after[name] != before[name] for name in COLUMNS):
                return f"row {index} of {output.name} is not the row of the input"
            if not after[answer] or (tagged and tag_of(index) not in after[answer]):
                return f"row {index} of {output.name} has the answer {after[answer]!r}"
    return None


def _answer_column(names: Sequence[str]) -> str | None:
    return next((name for name in ("response", "answer") if name in names), None)
