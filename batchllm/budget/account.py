"""The money of one run: prices, budget, estimate and early stop, and what the journal keeps of them."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from itertools import islice

from batchllm.budget.budget import LARGEST, NOTHING, Budget, BudgetLimits, BudgetMeter, rounded, spent_before
from batchllm.budget.costs import Pricing, plus
from batchllm.budget.early_stop import EarlyStop
from batchllm.budget.estimate import MEAN_REQUEST, SEEN_PACE, forecast_job
from batchllm.budget.forecast import Forecast
from batchllm.budget.sample import RowsAgain, kept_in, sample_rows
from batchllm.budget.usage import LEARNED, UsageEstimator, upper_bound
from batchllm.counters import RunCounters
from batchllm.errors import UsageError
from batchllm.flows.stand_in import KeptValue, begun, expected, missing
from batchllm.job import Job
from batchllm.journal import Journal
from batchllm.limiter import View
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.records import AnswerSpec, ChatRequest, Row
from batchllm.request import answer_spec

USEFUL = "useful_answers"
"""The journal's key for the steps that had a usable answer, with the hash of the job."""

ENOUGH = 20
"""Answers from which on the progress bar shows the expected cost of the whole job."""


_NO_ANSWER = expected(lambda bound: 0)


class Account:
    """The money of one run.

    Args:
        prepared: The job and its input.

    Attributes:
        pricing: What its models cost.
        meter: Keeps its requests within the budget; set by ``begin``.
        early_stop: Stops it if the first answers are unusable; set by ``begin``.

    Raises:
        UsageError: A budget cannot be kept, because a price or an upper bound is missing.
    """

    def __init__(self, prepared: PreparedJob) -> None:
        self._prepared = prepared
        self._job = job = prepared.job
        self.pricing = Pricing(job)
        self._limits = BudgetLimits(cost=job.max_cost, requests=job.max_requests, tokens=job.max_total_tokens)
        self.meter: BudgetMeter
        self.early_stop: EarlyStop
        self._sample: ChatRequest | None = None
        self._to_send, self._left = 0, 0
        refuse_unbounded(prepared, self.pricing)

    def begin(
        self,
        journal: Journal,
        counters: RunCounters,
        leased: Callable[[BudgetLimits], Budget] | None = None,
    ) -> None:
        """Adds up what is spent already; has to be called before anything is sent.

        Args:
            journal: The journal of the job.
            counters: Those of the run.
            leased: Makes the budget of a run that has a part of one; whoever divides it knows what is spent.
        """
        limits = self._limits
        if leased is not None and limits.any:
            budget = leased(limits)
        else:
            spent = spent_before(journal.reader(), limits, self.pricing) if limits.any else NOTHING
            budget = Budget(limits, spent)
        self.meter = BudgetMeter(
            budget,
            self.pricing,
            largest=journal.get(LARGEST),
            put=journal.put,
            learned=UsageEstimator(journal.get(LEARNED)),
        )
        useful = journal.get(USEFUL) or {"job": None}
        self._sample = next(_first_requests(self._prepared, kept_in(journal.reader())), None)
        self.early_stop = EarlyStop(
            cut_is_useless=_cut_is_useless(answer_spec(self._job)),
            bound=None if self._sample is None else self._sample.max_tokens,
            inactive=self._job.no_early_stop,
            useful=useful["steps"] if useful["job"] == _hash_of(self._job) else (),
            steps=self._by_step(),
        )
        counters.cost = counters.saved_by_cache = self.pricing.nothing()

    def _by_step(self) -> dict[str, tuple[bool, int | None]]:
        """Returns for each step whether a cut answer is unusable, and the most tokens that it may have."""
        flow = self._prepared.flow
        bounds: dict[str, int | None] = {}
        for row in self._prepared.statistics.sample if flow.by_step else ():
            for ask, request in missing(begun(flow.start(row)), UsageEstimator().stand_ins()[0]):
                bounds.setdefault(ask.path, request.max_tokens)
            if len(bounds) == len(flow.by_step):
                break
        return {
            name: (_cut_is_useless(step.reader.spec), bounds.get(name)) for name, step in flow.by_step.items()
        }

    def forecast(self, journal: Journal, *, rows: int, left: int, again: RowsAgain) -> Forecast:
        """Estimates what is left of the run; see ``forecast_job``."""
        found = forecast_job(
            self._prepared,
            rows=rows,
            left=left,
            pricing=self.pricing,
            learned=self.meter.learned,
            seen=journal.get(SEEN_PACE),
            reader=journal.reader(),
            again=again,
        )
        self._to_send, self._left = found.requests or 0, left + again.rows
        unbounded = self._sample if self._sample is not None and self._sample.max_tokens is None else None
        if unbounded is not None and (self._limits.cost is not None or self._limits.tokens is not None):
            found = replace(
                found,
                at_once=self.meter.most_at_once(unbounded),
                output_limit=self.pricing.output_limit(unbounded.model),
            )
        return found

    def keep_forecast(self, journal: Journal, found: Forecast) -> None:
        """Keeps the mean request in the journal, for ``status``."""
        if found.requests and found.prompt_tokens is not None:
            bound = found.completion_tokens_upper_bound
            done = sum(filter(None, (found.answered, found.failed, found.pending, found.skipped)))
            left = max(1, (found.rows or 0) - done)
            mean = {"prompt_tokens": found.prompt_tokens / found.requests, "requests": found.requests / left}
            journal.put(MEAN_REQUEST, {**mean, "bound": None if bound is None else bound / found.requests})

    def keep(self, journal: Journal, view: View) -> None:
        """Writes what was learned to the journal."""
        journal.put(LEARNED, self.meter.learned.to_json())
        if view.requests_per_minute or view.tokens_per_minute:
            seen = {
                "requests_per_minute": view.requests_per_minute,
                "tokens_per_minute": view.tokens_per_minute,
            }
            journal.put(SEEN_PACE, seen)
        if self.early_stop.useful:
            journal.put(USEFUL, {"job": _hash_of(self._job), "steps": sorted(self.early_stop.useful)})

    def to_text(self, counters: RunCounters) -> str:
        """Says for the progress bar what is spent, and what the whole will cost by the answers so far."""
        parts = [self.meter.budget.to_text()] if self._limits.any else []
        if self._limits.cost is None:
            parts.append("cost unknown" if counters.cost is None else f"${rounded(counters.cost)}")
        total = self._expected_total(counters)
        if total:
            parts.append(f"about ${rounded(total)} in all")
        return ", ".join(parts)

    def _expected_total(self, counters: RunCounters) -> Decimal | None:
        """Estimates the cost at the end: of this run, or with a budget of the job."""
        learned = self.meter.learned
        prompt, left = learned.mean_prompt(), counters.rows - counters.finished
        if prompt is None or learned.answers < ENOUGH or left <= 0:
            return None
        left = self._requests_left(counters, left)
        each = self.pricing.cost(learned.prompt_usage(prompt, learned.high() or 0), self.pricing.model)
        so_far = counters.cost if self._limits.cost is None else self.meter.budget.spent.cost
        return plus(so_far, None if each is None else each * left)

    def _requests_left(self, counters: RunCounters, rows_left: int) -> int:
        """Estimates the requests that unfinished rows need, by the finished rows of this run if there are enough."""
        if self._prepared.flow.single:
            return rows_left
        done = self._left - rows_left
        each = counters.answers / done if done >= ENOUGH else self._to_send / max(1, self._left)
        return max(rows_left, round(each * self._left) - counters.answers)


def _first_requests(prepared: PreparedJob, kept: KeptValue) -> Iterator[ChatRequest]:
    """Yields the first request of each row of the sample."""
    for row in sample_rows(prepared):
        if not prepared.job.splits:
            built = prepared.builder.build(row)
            if isinstance(built, ChatRequest):
                yield built
            continue
        yield from (
            request for _, request in islice(missing(begun(prepared.flow.start(row), kept), _NO_ANSWER), 1)
        )


def refuse_unbounded(prepared: PreparedJob, pricing: Pricing) -> None:
    """Refuses a budget that cannot be kept, before anything is paid.

    Raises:
        UsageError: A request has no known price (``--max-cost``), or no bound on its answer or its prompt.
    """
    job = prepared.job
    if job.max_cost is None and job.max_total_tokens is None:
        return
    flag = "--max-total-tokens" if job.max_cost is None else "--max-cost"
    priced: set[str] = set()
    _, longest = UsageEstimator().stand_ins()
    for row in sample_rows(prepared) if prepared.builder.same_for_all_rows else prepared.source.rows():
        for _, built in missing(begun(prepared.flow.start(row)), longest):
            _refuse_request(flag, job, row, built, pricing)
            if job.max_cost is not None and built.model not in priced:
                _refuse_price(job, built.model, pricing)
                priced.add(built.model)


def _refuse_request(flag: str, job: Job, row: Row, request: ChatRequest, pricing: Pricing) -> None:
    where = f" of row {row.index + 1}" if job.per_row else ""
    if request.max_tokens is None and pricing.output_limit(request.model) is None:
        raise UsageError(
            f"{flag} needs a bound on the answer: the request{where} has no max_tokens, and the output limit of "
            f"{request.model or 'the model'} is not known; give --max-tokens"
        )
    if upper_bound(request).prompt_tokens is None:
        raise UsageError(
            f"{flag} needs a bound on the prompt, and the request of row {row.index + 1} has a part of unknown "
            "size; leave that out, or run without a budget"
        )


def _refuse_price(job: Job, model: str, pricing: Pricing) -> None:
    if pricing.price_of(model) is None:
        preset, base_url = job.endpoint.preset, job.endpoint.base_url
        endpoint = f"{preset} ({base_url})" if base_url else preset
        raise UsageError(
            f"--max-cost needs a price, and none is known for {model or 'the model'} at {endpoint}; give one with "
            "--prices FILE, or bound the job with --max-total-tokens"
        )


def _cut_is_useless(spec: AnswerSpec) -> bool:
    return spec.read in ("text", "code")


def _hash_of(job: Job) -> str:
    return hashlib.sha256(json.dumps(job.fingerprint(), sort_keys=True).encode()).hexdigest()
