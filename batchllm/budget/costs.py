"""What each row cost, told while the output is written, so that a corrected price needs no new run.

The cost of a row is that of all answers that came for it, one that was asked for once more included. A row that
shares another's answer, or has one of another job, cost nothing. Attempts that brought no answer are not in it,
though they may have been paid; the summary counts those.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from batchllm.answer import Reader
from batchllm.budget.pricing import Pricing, Shares, plus
from batchllm.journal import JournalReader, State
from batchllm.journal.bill import RepeatedRow, earlier_answers, repeated_rows
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.records import Answer, Row
from batchllm.template import AnswerSpec

_USAGE = Reader(AnswerSpec("response"))


@dataclass(slots=True)
class Totals:
    """Sums over the rows of an output, in US dollars; ``None`` is unknown.

    Attributes:
        answers: What the answers cost that the rows have, those that rows share counted once.
        equal_rows: Rows whose request equals an earlier row's.
        shared_rows: How many of them share its answer.
        equal: What the answers to those cost, where each was paid for itself.
        shared: What they would have cost, where they share one.
    """

    answers: Decimal | None
    equal_rows: int = 0
    shared_rows: int = 0
    equal: Decimal | None = None
    shared: Decimal | None = None

    def as_json(self) -> dict[str, Any]:
        """What the journal keeps."""
        money = {name: getattr(self, name) for name in ("answers", "equal", "shared")}
        kept = {name: None if value is None else str(value) for name, value in money.items()}
        return {**kept, "equal_rows": self.equal_rows, "shared_rows": self.shared_rows}

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> "Totals":
        """What ``as_json`` gave."""
        money = {
            name: None if kept[name] is None else Decimal(kept[name])
            for name in ("answers", "equal", "shared")
        }
        return cls(**money, equal_rows=kept["equal_rows"], shared_rows=kept["shared_rows"])


class Costs:
    """The costs of the rows of a job; ask for rows in growing order.

    Args:
        prepared: The job.
        journal: What was paid.

    Attributes:
        totals: What the rows asked for cost together.
    """

    def __init__(self, prepared: PreparedJob, journal: JournalReader) -> None:
        self._wanted = any(name == "cost" for _, name in prepared.columns.fields)
        self._pricing = Pricing(prepared.job, needed=self._wanted)
        self._shares = Shares(journal.batches(), self._pricing.batch_share)
        nothing = self._pricing.nothing()
        self.totals = Totals(nothing, equal=nothing, shared=nothing)
        self._model_of = _models(prepared)
        self._marks: Iterator[RepeatedRow] = repeated_rows(journal)
        self._mark = next(self._marks, None)
        self._earlier = earlier_answers(journal) if self._wanted else iter(())
        self._next_earlier = next(self._earlier, None)

    def of(
        self,
        row_index: int,
        answer: Answer | None,
        state: State | None,
        status: int | None,
        attempt_id: int | None = None,
    ) -> Decimal | None:
        """What a row cost; ``None`` where that is not known, or where it has no answer."""
        mark = self._mark_of(row_index)
        if mark is not None and (mark.shares_request or mark.equal):
            self.totals.equal_rows += 1
            self.totals.shared_rows += mark.shares_request
        paid = answer is not None and status is not None and 200 <= status < 300
        if answer is None or not paid or state not in (State.ANSWERED, State.FAILED):
            return None
        model = self._model_of(row_index)
        cost = self._cost(answer, model, attempt_id)
        self._count(mark, cost)
        if mark is not None and (mark.shares_request or mark.adopted):
            return None if cost is None else Decimal(0)
        for earlier, earlier_id in self._earlier_of(row_index):
            cost = plus(cost, self._cost(earlier, model, earlier_id))
        return cost

    def _cost(self, answer: Answer, model: str, attempt_id: int | None) -> Decimal | None:
        if model and self._pricing.of(model) is None and answer.model:
            model = answer.model
        cost = self._pricing.cost(answer.usage, model or answer.model or "")
        return None if cost is None else cost * self._shares.of(attempt_id)

    def _count(self, mark: RepeatedRow | None, cost: Decimal | None) -> None:
        totals = self.totals
        if mark is not None and mark.shares_request:
            totals.shared = plus(totals.shared, cost)
            return
        totals.answers = plus(totals.answers, cost)
        if mark is not None and mark.equal:
            totals.equal = plus(totals.equal, cost)

    def _mark_of(self, row_index: int) -> RepeatedRow | None:
        while self._mark is not None and self._mark.row_index < row_index:
            self._mark = next(self._marks, None)
        return self._mark if self._mark is not None and self._mark.row_index == row_index else None

    def _earlier_of(self, row_index: int) -> Iterator[tuple[Answer, int]]:
        while self._next_earlier is not None and self._next_earlier[0] <= row_index:
            index, status, body, attempt_id = self._next_earlier
            if index == row_index:
                yield _USAGE.read(status, body), attempt_id
            self._next_earlier = next(self._earlier, None)


def _models(prepared: PreparedJob) -> Callable[[int], str]:
    """The model that a row asked for, by its index; asked in growing order only."""
    model = prepared.job.endpoint.model
    if not prepared.job.per_row:
        return lambda row_index: model
    rows = prepared.source.rows()
    return lambda row_index: _model_of(next(row for row in rows if row.index == row_index)) or model


def _model_of(row: Row) -> str:
    body = row.values.get("body")
    named = row.values.get("model") or (body.get("model") if isinstance(body, dict) else None)
    return named if isinstance(named, str) else ""
