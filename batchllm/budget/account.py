"""The money of one run: what may be spent, what it comes to on the way, what the journal keeps of it."""

import hashlib
import json
from decimal import Decimal

from batchllm.budget.budget import NOTHING, Budget, BudgetLimits, rounded
from batchllm.budget.early_stop import EarlyStop
from batchllm.budget.estimate import MEAN_REQUEST, SEEN_PACE, Forecast, forecast_job
from batchllm.budget.learned import LEARNED, Learned
from batchllm.budget.meter import LARGEST, BudgetMeter, spent_before, spent_words
from batchllm.budget.pricing import Pricing, plus
from batchllm.budget.upper_bound import upper_bound
from batchllm.counters import RunCounters
from batchllm.errors import UsageError
from batchllm.job import Job
from batchllm.journal import Journal
from batchllm.limiter import View
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.records import ChatRequest, Row, Usage
from batchllm.request import answer_spec

USEFUL = "useful_answers"
ENOUGH = 20
"""Answers from which on the bar says what the whole job will come to."""


class Money:
    """Prices, budget and early_stop of one run.

    Args:
        prepared: The job and its input.

    Attributes:
        pricing: What its models cost.
        meter: Holds its requests to the budget; there after ``begin``.
        early_stop: Stops it where the first answers are of no use; there after ``begin``.

    Raises:
        UsageError: A budget cannot be kept, because a price or a bound is missing.
    """

    def __init__(self, prepared: PreparedJob) -> None:
        self._prepared = prepared
        self._job = prepared.job
        self.pricing = Pricing(prepared.job)
        job = prepared.job
        self._limits = BudgetLimits(cost=job.max_cost, requests=job.max_requests, tokens=job.max_total_tokens)
        self.meter: BudgetMeter
        self.early_stop: EarlyStop
        refuse_unbounded(prepared, self.pricing)

    def begin(self, journal: Journal, counters: RunCounters) -> None:
        """Finds out what is spent already; call it before anything is sent."""
        limits = self._limits
        spent = spent_before(journal.reader(), limits, self.pricing) if limits.any else NOTHING
        self.meter = BudgetMeter(
            Budget(limits, spent),
            self.pricing,
            largest=journal.get(LARGEST),
            put=journal.put,
            learned=Learned(journal.get(LEARNED)),
        )
        first = next(map(self._prepared.builder.build, self._prepared.statistics.sample), None)
        self.early_stop = EarlyStop(
            cut_is_useless=answer_spec(self._job).read in ("text", "code"),
            bound=first.max_tokens if isinstance(first, ChatRequest) else None,
            released=self._job.no_early_stop or journal.get(USEFUL) == _asked(self._job),
        )
        counters.cost = counters.final_cost = self.pricing.nothing()

    def forecast(self, journal: Journal, *, rows: int, left: int) -> Forecast:
        """What the run has before it; the journal keeps its figures for ``status``."""
        found = forecast_job(
            self._prepared,
            rows=rows,
            left=left,
            pricing=self.pricing,
            learned=self.meter.learned,
            seen=journal.get(SEEN_PACE),
        )
        if found.requests and found.prompt_tokens is not None:
            bound = found.completion_tokens_upper_bound
            mean = {"prompt_tokens": found.prompt_tokens / found.requests}
            journal.put(MEAN_REQUEST, {**mean, "bound": None if bound is None else bound / found.requests})
        return found

    def keep(self, journal: Journal, view: View) -> None:
        """Puts what was learned into the journal."""
        journal.put(LEARNED, self.meter.learned.as_json())
        if view.requests_per_minute or view.tokens_per_minute:
            seen = {
                "requests_per_minute": view.requests_per_minute,
                "tokens_per_minute": view.tokens_per_minute,
            }
            journal.put(SEEN_PACE, seen)
        if self.early_stop.released and not self._job.no_early_stop:
            journal.put(USEFUL, _asked(self._job))

    def note(self, counters: RunCounters) -> str:
        """The running total for the bar, and what the whole will come to by the answers seen."""
        words = [spent_words(self.meter.budget)] if self._limits.any else []
        if self._limits.cost is None:
            words.append("cost unknown" if counters.cost is None else f"${rounded(counters.cost)}")
        whole = self._whole(counters)
        if whole:
            words.append(f"about ${rounded(whole)} in all")
        return ", ".join(words)

    def _whole(self, counters: RunCounters) -> Decimal | None:
        """What this run, or with a budget the job, will have cost at its end."""
        learned = self.meter.learned
        prompt, left = learned.prompt(), counters.rows - counters.ended
        if prompt is None or learned.answers < ENOUGH or left <= 0:
            return None
        each = self.pricing.cost(Usage(round(prompt), learned.high()), self.pricing.model)
        so_far = counters.cost if self._limits.cost is None else self.meter.budget.spent.cost
        return plus(so_far, None if each is None else each * left)


def refuse_unbounded(prepared: PreparedJob, pricing: Pricing) -> None:
    """Refuses a budget that nothing bounds, before anything is paid.

    Raises:
        UsageError: A request has no known price (``--max-cost``), no bound on its answer, or none on its prompt.
    """
    job = prepared.job
    if job.max_cost is None and job.max_total_tokens is None:
        return
    flag = "--max-total-tokens" if job.max_cost is None else "--max-cost"
    priced: set[str] = set()
    for row in prepared.source.rows() if _differs(job) else prepared.statistics.sample:
        built = prepared.builder.build(row)
        if isinstance(built, ChatRequest):
            _refuse_request(flag, job, row, built)
            if job.max_cost is not None and built.model not in priced:
                _refuse_price(job, built.model, pricing)
                priced.add(built.model)


def _refuse_request(flag: str, job: Job, row: Row, request: ChatRequest) -> None:
    where = f" of row {row.index + 1}" if job.per_row else ""
    if request.max_tokens is None:
        raise UsageError(
            f"{flag} needs a bound on the answer, and the request{where} has no max_tokens; give --max-tokens"
        )
    if upper_bound(request).prompt_tokens is None:
        raise UsageError(
            f"{flag} needs a bound on the prompt, and the request of row {row.index + 1} has a part whose tokens "
            "nobody can know before; leave that out, or run without a budget"
        )


def _refuse_price(job: Job, model: str, pricing: Pricing) -> None:
    if pricing.of(model) is None:
        place = (
            f"{job.endpoint.preset} ({job.endpoint.base_url})"
            if job.endpoint.base_url
            else job.endpoint.preset
        )
        raise UsageError(
            f"--max-cost needs a price, and none is known for {model or 'the model'} at {place}; give one with "
            "--prices FILE, or bound the job with --max-total-tokens"
        )


def _differs(job: Job) -> bool:
    """Whether rows may differ in more than their text, so that each has to be looked at."""
    fixed = job.template is not None and not any(
        isinstance(value, str) and "{" in value for value in job.template.parameters.values()
    )
    return job.per_row or not fixed


def _asked(job: Job) -> str:
    """Names what a job asks."""
    return hashlib.sha256(json.dumps(job.fingerprint(), sort_keys=True).encode()).hexdigest()
