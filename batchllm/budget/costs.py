"""What usage costs at a job's endpoint, and what each row cost.

A row's cost is the sum of all answers received for it, of all its requests. A row that shares another row's
answer, or has one of another job, cost nothing. Attempts without an answer are not included, though they are possibly
billed; the summary counts those. Costs are computed while the output is written, so a corrected price needs no new
run.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from batchllm import presets, prices
from batchllm.answer import Reader
from batchllm.job import Job
from batchllm.job.record import plain
from batchllm.job.url import host_of, is_local
from batchllm.journal import BatchRecord, JournalReader
from batchllm.journal.bill import RepeatedRow, earlier_answers, repeated_rows
from batchllm.prepare.existing_output import digest_of
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.prices import Price, Table
from batchllm.records import Row, Usage
from batchllm.template import AnswerSpec

_USAGE = Reader(AnswerSpec("response"))


class Pricing:
    """The prices of a job's models, each looked up once.

    Args:
        job: Its endpoint and ``--prices``.
        needed: If false, a missing ``--prices`` file is no error; then no price is known.

    Attributes:
        model: The model that rows use unless they name another.
        batch_share: The share of the online price that this job pays; 1 in online mode.

    Raises:
        UsageError: ``--prices`` cannot be read, or is no price table.
    """

    def __init__(self, job: Job, *, needed: bool = True) -> None:
        self._preset = job.endpoint.preset
        # Nobody publishes prices of local endpoints, and loading the price list takes time.
        self._base_url = "" if is_local(host_of(job.endpoint.base_url)) else job.endpoint.base_url
        self._given = job.prices
        self._lost = not needed and isinstance(job.prices, Path) and not job.prices.exists()
        self._table: Table | None = prices.load_table(job.prices) if job.prices and not self._lost else None
        self._known: dict[str, Price | None] = {}
        self.model = job.endpoint.model
        facts = presets.load(job.endpoint.preset).batch
        share = facts.discount if facts is not None and job.via == "batch" else 1
        self.batch_share = Decimal(str(share))

    def price_of(self, model: str) -> Price | None:
        """Returns the price of a model, ``None`` if it is unknown."""
        if self._lost:
            return None
        if model not in self._known:
            self._known[model] = prices.price(self._base_url, model, preset=self._preset, table=self._table)
        return self._known[model]

    def output_limit(self, model: str) -> int | None:
        """Returns the most tokens that an answer of the model can have; ``None`` if it is unknown.

        That is what ``--prices`` says, else what the vendor does, else the context window.
        """
        price = self.price_of(model) if self._table else None
        published = presets.output_limit(model) or prices.context_window(self._base_url, model)
        return published if price is None else price.output_limit or published

    def cost(self, usage: Usage, model: str) -> Decimal | None:
        """Returns the online price of an answer, in dollars; ``None`` if price or usage is unknown."""
        return prices.cost(usage, self.price_of(model))

    def mode_cost(self, usage: Usage, model: str) -> Decimal | None:
        """Returns what an answer costs in the job's mode, in dollars; ``None`` if price or usage is unknown."""
        cost = self.cost(usage, model)
        return None if cost is None else cost * self.batch_share

    def saved_by_cache(self, usage: Usage, model: str) -> Decimal | None:
        """Returns what the endpoint's cache took off an answer in the job's mode; ``None`` is unknown."""
        saved = prices.saved_by_cache(usage, self.price_of(model))
        return None if saved is None else saved * self.batch_share

    def nothing(self) -> Decimal | None:
        """Returns a cost of 0 if the price is known, else ``None``: an unknown price is never 0."""
        return None if self.price_of(self.model) is None else Decimal(0)

    def identity(self) -> list[Any]:
        """Returns what costs depend on beside usage, as JSON; equal identities mean equal costs."""
        price = self.price_of(self.model)
        rates = None if price is None else repr((price.rates, price.per_request))
        if isinstance(self._given, Path):
            return [rates, None if self._lost else digest_of(self._given)]
        return [rates, plain(self._given)]


class BatchShares:
    """The share of the online price that each attempt cost: less than 1 if it was in a batch.

    Args:
        batches: The job's batches.
        batch_share: The share that a batch costs.
    """

    def __init__(self, batches: Sequence[BatchRecord], batch_share: Decimal) -> None:
        ranges = sorted((batch.first_attempt, batch.last_attempt) for batch in batches)
        self._firsts = [first for first, _ in ranges]
        self._lasts = [last for _, last in ranges]
        self._batch_share = batch_share

    def share_of(self, attempt_id: int | None) -> Decimal:
        """Returns the share of one attempt."""
        index = -1 if attempt_id is None else bisect_right(self._firsts, attempt_id) - 1
        if attempt_id is None or index < 0 or attempt_id > self._lasts[index]:
            return Decimal(1)
        return self._batch_share


class PaidAnswer(NamedTuple):
    """An answer that was received for a row.

    Attributes:
        usage: Its tokens.
        answered_by: The model that answered.
        model: The model that was asked; empty where it is the row's.
        attempt_id: The attempt that brought it.
    """

    usage: Usage
    answered_by: str | None
    model: str
    attempt_id: int | None


@dataclass(slots=True)
class CostTotals:
    """Sums over the rows of an output, in US dollars; ``None`` is unknown.

    Attributes:
        answers: The cost of all answers that the rows have, a shared one counted once.
        duplicate_rows: Rows whose request equals an earlier row's.
        deduplicated_rows: Those of them that share its answer.
        equal: The cost of the answers to equal rows that were paid again.
        shared: The cost that sharing saved.
    """

    answers: Decimal | None
    duplicate_rows: int = 0
    deduplicated_rows: int = 0
    equal: Decimal | None = None
    shared: Decimal | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the form that the journal keeps."""
        money = {name: getattr(self, name) for name in ("answers", "equal", "shared")}
        kept = {name: None if value is None else str(value) for name, value in money.items()}
        return {**kept, "duplicate_rows": self.duplicate_rows, "deduplicated_rows": self.deduplicated_rows}

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> "CostTotals":
        """Restores what ``to_json`` returned."""
        money = {
            name: None if kept[name] is None else Decimal(kept[name])
            for name in ("answers", "equal", "shared")
        }
        return cls(
            **money, duplicate_rows=kept["duplicate_rows"], deduplicated_rows=kept["deduplicated_rows"]
        )


class RowCosts:
    """Computes the cost of each row of a job; rows are asked for in increasing order.

    Args:
        prepared: The job.
        journal: What was paid.

    Attributes:
        totals: Sums over the rows asked for.
    """

    def __init__(self, prepared: PreparedJob, journal: JournalReader) -> None:
        wanted = any(name == "cost" for _, name in prepared.columns.fields)
        self._pricing = Pricing(prepared.job, needed=wanted)
        self._shares = BatchShares(journal.batches(), self._pricing.batch_share)
        nothing = self._pricing.nothing()
        self.totals = CostTotals(nothing, equal=nothing, shared=nothing)
        self._model_of = _models(prepared)
        self._marks: Iterator[RepeatedRow] = repeated_rows(journal)
        self._mark = next(self._marks, None)
        self._earlier = earlier_answers(journal) if wanted else iter(())
        self._next_earlier = next(self._earlier, None)

    def cost_of(self, row_index: int, paid: Sequence[PaidAnswer]) -> Decimal | None:
        """Returns what a row cost; ``None`` if that is unknown, or if the row has no answer.

        Args:
            row_index: The row.
            paid: The answers to its requests.
        """
        mark = self._mark_of(row_index)
        if mark is not None and (mark.shares_request or mark.equal):
            self.totals.duplicate_rows += 1
            self.totals.deduplicated_rows += mark.shares_request
        if not paid:
            return None
        model = self._model_of(row_index)
        cost: Decimal | None = Decimal(0)
        for each in paid:
            cost = plus(cost, self._cost(each, model))
        self._count(mark, cost)
        if mark is not None and (mark.shares_request or mark.adopted):
            return None if cost is None else Decimal(0)
        for earlier in self._earlier_of(row_index):
            cost = plus(cost, self._cost(earlier, model))
        return cost

    def _cost(self, answer: PaidAnswer, row_model: str) -> Decimal | None:
        model, by = answer.model or row_model, answer.answered_by or ""
        if self._pricing.price_of(model) is None:
            model = by or model
        cost = self._pricing.cost(answer.usage, model)
        return None if cost is None else cost * self._shares.share_of(answer.attempt_id)

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

    def _earlier_of(self, row_index: int) -> Iterator[PaidAnswer]:
        while self._next_earlier is not None and self._next_earlier[0] <= row_index:
            index, status, body, attempt_id = self._next_earlier
            if index == row_index:
                answer = _USAGE.read(status, body)
                yield PaidAnswer(answer.usage, answer.model, "", attempt_id)
            self._next_earlier = next(self._earlier, None)


def plus(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    """Adds two sums; an unknown part makes the sum unknown."""
    return None if one is None or other is None else one + other


def _models(prepared: PreparedJob) -> Callable[[int], str]:
    """Returns a function from a row's index to the model it asked for; indexes have to increase."""
    model = prepared.job.endpoint.model
    if not prepared.job.per_row:
        return lambda row_index: model
    rows = prepared.source.rows()
    return lambda row_index: _model_of(next(row for row in rows if row.index == row_index)) or model


def _model_of(row: Row) -> str:
    body = row.values.get("body")
    named = row.values.get("model") or (body.get("model") if isinstance(body, dict) else None)
    return named if isinstance(named, str) else ""
