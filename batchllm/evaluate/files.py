"""Evaluates and compares output files, and writes the rows to look at."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from batchllm.evaluate.answered import AnsweredRows
from batchllm.evaluate.compare import ComparedRow, common_fields, compare_outputs
from batchllm.evaluate.comparison import Comparison
from batchllm.evaluate.evaluation import Evaluation, JudgedAnswer, evaluate_rows
from batchllm.evaluate.gold import Gold, GoldWords, gold_of, refuse_shown
from batchllm.evaluate.matching import short_names
from batchllm.evaluate.row_files import RowFile
from batchllm.evaluate.values import shown


def evaluate_answered(
    rows: AnsweredRows,
    gold: GoldWords,
    *,
    on: str | None = None,
    kind: str | None = None,
    disagreements: Path | None = None,
) -> Evaluation:
    """Compares the answers of an output with known answers.

    Args:
        rows: The output of a job, or any rows with a column of answers; see ``open_output``.
        gold: Where the known answers are; see ``evaluate.gold``.
        on: The column that says which row an entry of a gold file is for.
        kind: What to compare answers as: ``label``, ``labels``, ``number`` or ``text``.
        disagreements: A file to write, with every answer that is not the known one.

    Raises:
        InputError: A file cannot be read.
        UsageError: It is not clear what to compare, or no row has a known answer.
        CannotWrite: ``disagreements`` cannot be written.
    """
    known = gold_of(gold, rows, on)
    if disagreements is None:
        return evaluate_rows(rows, known, kind=kind)
    asked = asked_columns(rows, known)
    several = len(known.fields) > 1
    columns = ["row", *asked.values(), *(["field"] if several else []), "gold", "answer", "error"]
    with RowFile(disagreements, columns) as file:

        def write(judged: JudgedAnswer) -> None:
            if judged.correct:
                return
            row: dict[str, Any] = {"row": judged.row_index + 1}
            row |= {written: judged.row.get(name) for name, written in asked.items()}
            if several:
                row["field"] = judged.field
            row |= {"gold": shown(judged.gold), "answer": shown(judged.answer)}
            file.add({**row, "error": rows.cell(judged.row, "error")})

        return evaluate_rows(rows, known, kind=kind, each=write)


_OWN = ("row", "field", "gold", "answer", "error")


def asked_columns(rows: AnsweredRows, gold: Gold | None, taken: Iterable[str] = _OWN) -> dict[str, str]:
    """Returns the columns that show what a row asked, with the names that they get in a file.

    They are the columns that prompts read; where these are unknown, all columns that are no answers.

    Args:
        rows: The output.
        gold: Its columns are left out.
        taken: Names that the file has already; a column of such a name is written with ``input_`` before it.
    """
    taken = set(taken)
    hidden = frozenset() if gold is None else gold.columns
    read = rows.prompt_columns
    names = [name for name in rows.own_columns if name not in hidden and (not read or name in read)]
    return {name: f"input_{name}" if name in taken else name for name in names}


def compare_answered(
    outputs: Sequence[AnsweredRows],
    gold: GoldWords | None = None,
    *,
    on: str | None = None,
    kind: str | None = None,
    differences: Path | None = None,
    vote: Path | None = None,
) -> tuple[Comparison, int]:
    """Compares outputs of the same rows; returns the comparison and the rows on which a vote was a tie.

    Args:
        outputs: Two or more of them; see ``open_output``.
        gold, on, kind: See ``evaluate_answered``.
        differences: A file to write, with the rows on which the answers differ.
        vote: A file to write, with each row and the answer that most outputs give.

    Raises:
        InputError: A file cannot be read.
        UsageError: They have no answer column or no row in common.
        CannotWrite: A file cannot be written.
    """
    known = None if gold is None else gold_of_any(gold, outputs, on)
    with ExitStack() as stack:
        writers: list[Callable[[ComparedRow], None]] = []
        ballots = Counter[str]()
        if differences is not None:
            writers.append(_differences_writer(stack, differences, outputs, known))
        if vote is not None:
            writers.append(_vote_writer(stack, vote, outputs, ballots))

        def each(row: ComparedRow) -> None:
            for write in writers:
                write(row)

        return compare_outputs(outputs, known, kind=kind, each=each), ballots["ties"]


def gold_of_any(gold: GoldWords, outputs: Sequence[AnsweredRows], on: str | None) -> Gold:
    """Finds the known answers in the first output, and refuses them where another output's prompts read them."""
    found = gold_of(gold, outputs[0], on)
    for output in outputs[1:]:
        refuse_shown(found.columns, output)
    return found


def _differences_writer(
    stack: ExitStack, path: Path, outputs: Sequence[AnsweredRows], gold: Gold | None
) -> Callable[[ComparedRow], None]:
    names = short_names(outputs)
    fields = [columns[0].name for columns in common_fields(outputs)]
    headings = {
        (field, place): name if len(fields) == 1 else f"{name}: {field}"
        for field in fields
        for place, name in enumerate(names)
    }
    gold_names = {} if gold is None else {f: "gold" if len(fields) == 1 else f"gold: {f}" for f in fields}
    asked = asked_columns(outputs[0], gold, {"row", *headings.values(), *gold_names.values()})
    columns = ["row", *asked.values(), *gold_names.values(), *headings.values()]
    file = stack.enter_context(RowFile(path, columns))

    def write(row: ComparedRow) -> None:
        if row.same:
            return
        values: dict[str, Any] = {"row": row.row_index + 1}
        values |= {written: row.rows[0].get(name) for name, written in asked.items()}
        values |= {written: row.gold.get(field) for field, written in gold_names.items()}
        values |= {written: row.answers[place].get(field) for (field, place), written in headings.items()}
        file.add(values)

    return write


def _vote_writer(
    stack: ExitStack, path: Path, outputs: Sequence[AnsweredRows], ballots: Counter[str]
) -> Callable[[ComparedRow], None]:
    fields = [columns[0].name for columns in common_fields(outputs)]
    shares = {field: "agreement" if len(fields) == 1 else f"{field}_agreement" for field in fields}
    own = {
        name: f"input_{name}" if name in {*fields, *shares.values()} else name
        for name in outputs[0].own_columns
    }
    file = stack.enter_context(RowFile(path, [*own.values(), *fields, *shares.values()]))

    def write(row: ComparedRow) -> None:
        values: dict[str, Any] = {written: row.rows[0].get(name) for name, written in own.items()}
        tied = False
        for field in fields:
            answer, share, tie = majority([answers.get(field) for answers in row.answers])
            values |= {field: answer, shares[field]: share}
            tied |= tie
        ballots["ties"] += tied
        file.add(values)

    return write


def majority(answers: Sequence[str | None]) -> tuple[str | None, float | None, bool]:
    """Returns the most frequent answer, the share of the given answers that it has, and whether it was a tie.

    Of several that are equally frequent it is the one that comes first. ``None`` is no answer and does not vote.
    """
    given = Counter(answer for answer in answers if answer is not None)
    if not given:
        return None, None, False
    (answer, votes), *others = given.most_common()
    return answer, votes / given.total(), bool(others) and others[0][1] == votes
