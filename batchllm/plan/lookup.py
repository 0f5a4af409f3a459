"""Finds in the journal what flows ask, gives them the answers that are there, and makes work items of the rest."""

import asyncio
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from batchllm.answer import Reader
from batchllm.errors import UsageError
from batchllm.flows import After, Ask, History, JobFlow, Kept, Unsent, later_key
from batchllm.journal import Journal, LaterRequest, LaterState, RequestRecord, State, is_better
from batchllm.journal.admission import Item
from batchllm.plan.replay import read_outcome
from batchllm.plan.row_flow import RowFlow
from batchllm.plan.work_item import RowEnd, WorkItem
from batchllm.records import Answer, Response
from batchllm.retry import Disposition, Verdict, classify, may_be_setting

T = TypeVar("T")


class Lookup:
    """Looks up the requests of flows.

    Args:
        flow: What is done with a row.
        journal: The journal.
        since: In batch mode, the session's first attempt; what was given up since then is not sent again.
        accept_change: A flow may ask something else where it was answered.

    Attributes:
        unsent: Rows that are not sent, to be recorded by the next ``admit``: the row, and why.
    """

    def __init__(self, flow: JobFlow, journal: Journal, *, since: int | None, accept_change: bool) -> None:
        self._journal = journal
        self._open_rows = not flow.single
        self._since = since
        self._accept_change = accept_change
        self._has_worked = False
        self.unsent: list[tuple[int, str]] = []

    def provide(self, flow: RowFlow, history: Callable[[RowFlow], History]) -> None:
        """Gives a flow the kept values and the history that it waits for."""
        while (wanted := flow.waits_for) is not None:
            if isinstance(wanted, After):
                assert flow.steps == 0, "a turn waits for its history before it asks"
                flow.give(history(flow))
                continue
            value = self._journal.reader().kept(wanted.key)
            flow.give(self._keep(wanted, wanted.value()) if value is None else value)

    async def provide_beside(self, flow: RowFlow) -> None:
        """Gives a flow the kept values that it waits for; what has to be computed is computed in a thread."""
        while isinstance(wanted := flow.waits_for, Kept):
            value = self._journal.reader().kept(wanted.key)
            flow.give(self._keep(wanted, await beside(wanted.value)) if value is None else value)

    async def compute(self, values: Generator[Kept, bytes, None]) -> None:
        """Computes kept values in a thread, which remember what they are; those in the journal are left alone."""
        with suppress(StopIteration, Unsent):  # the flow finds out by itself
            wanted = next(values)
            while True:
                value = self._journal.reader().kept(wanted.key)
                computed = await beside(wanted.value) if value is None else value
                wanted = values.throw(computed) if isinstance(computed, Unsent) else values.send(computed)

    def _keep(self, wanted: Kept, computed: bytes | Unsent) -> bytes | Unsent:
        if isinstance(computed, bytes):
            self._journal.keep(wanted.key, computed)
        return computed

    async def admit(self, flows: Sequence[RowFlow]) -> None:
        """Records the first requests of flows, and the rows that are not sent."""
        items: list[Item] = [(flow.row.index, flow.asks[0].identity, None) for flow in flows]
        items += [(row_index, None, reason) for row_index, reason in self.unsent]
        body_keys = {
            flow.asks[0].identity: body for flow in flows if (body := flow.asks[0].body_key) is not None
        }
        self.unsent = []
        admitted = await self._journal.admit(items, open_rows=self._open_rows, body_keys=body_keys)
        for flow, root in zip(flows, admitted, strict=False):
            flow.root = root

    async def answer(self, flows: Sequence[RowFlow]) -> tuple[list[WorkItem], list[RowFlow]]:
        """Gives flows the answers that the journal has.

        Returns:
            The requests that have none, and the flows that have gone on or ended.

        Raises:
            UsageError: A flow asks something else than what it was answered before.
        """
        states = await self._states(flows)
        replied = [
            state.request_id
            for state in states
            if (state.state is not State.OPEN or state.attempt_id is not None) and self._has_reply(state)
        ]
        records = self._journal.reader().requests(replied) if replied else {}
        items: list[WorkItem] = []
        moved: list[RowFlow] = []
        at = 0
        for flow in flows:
            asks = flow.asks
            own = states[at : at + len(asks)]
            at += len(asks)
            missed = []
            for number, (ask, state) in enumerate(zip(asks, own, strict=True)):
                record = records.get(state.request_id)
                answer = None if record is None else self._answer(ask, record)
                if answer is not None:
                    flow.newest = max(flow.newest, state.attempt_id or -1)
                    flow.take(number, answer, given_up=state.state is State.UNANSWERED)
                elif state.state is State.PENDING:
                    flow.held = True
                else:
                    missed.append((number, ask, state))
            try:
                items += [self._item(flow, *each) for each in missed] if missed else ()
            except Unsent as unsent:
                flow.cannot_send(unsent)
            if flow.asks is not asks:
                await self.provide_beside(flow)
                moved.append(flow)
        return items, moved

    async def _states(self, flows: Sequence[RowFlow]) -> list[LaterState]:
        """Returns what the journal knows of everything that flows ask, in order."""
        states: list[LaterState] = []
        later: list[LaterRequest] = []
        for flow in flows:
            root = flow.root
            assert root is not None and root.request_id is not None and root.state is not None, (
                "it is admitted"
            )
            may_differ = self._accept_change or self._journal.is_asked_again(root.request_id)
            for number, ask in enumerate(flow.asks):
                if number == 0 and flow.steps == 1:
                    states.append(LaterState(root.request_id, root.state, root.attempts, root.attempt_id))
                else:
                    key = later_key(root.request_id, ask)
                    later.append(LaterRequest(root.request_id, ask.path, key, ask.identity, may_differ))
                    states.append(_TO_BE_FOUND)
        if later:
            found = iter(await self._journal.later(later))
            states = [next(found) if state is _TO_BE_FOUND else state for state in states]
            self._refuse_change(flows, states)
        return states

    def _refuse_change(self, flows: Sequence[RowFlow], states: Sequence[LaterState]) -> None:
        """Stops the run where flows ask something else than what they were answered.

        Raises:
            UsageError: They do.
        """
        asked = ((flow, ask) for flow in flows for ask in flow.asks)
        different = [each for each, state in zip(asked, states, strict=True) if state.differs]
        if different:
            raise changed([flow.row.index for flow, _ in different], different[0][1].path)

    def _has_reply(self, known: LaterState) -> bool:
        """Whether a request is not sent again, or has an answer that was not read yet."""
        if known.state is State.OPEN:
            return known.attempt_id is not None
        if known.state is State.UNANSWERED and self._since is not None:
            return known.attempt_id is None or known.attempt_id >= self._since
        return known.state in (State.ANSWERED, State.FAILED)

    def _answer(self, ask: Ask, record: RequestRecord) -> Answer | None:
        """Reads the answer to a request; records it if nobody has read it yet. ``None``: it is to be sent again."""
        if record.state is not State.OPEN:
            return read_outcome(record, ask.reader)
        assert record.status is not None, "an answer that was not read has a status"
        verdict = classify(Response(record.status, {}, record.body, 0.0))
        usable = verdict.disposition is Disposition.ANSWERED
        if not usable and not (verdict.disposition is Disposition.REJECTED and self._is_rows_own(verdict)):
            return None
        answer = ask.reader.read(record.status, record.body)
        self._has_worked |= usable
        end = State.ANSWERED if usable and answer.error is None else State.FAILED
        self._journal.record_outcome(record.request_id, end, record.attempt_id, record.attempts)
        before = self._before(record.request_id, ask.reader)
        return answer if before is None or is_better(end, before[1]) else before[0]

    def _before(self, request_id: int, reader: Reader) -> RowEnd | None:
        """Returns the answer that a request keeps unless a better one comes, and its state; ``None``: it has none."""
        kept = self._journal.kept_answer(request_id)
        if kept is None:
            return None
        response = self._journal.reader().response_of(kept.attempt_id)
        return reader.read(response.status, response.body), kept.state

    def _is_rows_own(self, verdict: Verdict) -> bool:
        """Whether a row was rejected for its own content; before any success, a setting may be wrong."""
        if not self._has_worked:
            self._has_worked = bool(self._journal.reader().count_answered())
        return self._has_worked or not may_be_setting(verdict)

    def _item(self, flow: RowFlow, number: int, ask: Ask, state: LaterState) -> WorkItem:
        assert flow.root is not None, "it is admitted"
        later = flow.steps > 1 or number > 0
        return WorkItem(
            ask.built(),
            state.request_id,
            ask.reader,
            state.attempts,
            ordinal=0 if later else flow.root.ordinal or 0,
            flow=flow,
            number=number,
            path=ask.path,
            later=later,
            begun=flow.answered,
            before=self._before(state.request_id, ask.reader),
        )


async def beside(compute: Callable[[], T]) -> T:
    """Computes something in a thread; a run that stops does not wait for it, nor does the process that ends."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(set_to: Callable[[Any], None], value: Any) -> None:
        if not future.done():
            set_to(value)

    def work() -> None:
        try:
            found = partial(settle, future.set_result, compute())
        except BaseException as error:  # noqa: BLE001 - raised where it is awaited
            found = partial(settle, future.set_exception, error)
        with suppress(RuntimeError):  # the loop is closed: nobody waits for it
            loop.call_soon_threadsafe(found)

    threading.Thread(target=work, name="beside", daemon=True).start()
    return await future


_TO_BE_FOUND = LaterState(0, State.OPEN, 0, None)


def changed(row_indices: Sequence[int], path: str) -> UsageError:
    """Returns the error of flows that ask something else than what they were answered before."""
    rows = f"row {row_indices[0] + 1}"
    if len(set(row_indices)) > 1:
        rows += f" and {len(set(row_indices)) - 1:,} more"
    what = f"at {path}" if path else "in its first request"
    return UsageError(
        f"{rows}: {what}, what is asked differs from what was asked and answered before, though job and input are the "
        "same; it would be paid again. Use the version of batchllm that began the job (a flow must not depend on "
        "clock, chance or the order of a set), or agree with --accept-change"
    )
