"""Builds the requests of the rows that the scan kept, for the estimate before a run."""

from collections.abc import Sequence
from statistics import StatisticsError, fmean, linear_regression
from typing import NamedTuple

from batchllm import tokens
from batchllm.budget.usage import UsageEstimator
from batchllm.flows import History, Kept, Unsent
from batchllm.flows.stand_in import STAND_IN, KeptValue, StandIn, begun, missing
from batchllm.journal import JournalReader
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.records import ChatRequest, Row

MOST_BYTES = 2_000_000
"""Bytes of rows with parts that an estimate looks at; it is quick, and ``--dry-run`` is exact."""


MOST_DOCUMENTS = 10
"""Documents with parts that it reads."""


class SampledRequest(NamedTuple):
    """A request of a row of the sample.

    Attributes:
        request: What would be sent.
        prompt_tokens: The tokens of its prompt.
        size: The bytes of its row; ``None`` is unknown.
        first: It is the first one of its row.
        path: Its path in the row's flow.
    """

    request: ChatRequest
    prompt_tokens: int
    size: int | None
    first: bool
    path: str


class RowsAgain(NamedTuple):
    """What rows still ask of which only some requests are sent again.

    Attributes:
        expected: Their requests, each with its path, with answers of the expected length.
        longest: The same with the longest answers.
        rows: How many rows there are.
        times: How many of them each row stands for that was looked at.
    """

    expected: Sequence[tuple[str, ChatRequest]] = ()
    longest: Sequence[tuple[str, ChatRequest]] = ()
    rows: int = 0
    times: float = 1.0


class Stretch(NamedTuple):
    """Factors from the sample to all rows.

    Attributes:
        tokens: From the tokens of a prompt in the sample to those in the file.
        later: From the later requests of a row to those of a row in the file.
    """

    tokens: float
    later: float = 1.0


def sample_rows(prepared: PreparedJob) -> Sequence[Row]:
    """Returns the rows that an estimate looks at; of long texts that are split, a few."""
    rows = prepared.statistics.sample
    if not prepared.job.splits:
        return rows
    if prepared.builder.documents is not None:
        return rows[:MOST_DOCUMENTS]
    left, found = MOST_BYTES, list[Row]()
    for row in rows:
        if left <= 0:
            break
        found.append(row)
        left -= len(prepared.builder.text_of(row) or "")
    return found


def kept_in(reader: JournalReader | None) -> KeptValue:
    """Returns a function that returns what a journal keeps, or computes it and keeps nothing."""
    if reader is None:
        return Kept.value

    def kept(wanted: Kept) -> bytes | Unsent:
        value = reader.kept(wanted.key)
        return wanted.value() if value is None else value

    return kept


def sampled(
    prepared: PreparedJob,
    stand_in: StandIn,
    learned: UsageEstimator,
    *,
    at_most: bool = False,
    kept: KeptValue = Kept.value,
) -> list[SampledRequest]:
    """Builds the requests of the sample's rows, with stand-ins for answers and histories."""
    found = []
    for row in sample_rows(prepared):
        flow = begun(prepared.flow.start(row), kept)
        history = _history(prepared, row, learned, at_most=at_most) if flow.waits_for is not None else None
        for number, (ask, request) in enumerate(missing(flow, stand_in, history=history, kept=kept)):
            prompt = prompt_tokens(request)
            size = prepared.source.size_of(row)
            found.append(SampledRequest(request, prompt, size, number == 0, ask.path))
    return found


def prompt_tokens(request: ChatRequest) -> int:
    """Returns the tokens of a prompt; an estimate where nobody has counted them."""
    return request.prompt_tokens or tokens.estimate(request.body.decode("utf-8", "replace"))


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


def stretch_of(prepared: PreparedJob, sent: Sequence[SampledRequest]) -> Stretch:
    """Returns the factors from the sample's mean row to the mean of all rows.

    A few rows may hold most of the text, and a sample misses them; the size of the file does not. Tokens grow
    linearly with a row's bytes, so the regression line of the sample, at the mean size of all rows, is the mean
    prompt. A long text that is split has more parts there, and not longer ones.
    """
    if len(sample_rows(prepared)) == prepared.statistics.rows:
        return Stretch(1.0)  # the sample is the file
    firsts = [each for each in sent if each.first]
    if not prepared.job.splits:
        return Stretch(_factor(prepared, [each.prompt_tokens for each in firsts], firsts))
    totals: list[int] = []
    for each in sent:
        if each.first:
            totals.append(0)
        totals[-1] += each.prompt_tokens
    factor = _factor(prepared, totals, firsts)
    first = sum(each.prompt_tokens for each in firsts)
    later = sum(totals) - first
    return Stretch(1.0, max(0.0, (factor * sum(totals) - first) / later)) if later else Stretch(factor)


def _factor(prepared: PreparedJob, prompts: Sequence[int], sent: Sequence[SampledRequest]) -> float:
    statistics = prepared.statistics
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
