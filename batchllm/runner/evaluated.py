"""Evaluates the answers of a run against known ones (``--gold``), whatever its output is and has of them."""

import logging
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from batchllm.budget.costs import RowCosts
from batchllm.errors import UsageError
from batchllm.evaluate.answered import AnsweredRows, Values, answer_fields
from batchllm.evaluate.evaluation import Evaluation, check_gold, evaluate_rows
from batchllm.evaluate.gold import gold_of
from batchllm.formats.columns import ColumnReader, column_readers, plan_columns
from batchllm.journal import Journal
from batchllm.plan.chosen import wanted
from batchllm.plan.outcomes import in_order, outcome_reader, outcomes
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.records import Answer, Chosen

log = logging.getLogger("batchllm.runner")

_NO_ANSWER = Answer()
_HIDDEN = "\0"
"""Before the names of columns beside the answers, so that none is a column of the input."""


class RunEvaluation:
    """The known answers of a job, found before anything is paid.

    Args:
        prepared: The job and its input.
        chosen: The only rows of a trial, ``None`` for all.

    Raises:
        UsageError: It is not clear where the known answers are, or there is none.
        InputError: The file with them cannot be read.
    """

    def __init__(self, prepared: PreparedJob, chosen: Chosen) -> None:
        self._prepared = prepared
        self._chosen = chosen
        self._journal: Journal | None = None
        job, own = prepared.job, prepared.source.columns
        answers = plan_columns(
            (), prepared.builder.answer_columns, prefix=job.prefix, rename=job.rename
        ).answer
        columns = (*own, *(written for written, _ in answers))
        beside = plan_columns((), (), ("cost",), prefix=_HIDDEN)
        self._answers = answers
        self._beside: tuple[tuple[str, ColumnReader], ...] = column_readers(beside)
        self._rows = AnsweredRows(
            name=str(prepared.paths.output or "standard output"),
            columns=columns,
            fields=answer_fields(job, columns),
            beside={name: written for written, name in beside.fields},
            read=self._read,
            prompt_columns=prepared.builder.used_columns,
        )
        self._gold = gold_of(job.gold, self._rows, job.on)
        rows = wanted(prepared.source.rows(), chosen)
        check_gold(self._rows, self._gold, ((row.index, row.values) for row in rows))

    def evaluate(self, journal: Journal) -> Evaluation | None:
        """Returns the figures of the finished run; ``None`` where there are none, and the log says why."""
        self._journal = journal
        try:
            return evaluate_rows(self._rows, self._gold)
        except UsageError as error:  # the run is paid and its output is written
            log.warning("the answers were not evaluated: %s", error)
            return None

    def _read(self) -> Iterator[Values]:
        assert self._journal is not None, "the run is over"
        prepared, journal = self._prepared, self._journal.reader()
        costs = RowCosts(prepared, journal)
        row_of = in_order(prepared.source.rows)
        with closing(journal.outcomes()) as entries:
            for outcome in outcomes(entries, outcome_reader(prepared, journal), self._chosen, costs):
                answer = outcome.answer or _NO_ANSWER
                values: dict[str, Any] = {**row_of(outcome.row_index).values}
                values |= {written: answer.columns.get(name) for written, name in self._answers}
                yield values | {written: read(outcome, answer) for written, read in self._beside}
