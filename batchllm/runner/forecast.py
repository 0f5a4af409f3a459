"""What a job will cost and how long it will take, from a sample of its rows or from all of them.

The line before a run, ``--dry-run`` and ``status`` all come from here. A number that is not known is ``None``
everywhere; nothing is ever guessed to be 0.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal

from batchllm.prices import Price
from batchllm.records import ChatRequest, Pace, Row, Usage
from batchllm.request import RequestBuilder, Skipped

PriceOf = Callable[[Usage], Decimal | None]


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


def forecast_from_sample(
    sample: Iterable[Row],
    rows: int,
    builder: RequestBuilder,
    estimate: Callable[[str], int],
    pace: Pace,
    price: Price | None,
) -> Forecast:
    """Estimates a job from the rows that the census kept.

    Args:
        sample: Rows, chosen evenly over the input.
        rows: How many rows there are to send.
        builder: Makes their requests.
        estimate: Tokens of a text, roughly.
        pace: Limits that the user named.
        price: The price of the model, where it is known.
    """
    prompts: list[int] = []
    limits: list[int | None] = []
    seen = skipped = 0
    for row in sample:
        seen += 1
        built = builder.build(row)
        if isinstance(built, ChatRequest):
            prompts.append(built.prompt_tokens or estimate(built.body.decode("utf-8", "replace")))
            limits.append(built.max_tokens)
        elif isinstance(built, Skipped):
            skipped += 1
    if not prompts:
        return Forecast(rows=rows, skipped=skipped if seen == rows else None, prompt_tokens=0, price=price)
    scale = rows / seen
    prompt_tokens = round(sum(prompts) * scale)
    worst = None if None in limits else round(sum(limit or 0 for limit in limits) * scale)
    return Forecast(
        rows=rows,
        prompt_tokens=prompt_tokens,
        completion_tokens_expected=None if worst is None else worst // 2,
        completion_tokens_worst=worst,
        seconds=seconds_under(pace, round(len(prompts) * scale), prompt_tokens, worst),
        price=price,
    )


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
