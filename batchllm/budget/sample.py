"""Builds the requests of the rows that the scan kept, for the estimate before a run."""

from collections.abc import Sequence
from statistics import StatisticsError, fmean, linear_regression
from typing import NamedTuple

from batchllm import tokens
from batchllm.budget.usage import UsageEstimator
from batchllm.flows import History
from batchllm.flows.stand_in import STAND_IN, StandIn, begun, missing
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.records import ChatRequest, Row


class SampledRequest(NamedTuple):
    """A request of a row of the sample.

    Attributes:
        request: It.
        prompt_tokens: The tokens of its prompt.
        size: The bytes of its row; ``None`` is unknown.
        first: It is the first one of its row.
    """

    request: ChatRequest
    prompt_tokens: int
    size: int | None
    first: bool


def sampled(
    prepared: PreparedJob, stand_in: StandIn, learned: UsageEstimator, *, at_most: bool = False
) -> list[SampledRequest]:
    """Builds the requests of the sample's rows, with stand-ins for answers and histories."""
    found = []
    for row in prepared.statistics.sample:
        flow = begun(prepared.flow.start(row))
        history = _history(prepared, row, learned, at_most=at_most) if flow.waits_for is not None else None
        for number, (_, request) in enumerate(missing(flow, stand_in, history=history)):
            prompt = request.prompt_tokens or tokens.estimate(request.body.decode("utf-8", "replace"))
            found.append(SampledRequest(request, prompt, prepared.source.size_of(row), number == 0))
    return found


def _history(prepared: PreparedJob, row: Row, learned: UsageEstimator, *, at_most: bool) -> History:
    """Returns a history as long as the mean one of all rows, if each turn is like this row."""
    built = prepared.builder.build(row)
    rows = prepared.statistics.rows
    if not isinstance(built, ChatRequest) or not rows:
        return History()
    turns = prepared.flow.turns.values()
    before = sum(count * (count - 1) / 2 for count in turns) / rows
    bound = built.max_tokens
    answer = bound if at_most and bound is not None else learned.mean(bound)
    own = prepared.builder.count(prepared.builder.turn(row)) + answer
    return History(tokens=round(before * own), key=STAND_IN.encode())


def stretch_of(prepared: PreparedJob, sent: Sequence[SampledRequest]) -> float:
    """Returns the factor from the sample's mean prompt to the mean prompt of all rows.

    A few rows may hold most of the text, and a sample misses them; the size of the file does not. Tokens grow
    linearly with a row's bytes, so the regression line of the sample, at the mean size of all rows, is the mean
    prompt.
    """
    statistics = prepared.statistics
    prompts = [each.prompt_tokens for each in sent]
    sizes = [each.size for each in sent if each.size is not None]
    if not sent or not statistics.rows or len(sizes) < len(sent):
        return 1.0
    try:
        line = linear_regression(sizes, prompts)
    except StatisticsError:
        return 1.0
    mean = fmean(prompts)
    found = line.intercept + line.slope * statistics.bytes / statistics.rows
    return min(10.0, max(0.1, found / mean)) if mean else 1.0
