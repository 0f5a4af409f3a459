"""Runs a row's flow over the answers in the journal, and nothing else: for the output, for ``show``, for histories."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from batchllm.answer import Reader
from batchllm.budget.sample import kept_in
from batchllm.flows import After, Ask, History, JobFlow, later_key
from batchllm.flows.conversation import conversation_of, said
from batchllm.flows.open_flow import OpenFlow
from batchllm.flows.samples import majority
from batchllm.flows.stand_in import begun
from batchllm.journal import SKIPPED, JournalReader, RequestRecord, RowRecord, State
from batchllm.records import Answer, Row, Usage

ENDED = (State.ANSWERED, State.FAILED, State.UNANSWERED)


class ReplayedRequest(NamedTuple):
    """A request of a replayed flow.

    Attributes:
        ask: What the flow yielded; ``None`` where the rows are not there any more.
        record: What the journal has; ``None``: it was never sent.
        answer: Its answer; ``None``: none yet.
    """

    ask: Ask | None
    record: RequestRecord | None
    answer: Answer | None


@dataclass(slots=True, eq=False)
class Replay:
    """A flow, as far as the journal has answers.

    Attributes:
        requests: Its requests, in the order of the flow.
        result: Its answer; ``None`` if it has not ended.
    """

    requests: list[ReplayedRequest] = field(default_factory=list)
    result: Answer | None = None

    @property
    def attempts(self) -> int:
        """Attempts of all its requests."""
        return sum(each.record.attempts for each in self.requests if each.record is not None)

    @property
    def latency_s(self) -> float | None:
        """Seconds that its answers took together; ``None`` is unknown."""
        found = [each.record.latency_s for each in self.requests if each.record is not None]
        known = [seconds for seconds in found if seconds is not None]
        return sum(known) if known else None

    def summed(self) -> Answer | None:
        """Returns its answer with the usage of all requests, and finish reason and model of the last answer.

        Several models are joined by ``;``, and an unknown count makes the sum unknown.
        """
        given = [each.answer for each in self.requests if each.answer is not None]
        paid = [answer for answer in given if answer.model is not None or answer.usage != Usage()]
        if self.result is None or len(paid) < 2:
            return self.result
        last = paid[-1]
        return self.result._replace(
            usage=Usage(*map(_sum, zip(*(answer.usage for answer in paid), strict=True))),
            finish_reason=last.finish_reason,
            model=";".join(dict.fromkeys(answer.model for answer in paid if answer.model)) or None,
            response_id=last.response_id,
            created=last.created,
        )


class Replays(Protocol):
    """Replays rows by their numbers."""

    def replay_row(self, row_index: int, root_id: int) -> Replay:
        """Replays a row whose first request is ``root_id``."""


class Replayer:
    """Replays rows of a job.

    Args:
        flow: The job's flow.
        reader: The journal.
        row_of: Returns a row by its index; only ``replay_row`` needs it.
        unread: Successful replies count as answers too that a dead run saved without recording their outcome.
    """

    def __init__(
        self,
        flow: JobFlow,
        reader: JournalReader,
        row_of: Callable[[int], Row] | None = None,
        *,
        unread: bool = False,
    ) -> None:
        self._unread = unread
        self._flow = flow
        self._reader = reader
        self._row_of = row_of

    def replay_row(self, row_index: int, root_id: int) -> Replay:
        """Replays a row; see ``Replays``."""
        assert self._row_of is not None, "rows are asked for by their numbers"
        return self.replay(self._row_of(row_index), root_id)

    def replay(self, row: Row, root_id: int, history: History | None = None) -> Replay:
        """Replays the flow of a row.

        Args:
            row: The row.
            root_id: Its first request.
            history: Of its conversation; answers are found without it, and requests built with it.
        """
        records = self._reader.flow_requests(root_id)
        root = next(record for record in records if record.request_id == root_id)
        by_key = {record.key: record for record in records}
        flow, replay = OpenFlow(), Replay()
        flow.begin(self._flow.start(row))
        while not flow.ended:
            if flow.waits_for is not None:
                value = self._waited_for(flow, root, history)
                if value is None:
                    return replay
                flow.give(value)
                continue
            group = [
                self._replayed(
                    ask, root if flow.steps == 1 and number == 0 else by_key.get(later_key(root_id, ask))
                )
                for number, ask in enumerate(flow.asks)
            ]
            replay.requests += group
            if any(each.answer is None for each in group):
                return replay
            for number, each in enumerate(group):
                assert each.answer is not None and each.record is not None, "just looked at"
                flow.take(number, each.answer, given_up=each.record.state is State.UNANSWERED)
        replay.result = flow.result
        return replay

    def answer_of(self, row: Row) -> Answer | None:
        """Returns the usable answer of a row; ``None`` if it has none."""
        entry = next(self._reader.outcomes(row.index), None)
        if entry is None or entry.row_index != row.index or entry.state is not State.ANSWERED:
            return None
        if entry.flow_of is not None:
            answer = self.replay(row, entry.flow_of).result
        else:
            answer = read_outcome(entry, self._flow.builder.reader(row))
        return None if answer is None or answer.error is not None else answer

    def history(self, row: Row, rows: Callable[[], Iterable[Row]]) -> History | None:
        """Returns what was said in a row's conversation before it; ``None`` if it is no turn."""
        column = self._flow.conversation
        name = None if column is None else conversation_of(row, column)
        if name is None or column is None:
            return None
        history = History()
        for earlier in rows():
            if earlier.index >= row.index:
                break
            if conversation_of(earlier, column) == name:
                answer = self.answer_of(earlier)
                if answer is not None:
                    said(history, self._flow.builder, earlier, b"", answer)
        return history

    def _replayed(self, ask: Ask, record: RequestRecord | None) -> ReplayedRequest:
        is_unread = self._unread and record is not None and 200 <= (record.status or 0) < 300
        if record is None or not (record.state in ENDED or is_unread):
            return ReplayedRequest(ask, record, None)
        return ReplayedRequest(ask, record, read_outcome(record, ask.reader))

    def _waited_for(
        self, flow: OpenFlow, root: RequestRecord, history: History | None
    ) -> History | bytes | None:
        if isinstance(flow.waits_for, After):
            return replace(history or History(), turn_key=root.key)
        assert flow.waits_for is not None, "only called for a flow that waits"
        return self._reader.kept(flow.waits_for.key)


class AnswersAlone:
    """Stands for replays where the rows are not there any more: takes the answers as they are in the journal.

    Args:
        reader: The journal.
        answer_reader: Reads every answer.
        samples: How many samples each row has.
    """

    def __init__(self, reader: JournalReader, answer_reader: Reader, samples: int) -> None:
        self._reader = reader
        self._answer_reader = answer_reader
        self._samples = samples

    def replay_row(self, row_index: int, root_id: int) -> Replay:
        """Returns the last usable answer of a row, or the majority of its samples."""
        records = [record for record in self._reader.flow_requests(root_id) if record.state in ENDED]
        answers = [read_outcome(record, self._answer_reader) for record in records]
        usable = [answer for answer in answers if answer.error is None]
        result = (usable or answers)[-1] if answers else None
        if self._samples > 1 and usable:
            missing = [None] * (self._samples - len(usable))
            votes = self._answer_reader.spec.read in ("label", "json")
            result = majority([*usable[: self._samples], *missing], votes=votes)
        requests = [ReplayedRequest(None, *each) for each in zip(records, answers, strict=True)]
        return Replay(requests, result)


def read_outcome(entry: RowRecord | RequestRecord, reader: Reader) -> Answer:
    """Reads the outcome of a request that has ended."""
    if entry.status is not None:
        return reader.read(entry.status, entry.body)
    return Answer(error=entry.message or "never sent", reason=entry.failure or "too_large")


def first_asks(flow: JobFlow, row: Row, reader: JournalReader) -> tuple[Ask, ...]:
    """Returns what a row asks first, without a history; nothing if it cannot be sent."""
    found = begun(flow.start(row), kept_in(reader))
    if isinstance(found.waits_for, After):
        found.give(History())
    return found.asks


def unsent_answer(reason: str) -> Answer | None:
    """Returns the failed answer of a row that was not sent; ``None`` for an empty one."""
    if reason == SKIPPED:
        return None
    kind, _, error = reason.partition("\n")
    return Answer(error=error, reason=kind)


def _sum(counts: tuple[int | None, ...]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
