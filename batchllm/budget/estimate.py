"""What a job has before it: tokens, money, time.

The line before a run, ``--dry-run`` and ``status`` all come from here. A number that is not known is ``None``
everywhere; nothing is ever guessed to be 0.

The price is a range. Its low end is what the prompts cost with answers as short as this job's shortest (without
any known answer: none at all), its high end what they cost with answers that all reach ``max_tokens``. Where the
prompts were not counted but estimated, both ends give way by ``SLACK``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from statistics import StatisticsError, fmean, linear_regression
from typing import Any

from batchllm import prices, tokens
from batchllm.budget.learned import Learned
from batchllm.budget.pricing import Pricing, plus
from batchllm.job import Job
from batchllm.limiter import Cost
from batchllm.limiter.charge import Charge
from batchllm.limiter.terms import TOKENS
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.prices import Price
from batchllm.records import ChatRequest, Pace, Usage

SLACK = 1.5
"""How far an estimate of tokens may be off; for prose it is within this."""

SEEN_PACE = "pace"
"""The journal's entry for the limits that a run saw: requests and tokens a minute."""

MEAN_REQUEST = "mean_request"
"""The journal's entry for the mean request that a run had before it: prompt tokens, and the bound of the answer."""

FIGURES = (
    "rows", "answered", "duplicates", "skipped", "prompt_tokens", "completion_tokens_expected",
    "completion_tokens_upper_bound", "cost_low", "cost_high", "seconds",
)  # fmt: skip
"""The names of a forecast as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a job has before it.

    Attributes:
        rows: Rows of the job, or what ``-n`` and ``--sample`` leave of them; ``None`` where no run came that far.
        answered: Rows that have their end already.
        duplicates: Rows whose request equals an earlier row's.
        skipped: Rows with nothing to ask.
        unsendable: Rows that will fail before they are sent.
        requests: Requests still to be sent.
        prompt_tokens: Tokens of their prompts.
        completion_tokens_expected: Tokens of their answers, by a high percentile of the answers seen, or half of the
            bound.
        completion_tokens_upper_bound: The same if every answer reaches its bound; ``None`` where there is none.
        cost_low, cost_high: US dollars, from the shortest answers to the longest.
        cost_expected: The same for the expected answers.
        seconds: How long it will take under the limits that are given or were seen.
        exact: The prompts were counted, all of them; otherwise the tokens are an estimate.
        price: What the job's model costs, and where that is from; ``None`` where it is not known.
        possibly_billed_rows: Rows, from 1, that a run which died may have paid without an answer.
    """

    rows: int | None
    answered: int | None = 0
    duplicates: int | None = None
    skipped: int | None = None
    unsendable: int | None = None
    requests: int | None = None
    prompt_tokens: int | None = None
    completion_tokens_expected: int | None = None
    completion_tokens_upper_bound: int | None = None
    cost_low: Decimal | None = None
    cost_high: Decimal | None = None
    cost_expected: Decimal | None = None
    seconds: float | None = None
    exact: bool = False
    price: Price | None = None
    possibly_billed_rows: tuple[int, ...] = ()

    def figures(self) -> dict[str, Any]:
        """The figures as JSON has them; what is not known is null."""
        return {name: _plain(getattr(self, name)) for name in FIGURES}


class Sums:
    """Adds up requests that are to be sent, in constant memory.

    Args:
        pricing: What models cost.
        charge: What the endpoint takes off a token limit: ``Endpoint.charge``.
        learned: What is known about answers.
    """

    def __init__(self, pricing: Pricing, charge: str, learned: Learned) -> None:
        self._pricing = pricing
        self._charge = Charge(charge)
        self._learned = learned
        self._answers: dict[int | None, tuple[int, int | None]] = {}
        self._groups: dict[tuple[str, int], list[float]] = {}
        self._unknown_expected = self._unbounded = False
        self.requests = 0.0
        self.charged_tokens = 0.0

    def add(self, model: str, prompt_tokens: float, bound: int | None, times: float = 1.0) -> None:
        """Adds a request, or many alike.

        Args:
            model: Its model.
            prompt_tokens: Tokens of its prompt.
            bound: The most that its answer may have.
            times: How many.
        """
        low, expected = self._answers.get(bound) or self._answer(bound)
        price = self._pricing.of(model)
        tier = 0
        if price is not None and len(price.rates) > 1:
            tier = max(i for i, rates in enumerate(price.rates) if i == 0 or prompt_tokens > rates.above)
        group = self._groups.setdefault((model, tier), [0.0] * 5)
        values = (1.0, prompt_tokens, low, expected or 0, bound or 0)
        for place, value in enumerate(values):
            group[place] += value * times
        self._unknown_expected |= expected is None
        self._unbounded |= bound is None
        self.requests += times
        self.charged_tokens += times * self._charge.amount(TOKENS, Cost(round(prompt_tokens), bound))

    def forecast(
        self, *, rows: int | None, exact: bool, pace: Pace, seen: Mapping[str, Any] | None
    ) -> Forecast:
        """What has been added up, as a forecast."""
        totals = [sum(group[place] for group in self._groups.values()) for place in range(5)]
        slack = 1.0 if exact else SLACK
        return Forecast(
            rows=rows,
            requests=round(self.requests),
            prompt_tokens=round(totals[1]),
            completion_tokens_expected=None if self._unknown_expected else round(totals[3]),
            completion_tokens_upper_bound=None if self._unbounded else round(totals[4]),
            cost_low=self._cost(2, 1 / slack),
            cost_expected=None if self._unknown_expected else self._cost(3, 1.0),
            cost_high=None if self._unbounded else self._cost(4, slack),
            seconds=seconds_under(pace, seen, self.requests, self.charged_tokens),
            exact=exact,
            price=self._pricing.of(self._pricing.model),
        )

    def _answer(self, bound: int | None) -> tuple[int, int | None]:
        expected = self._learned.high(bound)
        if expected is None and bound is not None:
            expected = bound // 2
        found = self._answers[bound] = (self._learned.low(bound), expected)
        return found

    def _cost(self, answers: int, factor: float) -> Decimal | None:
        total = self._pricing.nothing()
        if self._groups:
            total = Decimal(0)
        for (model, tier), group in self._groups.items():
            price = self._pricing.of(model)
            if price is None:
                return None
            one_tier = replace(price, rates=(price.rates[tier],), per_request=Decimal(0))
            cost = prices.cost(Usage(round(group[1] * factor), round(group[answers])), one_tier)
            total = plus(total, plus(cost, price.per_request * round(group[0])))
        return None if total is None else total * self._pricing.batch_share


def forecast_job(
    prepared: PreparedJob,
    *,
    rows: int,
    left: int,
    pricing: Pricing | None = None,
    learned: Learned | None = None,
    seen: Mapping[str, Any] | None = None,
) -> Forecast:
    """Estimates a job from the sample of rows that the statistics kept; reads no file and counts nothing exactly.

    Args:
        prepared: The job and its input.
        rows: Rows of the job.
        left: How many of them are still to be sent.
        pricing: What its models cost.
        learned: What is known about answers.
        seen: The limits that an earlier run saw (``SEEN_PACE``).
    """
    pricing = pricing or Pricing(prepared.job)
    sums = Sums(pricing, prepared.job.endpoint.charge, learned or Learned())
    sample = prepared.statistics.sample
    if left and sample:
        sent = _sampled(prepared)
        scale = left / len(sample)
        stretch = _stretch(prepared, sent)
        for request, prompt, _ in sent:
            sums.add(request.model, prompt * stretch, request.max_tokens, scale)
    found = sums.forecast(rows=rows, exact=False, pace=prepared.job.pace, seen=seen)
    return replace(found, answered=rows - left)


def forecast_left(
    job: Job,
    *,
    rows: int | None,
    left: int | None,
    learned: Learned,
    mean_request: Mapping[str, Any] | None,
    seen: Mapping[str, Any] | None,
) -> Forecast:
    """Estimates what is left of a job from its journal alone.

    Args:
        job: The job as the journal has it.
        rows: Its rows, where they are known.
        left: Rows that have no end yet.
        learned: What is known about answers.
        mean_request: The journal's ``MEAN_REQUEST``.
        seen: The journal's ``SEEN_PACE``.
    """
    mean = mean_request or {}
    prompt = learned.prompt() or mean.get("prompt_tokens")
    if rows is None or left is None or (left and prompt is None):
        return Forecast(rows=rows)
    sums = Sums(Pricing(job, needed=False), job.endpoint.charge, learned)
    if left and prompt is not None:
        bound = mean.get("bound")
        sums.add(job.endpoint.model, prompt, None if bound is None else round(bound), left)
    return sums.forecast(rows=rows, exact=False, pace=Pace(), seen=seen)


def _sampled(prepared: PreparedJob) -> list[tuple[ChatRequest, int, int | None]]:
    """The requests of the sample that would be sent, the tokens of their prompts, and the bytes of their rows."""
    found = []
    for row in prepared.statistics.sample:
        built = prepared.builder.build(row)
        if isinstance(built, ChatRequest):
            prompt = built.prompt_tokens or tokens.estimate(built.body.decode("utf-8", "replace"))
            found.append((built, prompt, prepared.source.size_of(row)))
    return found


def _stretch(prepared: PreparedJob, sent: list[tuple[ChatRequest, int, int | None]]) -> float:
    """By how much the prompts of all rows differ from those of the sample, judged by the size of the file.

    A few rows may hold most of the text, and a sample misses them; the size of the file does not. Tokens grow
    with a row's bytes along a line, so the line through the sample, at the mean size of all rows, is the mean
    prompt.
    """
    statistics = prepared.statistics
    prompts = [prompt for _, prompt, _ in sent]
    sizes = [size for _, _, size in sent if size is not None]
    if not sent or not statistics.rows or len(sizes) < len(sent):
        return 1.0
    try:
        line = linear_regression(sizes, prompts)
    except StatisticsError:
        return 1.0
    mean = fmean(prompts)
    found = line.intercept + line.slope * statistics.bytes / statistics.rows
    return min(10.0, max(0.1, found / mean)) if mean else 1.0


def seconds_under(
    pace: Pace, seen: Mapping[str, Any] | None, requests: float, charged_tokens: float
) -> float | None:
    """Seconds that the limits make of a job; ``None`` where none is known.

    Args:
        pace: The limits that are given; they go before those that were seen.
        seen: Requests and tokens a minute, as ``SEEN_PACE`` keeps them.
        requests: Requests to send.
        charged_tokens: What the endpoint takes off its token limit for them.
    """
    seen = seen or {}
    per_minute = pace.requests_per_minute or seen.get("requests_per_minute")
    tokens_per_minute = pace.tokens_per_minute or seen.get("tokens_per_minute")
    minutes = []
    if per_minute:
        minutes.append(requests / per_minute)
    if tokens_per_minute:
        minutes.append(charged_tokens / tokens_per_minute)
    return max(minutes) * 60 if minutes else None


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    return round(value, 3) if isinstance(value, float) else value
