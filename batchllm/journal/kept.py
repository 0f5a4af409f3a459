"""The answers that rows keep while requests of theirs are asked again: each stays unless a better one comes.

A request that is asked again is open, as any other that is to be sent. What it had is noted in the journal with the
same commit, so it is known however the run ends. A run that begins or ends gives back the answers of requests to which
nothing came.
"""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from batchllm.journal import bulk
from batchllm.journal.bulk import MISSING, BulkRow, meta_row
from batchllm.journal.records import STATES, State

KEPT_ANSWERS = "kept_answers"
"""The journal's key for what is asked again though it has an answer."""

_REQUESTS = (
    "SELECT request_id, state, attempt_id FROM request WHERE request_id IN (SELECT value FROM json_each(?))"
)
_ROWS = (
    "SELECT row_index, request_id FROM row WHERE row_index IN (SELECT value FROM json_each(?))"
    " AND (state IS NULL OR state = 0)"
)
_UNDECIDED = """
SELECT attempt.request_id, max(attempt.attempt_id) FROM attempt
LEFT JOIN reply ON reply.attempt_id = attempt.attempt_id
WHERE attempt.request_id IN (SELECT value FROM json_each(?))
AND (reply.attempt_id IS NULL OR reply.status BETWEEN 200 AND 299) GROUP BY 1
"""


class KeptAnswer(NamedTuple):
    """What a request had before it was asked again.

    Attributes:
        state: ``ANSWERED`` or ``FAILED``.
        attempt_id: The attempt that brought its answer.
    """

    state: State
    attempt_id: int


class AskedAgain(NamedTuple):
    """A flow of which requests are asked again though they have an answer.

    Attributes:
        root_id: Its first request.
        rows: The rows that it is the flow of.
        row_state: The state that these have of their own; ``None``: that of their only request.
        answers: The answers to its requests, by the requests' numbers.
        reopened: Requests, those of ``answers`` among them, that an earlier attempt to ask again left behind, each with
            the attempt of the answer that is read instead of sending anything; ``None``: it is sent.
        since: The first attempt after it was asked again.
    """

    root_id: int
    rows: tuple[int, ...]
    row_state: State | None
    answers: Mapping[int, KeptAnswer]
    reopened: Mapping[int, int | None] = {}
    since: int = 0

    @property
    def was_answered(self) -> bool:
        """Whether its rows had a usable answer."""
        if self.row_state is not None:
            return self.row_state is State.ANSWERED
        return all(answer.state is State.ANSWERED for answer in self.answers.values())


def is_better(state: State, kept: State) -> bool:
    """Whether an outcome takes the place of an answer that is kept."""
    return state is State.ANSWERED or (state is State.FAILED and kept is State.FAILED)


class KeptAnswers:
    """What is asked again though it has an answer.

    Args:
        noted: What an earlier run noted under ``KEPT_ANSWERS``, as JSON.
    """

    def __init__(self, noted: str | None) -> None:
        self._noted = noted or "[]"
        self._flows: dict[int, AskedAgain] = {}
        self._answers: dict[int, KeptAnswer] = {}
        for flow in json.loads(self._noted):
            self.add(_restored(*flow))

    def add(self, asked: AskedAgain) -> None:
        """Adds a flow; what it keeps already, it goes on keeping."""
        known = self._flows.get(asked.root_id)
        if known is not None:
            rows = tuple(dict.fromkeys((*known.rows, *asked.rows)))
            asked = known._replace(rows=rows, answers={**asked.answers, **known.answers})
        self._flows[asked.root_id] = asked
        self._answers.update(asked.answers)

    def of_request(self, request_id: int) -> KeptAnswer | None:
        """Returns what a request keeps; ``None`` if it is not asked again."""
        return self._answers.get(request_id)

    def of_flow(self, root_id: int) -> AskedAgain | None:
        """Returns the flow of a first request; ``None`` if nothing of it is asked again."""
        return self._flows.get(root_id)

    def better(self, request_id: int, state: State, attempt_id: int | None) -> tuple[State, int | None]:
        """Returns state and attempt of a new outcome, or of the kept answer where that is better."""
        kept = self._answers.get(request_id)
        if kept is None or state is State.OPEN or is_better(state, kept.state):
            return state, attempt_id
        return kept

    def remove(self, root_id: int) -> None:
        """Forgets a flow."""
        for request_id in self._flows.pop(root_id).answers:
            del self._answers[request_id]

    def settle(self, connection: sqlite3.Connection) -> list[BulkRow]:
        """Forgets the flows that have ended, and returns what gives back the answers of requests to which nothing came.

        A request that is in a batch or in flight, or whose answer is not recorded yet, is left as it is.
        """
        return [*self._settled(connection), *self.note()]

    def _settled(self, connection: sqlite3.Connection) -> list[BulkRow]:
        if not self._flows:
            return []
        ids = json.dumps(list(self._answers))
        now = {number: rest for number, *rest in connection.execute(_REQUESTS, (ids,))}
        undecided = dict(connection.execute(_UNDECIDED, (ids,)))
        indexes = json.dumps([index for flow in self._flows.values() for index in flow.rows])
        open_rows = dict(connection.execute(_ROWS, (indexes,)))
        rows: list[BulkRow] = []
        for flow in list(self._flows.values()):
            waits = is_new = False
            for request_id, kept in flow.answers.items():
                state, attempt_id = now[request_id]
                is_open = state == State.OPEN
                has_reply = attempt_id not in (None, kept.attempt_id)
                if state == State.PENDING or (
                    is_open and (has_reply or undecided.get(request_id, 0) >= flow.since)
                ):
                    waits = True
                elif is_open:
                    rows.append(opened(request_id, *kept))
                else:
                    is_new |= attempt_id != kept.attempt_id
            left = [index for index in flow.rows if open_rows.get(index) == flow.root_id]
            if waits or (is_new and left and flow.row_state is not None):
                continue
            if not is_new:
                state = MISSING if flow.row_state is None else int(flow.row_state)
                rows += [(bulk.ROW_STATE, index, state) for index in left]
            self.remove(flow.root_id)
        return rows

    def note(self) -> list[BulkRow]:
        """Returns the row that notes what is kept, where that has changed."""
        text = json.dumps([_plain(flow) for flow in self._flows.values()])
        if text == self._noted:
            return []
        self._noted = text
        return [meta_row(KEPT_ANSWERS, text)]


def opened(request_id: int, state: State, attempt_id: int | None) -> BulkRow:
    """The row that gives a request a state and the attempt of its answer."""
    return bulk.STATE, request_id, int(state), MISSING if attempt_id is None else attempt_id


def _plain(flow: AskedAgain) -> list[Any]:
    state = None if flow.row_state is None else int(flow.row_state)
    answers = [[number, int(kept.state), kept.attempt_id] for number, kept in flow.answers.items()]
    return [flow.root_id, flow.rows, state, answers, flow.since]


def _restored(
    root_id: int, rows: Sequence[int], state: int | None, answers: Sequence[Sequence[int]], since: int
) -> AskedAgain:
    kept = {number: KeptAnswer(STATES[state], attempt_id) for number, state, attempt_id in answers}
    return AskedAgain(root_id, tuple(rows), None if state is None else STATES[state], kept, since=since)
