"""``compare``: outputs of the same rows, as files, results or tables."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchllm.api.messages import python_words
from batchllm.api.results import TableResult, answered_table
from batchllm.api.tables import table_of
from batchllm.errors import UsageError
from batchllm.evaluate.answered import open_output
from batchllm.evaluate.files import compare_answered
from batchllm.runner import Result
from batchllm.stores import located

if TYPE_CHECKING:
    from batchllm.evaluate.answered import AnsweredRows
    from batchllm.evaluate.comparison import Comparison
    from batchllm.evaluate.gold import GoldWords


def compare(
    *outputs: Any,
    gold: GoldWords | None = None,
    on: str | None = None,
    kind: str | None = None,
    differences: str | PathLike[str] | None = None,
    vote: str | PathLike[str] | None = None,
) -> Comparison:
    """Compares the answers of several outputs of the same rows.

    Args:
        outputs: Two or more paths of outputs, results of ``run``, or tables that results gave.
        gold: The known answers, to say which output is better; see ``Result.evaluate``.
        on: With a gold file: the column that both have.
        kind: What to compare answers as: ``label``, ``labels``, ``number`` or ``text``.
        differences: A file to write, with the rows on which the answers differ.
        vote: A file to write, with the answer that most outputs give to each row.

    Returns:
        Agreement and kappa, with gold the figures of each output and McNemar's exact test, and what each cost.

    Raises:
        UsageError: They have no answer column or no row in common.
        InputError: A file cannot be read.
    """
    with python_words():
        opened = [_answered(output, f"output {number}") for number, output in enumerate(outputs, 1)]
        found, _ = compare_answered(
            opened,
            gold,
            on=on,
            kind=kind,
            differences=None if differences is None else Path(differences),
            vote=None if vote is None else Path(vote),
        )
        return found


def _answered(output: Any, name: str) -> AnsweredRows:
    if isinstance(output, TableResult):
        return answered_table(table_of(output.table), output.job, name)
    if isinstance(output, Result):
        if output.output is None:
            raise UsageError(f"{name} went to standard output; name a file to compare it")
        return open_output(output.output, job=output.job, options=output.read_options)
    if isinstance(output, str | PathLike):
        return open_output(located(output))
    return answered_table(table_of(output), None, name)
