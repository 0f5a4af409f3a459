"""Conversations: rows that share a value are sent in order, each with the earlier turns and their answers.

A turn can be built only when the turn before it has its answer. Until then its row waits here, outside the limiter,
while turns of other conversations are sent.

- A turn without an answer breaks its conversation for this run: the later turns get a note that they were not sent.
  The next run tries them again.
- The key of a turn is the hash of its request and its conversation. With the request alone, conversations that begin
  alike (``Hello``) would share answers by their order in the file, and a conversation inserted before them would
  change the history of every later one.
- Memory: at most ``MOST_WAITING`` rows wait; then no more input is read until a turn is finished. A conversation is
  kept, with its history, from its first turn to its last. The turns of each are counted before the first one is sent.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from typing import Any

from batchllm.counters import RunCounters
from batchllm.journal import AdmittedRow, FinishedRows, Journal, JournalReader, State
from batchllm.plan.finished import BROKEN, final_states
from batchllm.plan.outcomes import answer_of
from batchllm.plan.plan import BATCH, FIRST_BATCH, Plan
from batchllm.plan.reask import ReaskPolicy
from batchllm.plan.reuse import Reuse
from batchllm.plan.work_item import WorkItem
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.records import Answer, ChatRequest, Row
from batchllm.request import RequestBuilder, Skipped, Unsendable
from batchllm.template import to_json

Messages = list[Mapping[str, Any]]

MOST_WAITING = 8_192
"""The most rows that wait for the turn before them."""


@dataclass(slots=True, eq=False)
class Conversation:
    """The state of one conversation.

    Attributes:
        name: The value that its rows share.
        left: Its unfinished rows, those not read yet included.
        history: Messages of the finished turns, and their answers.
        unread: Rows that were answered before this run; their messages are not in ``history`` yet.
        waiting: Later turns.
        busy: A turn is under way.
        broken_by: The row, from 1, that has no answer.
    """

    name: str
    left: int
    history: Messages = field(default_factory=list)
    unread: list[Row] = field(default_factory=list)
    waiting: "deque[Turn]" = field(default_factory=deque)
    busy: bool = False
    broken_by: int | None = None


@dataclass(slots=True, eq=False)
class Turn:
    """A row, its conversation (``None`` if it stands alone), and what the journal knows of it."""

    row: Row
    known: AdmittedRow | None
    conversation: Conversation | None
    asked: Messages = field(default_factory=list)


class ConversationPlan(Plan):
    """One pass over rows that are turns of conversations; see ``Plan`` for the other arguments.

    Args:
        column: Rows with equal values in it are one conversation; a row without a value stands alone.
        all_rows: The rows again, to count turns.
    """

    def __init__(self, *args: Any, column: str, all_rows: Iterable[Row], **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._column = column
        turns = Counter(hash(conversation_of(row, column)) for row in all_rows)
        self._turns = {name: count for name, count in turns.items() if count > 1}
        self._open: dict[str, Conversation] = {}
        self._due: deque[Turn] = deque()
        self._waiting = 0
        self._now: dict[int, Turn] = {}
        self._under_way_turns: dict[int, Turn] = {}
        self._changed = asyncio.Event()

    async def batches(self) -> AsyncIterator[Sequence[WorkItem]]:
        """Yields work items; turns that have become due come before further rows."""
        rows = iter(self._wanted())
        size, more = FIRST_BATCH, True
        while more or self._due or self._waiting or self._deferred:
            turns = [self._due.popleft() for _ in range(min(len(self._due), BATCH))]
            if not turns and more and self._waiting < MOST_WAITING:
                batch = list(islice(rows, size))
                size, more = BATCH, bool(batch)
                turns = [turn for turn in map(self._read, batch) if self._may_start(turn)]
            elif not turns and self._deferred:
                yield self._take_deferred()
            elif not turns:
                self._changed.clear()
                await self._changed.wait()
            if turns:
                self._now = {turn.row.index: turn for turn in turns}
                items = await self._items([turn.row for turn in turns])
                for item in items:
                    self._under_way_turns[item.request_id] = self._now[item.request.row_index]
                items = self._defer_tried(await self._unpaid(items))
                if items:
                    yield items

    def settled(self, item: WorkItem, answer: Answer, state: State) -> None:
        """Adds a turn and its answer to the history, and makes the next turn due."""
        super().settled(item, answer, state)
        turn = self._under_way_turns.pop(item.request_id)
        if turn.conversation is None:
            return
        if state is State.ANSWERED:
            turn.conversation.history += [*turn.asked, answer_message(answer)]
        else:
            turn.conversation.broken_by = turn.row.index + 1
        self._next_turn(turn.conversation)

    def _read(self, row: Row) -> Turn:
        name = conversation_of(row, self._column)
        known = super()._look_up(row.index)
        if name is None:
            return Turn(row, known, None)
        conversation = self._open.get(name)
        if conversation is None:
            conversation = self._open[name] = Conversation(name, self._turns.get(hash(name), 1))
        return Turn(row, known, conversation)

    def _may_start(self, turn: Turn) -> bool:
        """Whether a turn is due; otherwise it is put on its conversation's waiting list."""
        conversation = turn.conversation
        if conversation is None:
            return True
        if conversation.busy:
            conversation.waiting.append(turn)
            self._waiting += 1
            return False
        conversation.busy = True
        return True

    def _next_turn(self, conversation: Conversation) -> None:
        conversation.left -= 1
        conversation.busy = bool(conversation.waiting)
        if conversation.waiting:
            self._waiting -= 1
            self._due.append(conversation.waiting.popleft())
        elif conversation.left <= 0:
            del self._open[conversation.name]
        self._changed.set()

    def _look_up(self, row_index: int) -> AdmittedRow | None:
        return self._now[row_index].known

    def _build(self, row: Row) -> ChatRequest | Skipped | Unsendable:
        conversation = self._now[row.index].conversation
        if conversation is not None and conversation.unread:
            self._recall(conversation)
        return super()._build(row)

    def _request(self, row: Row) -> ChatRequest | Skipped | Unsendable:
        turn = self._now[row.index]
        conversation = turn.conversation
        if conversation is None:
            return self._builder.build(row)
        built = turn_request(self._builder, row, conversation.name, conversation.history)
        if conversation.broken_by is not None and not isinstance(built, Skipped):
            return Unsendable(row.index, broken(conversation.broken_by), BROKEN)
        if isinstance(built, ChatRequest) and conversation.left > 1:
            turn.asked = list(self._builder.turn(row))
        return built

    def _recall(self, conversation: Conversation) -> None:
        """Reads the answers of earlier runs from the journal."""
        reader = self._journal.reader()
        for row in conversation.unread:
            said = exchange(self._builder, reader, row)
            if said is None:
                conversation.broken_by = row.index + 1
                break
            conversation.history += said
        conversation.unread.clear()

    def _finished(self, row_index: int, usable: bool | None) -> None:
        turn = self._now[row_index]
        if turn.conversation is None:
            return
        if usable:
            turn.conversation.unread.append(turn.row)
        elif usable is False and turn.conversation.broken_by is None:
            turn.conversation.broken_by = row_index + 1
        self._next_turn(turn.conversation)


def plan_of(
    prepared: PreparedJob,
    journal: Journal,
    *,
    continued: bool,
    counters: RunCounters,
    chosen: "range | frozenset[int] | None",
    reuse: Reuse | None = None,
    reask: ReaskPolicy | None = None,
) -> Plan:
    """Returns the pass over the rows of a job, turn by turn if they are conversations.

    A pass that an earlier run began goes on at the first unfinished row, without reading those before.
    """
    source, job = prepared.source, prepared.job
    passed: list[FinishedRows] = []
    if continued and chosen is None and job.conversation is None:
        passed = journal.reader().finished_rows(
            final_states(job.retry_failed), unsendable=not job.retry_failed
        )
    start = sum(ended.rows for ended in passed)
    settings: dict[str, Any] = {
        "known": journal.planned(start) if continued else iter(()), "counters": counters, "chosen": chosen,
        "retry_failed": job.retry_failed, "reuse": reuse, "reask": reask, "passed": passed, "dedupe": job.dedupe,
    }  # fmt: skip
    if job.conversation is None:
        return Plan(source.rows(start), prepared.builder, journal, **settings)
    return ConversationPlan(
        source.rows(), prepared.builder, journal, column=job.conversation, all_rows=source.rows(), **settings
    )


def conversation_of(row: Row, column: str) -> str | None:
    """Returns the conversation of a row; ``None`` if its cell is empty, so that it stands alone."""
    value = row.values.get(column)
    name = value if isinstance(value, str) else "" if value is None else to_json(value)
    return name if name.strip() else None


def turn_request(
    builder: RequestBuilder, row: Row, name: str, history: Messages
) -> ChatRequest | Skipped | Unsendable:
    """Builds the request of a turn with its history; the conversation is part of its key."""
    built = builder.build(row, history)
    if isinstance(built, ChatRequest):
        return built._replace(key=sha256(built.key + name.encode("utf-8", "backslashreplace")).digest()[:16])
    return built


def answer_message(answer: Answer) -> dict[str, Any]:
    """Returns an answer as a message for the later turns: its visible text and its tool calls."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.text}
    if answer.tool_calls:
        message |= {"content": answer.text or None, "tool_calls": answer.tool_calls}
    return message


def exchange(builder: RequestBuilder, reader: JournalReader, row: Row) -> Messages | None:
    """Returns a row's messages and its answer from the journal; ``None`` if it has no answer."""
    entry = next(reader.outcomes(row.index), None)
    if entry is None or entry.row_index != row.index or entry.state is not State.ANSWERED:
        return None
    answer = answer_of(entry, builder.reader(row))
    if answer is None or not isinstance(builder.build(row), ChatRequest):
        return None
    return [*builder.turn(row), answer_message(answer)]


def rebuilt(
    builder: RequestBuilder, reader: JournalReader, rows: Callable[[], Iterable[Row]], column: str, row: Row
) -> ChatRequest | Skipped | Unsendable:
    """Rebuilds the request of a turn from the input and the answers in the journal.

    Args:
        builder: Makes the requests.
        reader: The journal.
        rows: Reads the input from its beginning.
        column: The column of the conversations.
        row: The turn.
    """
    name = conversation_of(row, column)
    if name is None:
        return builder.build(row)
    history: Messages = []
    for earlier in rows():
        if earlier.index == row.index:
            break
        if conversation_of(earlier, column) != name or isinstance(builder.build(earlier), Skipped):
            continue
        said = exchange(builder, reader, earlier)
        if said is None:
            return Unsendable(row.index, broken(earlier.index + 1), BROKEN)
        history += said
    return turn_request(builder, row, name, history)


def broken(number: int) -> str:
    """Returns why a turn is not sent, with the row, from 1, that broke its conversation."""
    return f"not sent: row {number}, an earlier turn of its conversation, has no answer"
