"""What a job will cost and how long it will take, from a sample of its rows or from all of them.

The line before a run, ``--dry-run`` and ``status`` all come from here. A number that is not known is ``None``
everywhere; nothing is ever guessed to be 0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from batchllm import prices, tokens
from batchllm.prices import Price
from batchllm.records import ChatRequest, Pace, Usage
from batchllm.runner.stage import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a job has before it.

    Attributes:
        rows: Rows of the job, or what ``-n`` and ``--sample`` leave of them.
        answered: Rows that have an answer already.
        duplicates: Rows that equal an earlier one.
        skipped: Rows with an empty text.
        prompt_tokens: Tokens of the prompts that are still to be sent.
        completion_tokens_expected, completion_tokens_worst: Tokens of the answers.
        cost_low, cost_high: US dollars for expected and worst answers.
        seconds: How long it will take under the limits that are known.
        exact: The prompts were counted, all of them; otherwise the tokens are an estimate.
        price: Where the price comes from, ``None`` where it is not known.
    """

    rows: int
    answered: int | None = 0
    duplicates: int | None = None
    skipped: int | None = None
    prompt_tokens: int | None = None
    completion_tokens_expected: int | None = None
    completion_tokens_worst: int | None = None
    cost_low: Decimal | None = None
    cost_high: Decimal | None = None
    seconds: float | None = None
    exact: bool = False
    price: Price | None = None


def forecast_job(stage: Stage, *, rows: int, left: int) -> Forecast:
    """Estimates a job from the sample of rows that the census kept.

    Args:
        stage: The job and its input.
        rows: Rows of the job.
        left: How many of them are still to be sent.
    """
    endpoint = stage.job.endpoint
    price = prices.price(endpoint.base_url, endpoint.model, preset=endpoint.preset) if left else None
    sampled = _sampled(stage, tokens.estimate)
    if not sampled:
        return Forecast(rows=rows, answered=rows - left, prompt_tokens=0, price=price)
    scale = left / len(stage.census.sample)
    prompt = round(sum(sent for sent, _ in sampled) * scale)
    bounds = [bound for _, bound in sampled]
    worst = None if None in bounds else round(sum(bound or 0 for bound in bounds) * scale)
    expected = None if worst is None else worst // 2
    return Forecast(
        rows=rows,
        answered=rows - left,
        prompt_tokens=prompt,
        completion_tokens_expected=expected,
        completion_tokens_worst=worst,
        cost_low=prices.cost(Usage(prompt, expected), price),
        cost_high=prices.cost(Usage(prompt, worst), price),
        seconds=seconds_under(stage.job.pace, round(len(sampled) * scale), prompt, worst),
        price=price,
    )


def _sampled(stage: Stage, count: Callable[[str], int]) -> list[tuple[int, int | None]]:
    """Prompt tokens and the bound of the answer, for each row of the sample that would be sent."""
    found = []
    for row in stage.census.sample:
        built = stage.builder.build(row)
        if isinstance(built, ChatRequest):
            found.append(
                (built.prompt_tokens or count(built.body.decode("utf-8", "replace")), built.max_tokens)
            )
    return found


def seconds_under(
    pace: Pace, requests: int, prompt_tokens: int, completion_tokens: int | None
) -> float | None:
    """Seconds that the named limits make of a job; ``None`` where no limit is named."""
    minutes: list[float] = []
    if pace.requests_per_minute:
        minutes.append(requests / pace.requests_per_minute)
    if pace.tokens_per_minute:
        minutes.append((prompt_tokens + (completion_tokens or 0)) / pace.tokens_per_minute)
    return max(minutes) * 60 if minutes else None
