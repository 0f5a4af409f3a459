"""The order of turns: rows that share a value are one conversation, and a turn waits for the turn before it.

A turn that waits is outside the limiter, while turns of other conversations are sent.

- A turn without an answer breaks its conversation for this run: the later turns get a note that they were not sent.
  The next run tries them again.
- Memory: at most ``MOST_WAITING`` rows wait; then no more input is read until a turn is finished. A conversation is
  kept, with its history, from its first turn to its last. The turns of each are counted before the first one is sent.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from batchllm.flows import History
from batchllm.flows.conversation import conversation_of, said
from batchllm.plan.row_flow import RowFlow
from batchllm.records import Answer, Row
from batchllm.request import RequestBuilder

MOST_WAITING = 8_192
"""The most rows that wait for the turn before them."""


@dataclass(slots=True, eq=False)
class Conversation:
    """The state of one conversation.

    Attributes:
        name: The value that its rows share.
        left: Its unfinished rows, those not read yet included.
        history: The finished turns.
        unread: Turns that were answered before this run, with their keys; they are not in ``history`` yet.
        waiting: Later turns.
        busy: A turn is under way.
        held: A turn waits for a batch, so no later one is sent in this pass.
    """

    name: str
    left: int
    history: History = field(default_factory=History)
    unread: list[tuple[Row, bytes]] = field(default_factory=list)
    waiting: deque[RowFlow] = field(default_factory=deque)
    busy: bool = False
    held: bool = False


class Conversations:
    """The conversations of one pass.

    Args:
        column: The column whose equal values make rows one conversation; ``None``: there are none.
        turns: ``JobFlow.turns``.
        builder: Makes a turn's messages.
        answer_of: Returns the answer of a row from the journal; ``None`` if it has none.

    Attributes:
        waiting: Turns that wait.
        due: Turns whose time has come.
    """

    def __init__(
        self,
        column: str | None,
        turns: Mapping[int, int],
        builder: RequestBuilder,
        answer_of: Callable[[Row], Answer | None],
    ) -> None:
        self._column = column
        self._turns = turns
        self._builder = builder
        self._answer_of = answer_of
        self._open: dict[str, Conversation] = {}
        self.waiting = 0
        self.due: deque[RowFlow] = deque()

    def join(self, flow: RowFlow) -> bool:
        """Adds a row to its conversation; returns whether it may begin, and otherwise puts it on the waiting list."""
        name = None if self._column is None else conversation_of(flow.row, self._column)
        if name is None:
            return True
        conversation = self._open.get(name)
        if conversation is None:
            conversation = self._open[name] = Conversation(name, self._turns.get(hash(name), 1))
        flow.conversation = conversation
        if conversation.held:
            self._leave(conversation)
            return False
        if conversation.busy:
            conversation.waiting.append(flow)
            self.waiting += 1
            return False
        conversation.busy = True
        return True

    def history(self, flow: RowFlow) -> History:
        """Returns the history of a turn; what earlier runs said is read from the journal."""
        conversation = flow.conversation
        assert conversation is not None, "a turn belongs to a conversation"
        history = conversation.history
        for row, key in conversation.unread:
            if history.broken_by is None:
                answer = self._answer_of(row)
                if answer is None:
                    history.broken_by = row.index + 1
                else:
                    said(history, self._builder, row, key, answer)
        conversation.unread.clear()
        return history

    def finished(self, flow: RowFlow, usable: bool | None, answer: Answer | None = None) -> None:
        """Makes the next turn due.

        Args:
            flow: The turn.
            usable: It has an answer; ``None``: its text was empty, so it is no turn.
            answer: Its answer; ``None``: it is in the journal.
        """
        conversation = flow.conversation
        if conversation is None:
            return
        history = conversation.history
        if usable and answer is None:
            conversation.unread.append((flow.row, flow.key))
        elif usable and answer is not None and conversation.left > 1:
            said(history, self._builder, flow.row, flow.key, answer)
        elif usable is False and history.broken_by is None:
            history.broken_by = flow.row.index + 1
        conversation.busy = bool(conversation.waiting)
        if conversation.waiting:
            self.waiting -= 1
            self.due.append(conversation.waiting.popleft())
        self._leave(conversation)

    def hold(self, flow: RowFlow) -> int:
        """Leaves a turn, and those behind it, to a later pass; returns how many were waiting behind it."""
        conversation = flow.conversation
        if conversation is None:
            return 0
        conversation.held = True
        behind = len(conversation.waiting)
        self.waiting -= behind
        conversation.waiting.clear()
        for _ in range(behind + 1):
            self._leave(conversation)
        return behind

    def _leave(self, conversation: Conversation) -> None:
        conversation.left -= 1
        if conversation.left <= 0:
            self._open.pop(conversation.name, None)
