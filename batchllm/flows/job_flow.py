"""The flow of a job: what it does with each of its rows."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from batchllm.flows.asking import reasking, whole
from batchllm.flows.conversation import conversation_of, turn, turns_of
from batchllm.flows.document import of_document, rows_with_texts, slow_values
from batchllm.flows.flow import Ask, Flow, SlowValues
from batchllm.flows.part_columns import WHOLE
from batchllm.flows.samples import sampled
from batchllm.flows.split import Splitting
from batchllm.flows.steps import PreparedStep, chained, prepare_steps
from batchllm.job import Job
from batchllm.records import Answer, Row
from batchllm.request import RequestBuilder, answer_spec


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFlow:
    """What a job does with each of its rows.

    Attributes:
        builder: Makes requests.
        start: Begins the flow of a row.
        single: No row needs more than one request.
        longest: The most requests that a row sends one after the other.
        conversation: The column whose equal values make rows one conversation.
        by_step: The flow's steps by their names, where it has any.
        slow: Yields what takes long to compute before a row can ask anything; ``None`` where nothing does.
        turns: How many turns each conversation has that has several, by the hash of its name.
        alone: Values of columns that an answer gets which is its row's only one.
    """

    builder: RequestBuilder
    start: Callable[[Row], Flow]
    single: bool = True
    longest: int = 1
    conversation: str | None = None
    by_step: Mapping[str, PreparedStep] = field(default_factory=dict)
    slow: SlowValues | None = None
    turns: Mapping[int, int] = field(default_factory=dict)
    alone: Mapping[str, Any] = field(default_factory=dict)

    @property
    def named(self) -> bool:
        """Whether answers are known by the names of their requests, so that a row of one request is replayed too."""
        return bool(self.by_step)

    @property
    def truncated(self) -> int:
        """How many times a text was cut to ``--max-input-tokens``."""
        cut = self.builder.truncated
        return cut + sum(step.builder.truncated for step in self.by_step.values()) if self.by_step else cut

    @property
    def waves(self) -> int:
        """The most batches, one after the other, that a row may need."""
        return self.longest * max(self.turns.values(), default=1)


def job_flow(job: Job, builder: RequestBuilder, rows: Callable[[], Iterable[Row]] = tuple) -> JobFlow:
    """Returns the flow of a job.

    Args:
        job: The job.
        builder: Makes its requests.
        rows: Reads the input, to count the turns of conversations.
    """
    documents = builder.documents
    if documents is None:
        return _of_texts(job, builder, rows)
    flow = _of_texts(job, builder, partial(rows_with_texts, documents, rows))
    return replace(
        flow,
        start=partial(of_document, documents, flow.start),
        slow=partial(slow_values, documents, flow.slow),
    )


def _of_texts(job: Job, builder: RequestBuilder, rows: Callable[[], Iterable[Row]]) -> JobFlow:
    """The flow of a job whose rows have their texts."""
    if job.steps:
        return _chain(job, builder)
    if job.splits:
        return _in_parts(job, builder, rows)
    reads_data = job.per_row or answer_spec(job).read == "json"
    reasks = job.reasks if reads_data else 0
    if reasks == 0 and job.samples == 1 and job.conversation is None:
        return JobFlow(builder=builder, start=partial(_single, builder))

    def one(ask: Ask) -> Flow:
        return reasking(builder, ask, reasks if ask.reader.spec.read == "json" else 0)

    def answered(ask: Ask) -> Flow:
        return one(ask) if job.samples == 1 else sampled(ask, job.samples, one)

    def start(row: Row) -> Flow:
        name = None if job.conversation is None else conversation_of(row, job.conversation)
        if name is not None:
            return (yield from turn(builder, row, name, answered))
        return (yield from answered(whole(builder, row)))

    return JobFlow(
        builder=builder,
        start=start,
        single=reasks == 0 and job.samples == 1,
        longest=1 + reasks,
        conversation=job.conversation,
        turns={} if job.conversation is None else turns_of(rows(), job.conversation),
    )


def _chain(job: Job, builder: RequestBuilder) -> JobFlow:
    steps = prepare_steps(job.steps, builder)
    return JobFlow(
        builder=builder,
        start=partial(chained, steps),
        single=False,
        longest=sum(1 + step.reasks for step in steps),
        by_step={step.name: step for step in steps},
    )


def _in_parts(job: Job, builder: RequestBuilder, rows: Callable[[], Iterable[Row]]) -> JobFlow:
    splitting = Splitting(job, builder)
    longest = splitting.longest(rows()) if job.via == "batch" else 1
    return JobFlow(
        builder=builder,
        start=splitting.start,
        single=False,
        longest=longest,
        alone=WHOLE,
        slow=splitting.slow,
    )


def _single(builder: RequestBuilder, row: Row) -> Flow:
    answer: Answer = yield whole(builder, row)
    return answer
