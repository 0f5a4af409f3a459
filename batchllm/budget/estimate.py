"""Estimates what is left of a job: tokens, money, time.

The line before a run, ``--dry-run`` and ``status`` all come from here. An unknown number is ``None``, never 0.

The price is a range. Its low end assumes answers as short as this job's shortest (of no length, if no answer is
known), and as many prompt tokens from the endpoint's cache as this job has had; its high end answers that all reach
``max_tokens``, and no cache. If the prompts were estimated instead of counted, both
ends are widened by the factor ``SLACK``.
"""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

from batchllm import prices
from batchllm.budget.costs import Pricing, plus
from batchllm.budget.forecast import Forecast, PartSums
from batchllm.budget.sample import (
    RowsAgain,
    SampledRequest,
    Stretch,
    kept_in,
    prompt_tokens,
    sample_rows,
    sampled,
    stretch_of,
)
from batchllm.budget.usage import UsageEstimator
from batchllm.job import Job
from batchllm.journal import JournalReader
from batchllm.limiter import Cost
from batchllm.limiter.charge import Charge
from batchllm.limiter.terms import TOKENS
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.records import Pace, Usage
from batchllm.request import AnswerSettings, answer_settings

SLACK = 1.5
"""The factor by which an estimate of tokens may be off; for prose it is closer."""

SEEN_PACE = "pace"
"""The journal's key for the limits that a run met: requests and tokens a minute."""

MEAN_REQUEST = "mean_request"
"""The journal's key for the mean request that a run had to send: prompt tokens, and the answer's upper bound."""


class RequestTotals:
    """Adds up requests that are to be sent, in constant memory.

    Args:
        pricing: What models cost.
        charge: What the endpoint charges against its token limit: ``Endpoint.charge``.
        learned: What is known about answers.
    """

    def __init__(self, pricing: Pricing, charge: str, learned: UsageEstimator) -> None:
        self._pricing = pricing
        self._charge = Charge(charge)
        self._learned = learned
        self._answers: dict[int | None, tuple[int, int | None]] = {}
        self._groups: dict[tuple[str, int], list[float]] = {}
        self._unknown_expected = self._unbounded = self._unbounded_cost = False
        self.requests = 0.0
        self.charged_tokens = 0.0
        self._parts = PartSums()

    def add(
        self, model: str, prompt_tokens: float, bound: int | None, times: float = 1.0, *, path: str = ""
    ) -> None:
        """Adds a request, or many alike.

        Args:
            model: Its model.
            prompt_tokens: Tokens of its prompt.
            bound: The most tokens that its answer may have.
            times: The number of such requests.
            path: Its path in its row's flow.
        """
        if path:
            self._parts.add(path, times)
        low, expected = self._answers.get(bound) or self._answer(bound)
        price = self._pricing.price_of(model)
        tier = 0
        if price is not None and len(price.rates) > 1:
            tier = max(i for i, rates in enumerate(price.rates) if i == 0 or prompt_tokens > rates.above)
        group = self._groups.setdefault((model, tier), [0.0] * 5)
        for column, value in enumerate((1.0, prompt_tokens, low, expected or 0, bound or 0)):
            group[column] += value * times
        self._unknown_expected |= expected is None
        self._unbounded |= bound is None
        self._unbounded_cost |= bound is None and (
            price is None or any(rates.output for rates in price.rates)
        )
        self.requests += times
        self.charged_tokens += times * self._charge.amount(TOKENS, Cost(round(prompt_tokens), bound))

    def add_sampled(self, each: SampledRequest, stretch: Stretch, scale: float) -> None:
        """Adds a request of the sample for all the rows that it stands for.

        Args:
            each: The request.
            stretch: Factors from the sample to all rows.
            scale: Rows for each row of the sample.
        """
        times = scale if each.first else scale * stretch.later
        prompt = each.prompt_tokens * stretch.tokens
        self.add(each.request.model, prompt, each.request.max_tokens, times, path=each.path)

    def forecast(
        self,
        *,
        rows: int | None,
        exact: bool,
        pace: Pace,
        seen: Mapping[str, Any] | None,
        upper: "RequestTotals | None" = None,
    ) -> Forecast:
        """Returns the totals as a forecast.

        Args:
            rows: Rows of the job.
            exact: All prompts were counted.
            pace: The limits that are given.
            seen: The limits that a run met.
            upper: The totals of the longest answers, where these make other requests.
        """
        if upper is not None:
            most = upper.forecast(rows=rows, exact=exact, pace=pace, seen=seen)
            return replace(
                self.forecast(rows=rows, exact=exact, pace=pace, seen=seen),
                requests_upper_bound=most.requests,
                completion_tokens_upper_bound=most.completion_tokens_upper_bound,
                cost_high=most.cost_high,
                parts=self._parts.counts(upper._parts),
            )
        totals = [sum(group[column] for group in self._groups.values()) for column in range(5)]
        slack = 1.0 if exact else SLACK
        return Forecast(
            rows=rows,
            requests=round(self.requests),
            requests_upper_bound=round(self.requests),
            prompt_tokens=round(totals[1]),
            completion_tokens_expected=None if self._unknown_expected else round(totals[3]),
            completion_tokens_upper_bound=None if self._unbounded else round(totals[4]),
            cost_low=self._cost(2, 1 / slack, cached=True),
            cost_expected=None if self._unknown_expected else self._cost(3, 1.0, cached=True),
            cost_high=None if self._unbounded_cost else self._cost(4, slack),
            seconds=seconds_under(pace, seen, self.requests, self.charged_tokens),
            exact=exact,
            price=self._pricing.price_of(self._pricing.model),
            models=self._models(),
        )

    def _models(self) -> dict[str, int]:
        counts: dict[str, float] = {}
        for (model, _), group in self._groups.items():
            counts[model] = counts.get(model, 0.0) + group[0]
        return {model: round(count) for model, count in sorted(counts.items(), key=lambda item: -item[1])}

    def _answer(self, bound: int | None) -> tuple[int, int | None]:
        expected = self._learned.high(bound)
        if expected is None and bound is not None:
            expected = bound // 2
        found = self._answers[bound] = (self._learned.low(bound), expected)
        return found

    def _cost(self, answers: int, factor: float, *, cached: bool = False) -> Decimal | None:
        total = Decimal(0) if self._groups else self._pricing.nothing()
        for (model, tier), group in self._groups.items():
            price = self._pricing.price_of(model)
            if price is None:
                return None
            one_tier = replace(price, rates=(price.rates[tier],), per_request=Decimal(0))
            prompt, completion = group[1] * factor, round(group[answers])
            usage = (
                self._learned.prompt_usage(prompt, completion) if cached else Usage(round(prompt), completion)
            )
            cost = prices.cost(usage, one_tier)
            total = plus(total, plus(cost, price.per_request * round(group[0])))
        return None if total is None else total * self._pricing.batch_share


def forecast_job(
    prepared: PreparedJob,
    *,
    rows: int,
    left: int,
    pricing: Pricing | None = None,
    learned: UsageEstimator | None = None,
    seen: Mapping[str, Any] | None = None,
    reader: JournalReader | None = None,
    again: RowsAgain = RowsAgain(),  # noqa: B008 - it is never written
) -> Forecast:
    """Estimates a job from the sample of rows that the scan kept; reads no file and counts nothing exactly.

    Args:
        prepared: The job and its input.
        rows: Rows of the job.
        left: Rows still to be sent.
        pricing: What its models cost.
        learned: What is known about answers.
        seen: The limits that an earlier run met (``SEEN_PACE``).
        reader: Its journal, with the values that it keeps.
        again: Rows beside these, of which only some requests are sent again.
    """
    flow, learned = prepared.flow, learned or UsageEstimator()
    pricing = pricing or Pricing(prepared.job)
    expected, longest = learned.stand_ins()
    totals = RequestTotals(pricing, prepared.job.endpoint.charge, learned)
    upper = None
    if not flow.single or flow.conversation is not None:
        upper = RequestTotals(pricing, prepared.job.endpoint.charge, learned)
    for sums, asked in ((totals, again.expected), (upper or totals, again.longest if upper else ())):
        for path, request in asked:
            sums.add(request.model, prompt_tokens(request), request.max_tokens, again.times, path=path)
    sample = sample_rows(prepared)
    requests = [request for _, request in again.expected]
    if left and sample:
        kept = kept_in(reader)
        sent = sampled(prepared, expected, learned, kept=kept)
        requests += [each.request for each in sent]
        scale = left / len(sample)
        stretch = stretch_of(prepared, sent)
        for each in sent:
            totals.add_sampled(each, stretch, scale)
        if upper is not None:
            for each in sampled(prepared, longest, learned, at_most=True, kept=kept):
                upper.add_sampled(each, stretch, scale)
    found = totals.forecast(rows=rows, exact=False, pace=prepared.job.pace, seen=seen, upper=upper)
    settings = AnswerSettings(prepared.builder.column)
    if requests:
        settings = answer_settings(settings.column, prepared.builder.shots, requests)
    waves = flow.waves if prepared.job.via == "batch" else None
    parts_of_some = prepared.job.splits and left > 0 and len(sample) < prepared.statistics.rows
    sampled_some = parts_of_some or again.times > 1
    return replace(found, answered=rows - left, settings=settings, waves=waves, sampled=sampled_some)


def forecast_left(
    job: Job,
    *,
    rows: int | None,
    left: int | None,
    learned: UsageEstimator,
    mean_request: Mapping[str, Any] | None,
    seen: Mapping[str, Any] | None,
) -> Forecast:
    """Estimates what is left of a job from its journal alone.

    Args:
        job: The job as the journal has it.
        rows: Its rows, if they are known.
        left: Its unfinished rows.
        learned: What is known about answers.
        mean_request: The journal's ``MEAN_REQUEST``.
        seen: The journal's ``SEEN_PACE``.
    """
    mean = mean_request or {}
    prompt = learned.mean_prompt() or mean.get("prompt_tokens")
    if rows is None or left is None or (left and prompt is None):
        return Forecast(rows=rows)
    totals = RequestTotals(Pricing(job, needed=False), job.endpoint.charge, learned)
    if left and prompt is not None:
        bound = mean.get("bound")
        times = left * mean.get("requests", 1.0)
        totals.add(job.endpoint.model, prompt, None if bound is None else round(bound), times)
    return totals.forecast(rows=rows, exact=False, pace=Pace(), seen=seen)


def seconds_under(
    pace: Pace, seen: Mapping[str, Any] | None, requests: float, charged_tokens: float
) -> float | None:
    """Returns the seconds that the limits make of a job; ``None`` if no limit is known.

    Args:
        pace: The limits that are given; they take precedence.
        seen: The limits that a run met, as ``SEEN_PACE`` keeps them.
        requests: Requests to send.
        charged_tokens: What the endpoint charges against its token limit for them.
    """
    seen = seen or {}
    limits = (
        (requests, pace.requests_per_minute or seen.get("requests_per_minute")),
        (charged_tokens, pace.tokens_per_minute or seen.get("tokens_per_minute")),
    )
    return max((amount * 60 / per_minute for amount, per_minute in limits if per_minute), default=None)
