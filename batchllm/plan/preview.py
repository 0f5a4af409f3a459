"""Looks at what rows would ask and what a journal has of it, and writes nothing: for the dry run and a changed job."""

from collections.abc import Collection, Container, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from batchllm.budget.sample import kept_in
from batchllm.flows import Ask, History, JobFlow, later_key
from batchllm.flows.conversation import conversation_of, said
from batchllm.flows.open_flow import OpenFlow
from batchllm.flows.stand_in import STAND_IN, StandIn, begun, expected, longest, missing
from batchllm.journal import JournalReader, RequestRecord, State
from batchllm.plan.finished import FinishedRequests, KnownRequest
from batchllm.plan.replay import ENDED, read_outcome
from batchllm.records import Answer, ChatRequest, Row
from batchllm.request import Skipped, Unsendable

_NOBODY = KnownRequest(duplicate=False, state=None)


class PreviewedRequest(NamedTuple):
    """A request that a run would send.

    Attributes:
        path: Its path in the row's flow.
        request: What would be sent.
    """

    path: str
    request: ChatRequest


@dataclass(slots=True, eq=False)
class PreviewedRow:
    """What a row would ask.

    Attributes:
        row: The row.
        unsent: Why it is not sent; ``None`` if it is.
        duplicate: An earlier row has an equal first request.
        state: How the row is finished; ``None`` if it is not.
        requests: The requests that a run would send, with answers of the expected length.
        longest: The same if each answer is as long as it may be, and is re-asked as often as it may be.
        paid_again: One of them takes the place of one that was answered, or the row's first request was not asked yet.
        conversation: Its conversation, if it is a turn.
    """

    row: Row
    unsent: Skipped | Unsendable | None = None
    duplicate: bool = False
    state: State | None = None
    requests: list[PreviewedRequest] = field(default_factory=list)
    longest: list[PreviewedRequest] = field(default_factory=list)
    paid_again: bool = False
    conversation: str | None = None


class Preview:
    """Looks at rows, which come in input order.

    Args:
        flow: What is done with a row.
        own: The job's journal, if there is one.
        others: Journals of other jobs whose answers may be used.
        final: The states in which a request of the own journal is not sent again.
        dedupe: Equal rows share their requests.
        again: Requests that are sent again though they have an answer.
        stand_ins: Return the answers that stand for those of expected length, and for the longest ones.
    """

    def __init__(
        self,
        flow: JobFlow,
        own: JournalReader | None,
        others: Sequence[JournalReader] = (),
        *,
        final: Collection[State],
        dedupe: bool,
        again: Container[int] = (),
        stand_ins: tuple[StandIn, StandIn] = (expected(lambda bound: 0), longest(lambda bound: 0)),
    ) -> None:
        self._flow = flow
        self._own = own
        self._final = final
        self._dedupe = dedupe
        self._again = again
        self._expected, self._longest = stand_ins
        self._finished = FinishedRequests(own, final, others, dedupe=dedupe)
        self._histories: dict[str, History] = {}
        self._kept = kept_in(own)

    def look(self, page: Sequence[Row]) -> list[PreviewedRow]:
        """Looks at a page of rows."""
        if self._flow.conversation is None:
            found = [(PreviewedRow(row), begun(self._flow.start(row), self._kept)) for row in page]
            keys = [flow.asks[0].identity for _, flow in found if not flow.ended]
            known = iter(self._finished.look_up(keys))
            for previewed, flow in found:
                self._look(previewed, flow, _NOBODY if flow.ended else next(known), None)
            return [previewed for previewed, _ in found]
        return [self._turn(row) for row in page]

    def look_at(self, row: Row, root_id: int) -> PreviewedRow:
        """Looks at one row, which is no turn of a conversation, by its first request in the own journal."""
        previewed = PreviewedRow(row)
        flow = begun(self._flow.start(row), self._kept)
        self._look(previewed, flow, KnownRequest(duplicate=False, state=None, request_id=root_id), None)
        return previewed

    def _turn(self, row: Row) -> PreviewedRow:
        assert self._flow.conversation is not None, "only called for conversations"
        previewed, flow = PreviewedRow(row), begun(self._flow.start(row), self._kept)
        name = previewed.conversation = conversation_of(row, self._flow.conversation)
        history = None
        if name is not None:
            history = self._histories.setdefault(name, History())
            flow.give(history)
        known = _NOBODY
        if not flow.ended:
            (known,) = self._finished.look_up([flow.asks[0].identity])
        self._look(previewed, flow, known, history)
        return previewed

    def _look(
        self, previewed: PreviewedRow, flow: OpenFlow, known: KnownRequest, history: History | None
    ) -> None:
        previewed.unsent = flow.unsent
        previewed.duplicate = known.duplicate
        if flow.ended:
            return
        if self._flow.single and history is None and known.request_id not in self._again:
            previewed.state = known.state
        if (known.duplicate and self._dedupe) or previewed.state is not None:
            return
        journal, request_id, final = self._own, known.request_id, self._final
        if known.other is not None:
            (journal, request_id), final = known.other, (State.ANSWERED,)
        records: list[RequestRecord] = []
        if request_id is not None and journal is not None:
            records = journal.flow_requests(request_id)
        by_key = {record.key: record for record in records}
        identity = flow.asks[0].identity
        previewed.paid_again = known.request_id is None and not self._may_adopt(flow.asks[0])

        def answer(ask: Ask, first: bool) -> Answer | None:
            record = None
            if first:
                record = next((each for each in records if each.request_id == request_id), None)
            elif request_id is not None:
                record = by_key.get(later_key(request_id, ask))
                previewed.paid_again |= record is None and any(
                    each.path == ask.path and each.state is State.ANSWERED for each in records
                )
            is_again = known.other is None and record is not None and record.request_id in self._again
            if record is None or record.state not in final or is_again:
                return None
            if record.state not in ENDED:
                previewed.state = record.state  # it is in a batch
                return Answer(response_id=STAND_IN)
            found = read_outcome(record, ask.reader)
            # Answers of other jobs that this one reads as failures are ignored.
            return None if known.other is not None and found.error is not None else found

        asked = list(missing(flow, self._expected, answer, kept=self._kept))
        previewed.requests = [PreviewedRequest(ask.path, request) for ask, request in asked]
        previewed.longest = previewed.requests
        if any(ask.again or ask.path for ask, _ in asked):  # longer answers may make other requests
            again = begun(self._flow.start(previewed.row), self._kept)
            wanted = missing(again, self._longest, answer, history, self._kept)
            previewed.longest = [PreviewedRequest(ask.path, request) for ask, request in wanted]
        if previewed.state is None and not previewed.requests and flow.result is not None:
            previewed.state = State.FAILED if flow.result.error is not None else State.ANSWERED
        previewed.unsent = previewed.unsent or (flow.unsent if not previewed.requests else None)
        if history is not None:
            self._said(history, previewed, identity, flow.result)

    def _said(self, history: History, previewed: PreviewedRow, key: bytes, answer: Answer | None) -> None:
        """Adds a turn to the history, or notes that the keys of later turns are not known."""
        answered = answer is not None and answer.error is None and not previewed.requests
        if answered and answer is not None and answer.response_id != STAND_IN:
            said(history, self._flow.builder, previewed.row, key, answer)
        elif not isinstance(previewed.unsent, Skipped):
            history.key = b"not known"

    def _may_adopt(self, ask: Ask) -> bool:
        """Whether an earlier job has asked the same, in a row that read something else later."""
        query = "SELECT 1 FROM request WHERE key = ?1 OR body_key = ?1 LIMIT 1"
        return self._own is not None and bool(self._own.select(query, ask.body_key or ask.identity))
