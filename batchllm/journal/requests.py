"""Requests by themselves, with the checks of their chain: those of flows, and those that other jobs may use."""

# ruff: noqa: S608 - the SQL is put together from constants of this package

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from batchllm.journal.bulk import BulkQuery
from batchllm.journal.records import STATES, State
from batchllm.journal.replies import REPLY, read_response, read_stored
from batchllm.journal.sqlite_errors import damaged, report_damage
from batchllm.records import Response


class LaterRequest(NamedTuple):
    """A later request of a flow that is to be sent.

    Attributes:
        root_id: The flow's first request.
        path: Its path in the flow.
        key: The hash of both and of what it asks.
        identity: What it asks, of which the key is made; kept, so that the request is found again in a journal that
            is rebuilt and numbers its requests otherwise.
        may_differ: It may differ from what the flow was answered at its path.
    """

    root_id: int
    path: str
    key: bytes
    identity: bytes = b""
    may_differ: bool = False


class LaterState(NamedTuple):
    """What the journal knows of a later request.

    Attributes:
        request_id: Its number.
        state: How far it is; ``OPEN`` for a new one.
        attempts: Attempts so far, of all runs.
        attempt_id: The attempt whose reply is its outcome.
        differs: It is not recorded, because the flow was answered something else at this path.
    """

    request_id: int
    state: State
    attempts: int
    attempt_id: int | None
    differs: bool = False


class RequestRecord(NamedTuple):
    """A request and its outcome; see ``RowRecord`` for the fields of the reply.

    Attributes:
        request_id: Its number.
        key: What identifies it.
        path: Its path in its flow; ``None`` for a first request.
        state: How far it is.
        attempts: Attempts so far, of all runs.
    """

    request_id: int
    key: bytes
    path: str | None
    state: State
    attempts: int
    status: int | None = None
    body: bytes = b""
    failure: str | None = None
    message: str | None = None
    latency_s: float | None = None
    attempt_id: int | None = None


class StoredAnswer(NamedTuple):
    """An answer of another job's journal.

    Attributes:
        received_at: When it was saved, in seconds since the epoch.
        response: The answer.
        request_id: The request, in the other journal.
    """

    received_at: float
    response: Response
    request_id: int = 0


_REQUESTS = f"""
SELECT request.request_id, request.key, request.path, request.state, request.attempts, request.valid,
       request.attempt_id, {REPLY}
FROM request LEFT JOIN reply ON reply.attempt_id = request.attempt_id
"""
FLOW_REQUESTS = f"{_REQUESTS} WHERE request.request_id = ?1 UNION ALL {_REQUESTS} WHERE request.root_id = ?1"
REQUESTS = BulkQuery(
    "request_id", f"{_REQUESTS.replace('FROM request', 'FROM wanted CROSS JOIN request USING (request_id)')}"
)

ANSWERS = BulkQuery(
    "key, ordinal",
    "SELECT wanted.key, request.key, wanted.ordinal, request.valid, request.request_id, request.attempt_id,"
    f" {REPLY} FROM wanted"
    " CROSS JOIN request ON request.request_id"
    " = (SELECT request_id FROM request WHERE key = wanted.key AND ordinal = wanted.ordinal)"
    " LEFT JOIN reply ON reply.attempt_id = request.attempt_id WHERE request.state = 1",
)


@report_damage
def read_request(path: Path, fields: Sequence[Any]) -> RequestRecord:
    """Reads a row of ``REQUESTS`` or ``FLOW_REQUESTS``."""
    request_id, key, request_path, state, attempts, valid, attempt_id, *reply = fields
    if valid != 1:
        raise damaged(path, f"request {request_id} does not match its checksum")
    if attempt_id is None or state == State.PENDING:
        if state == State.ANSWERED:
            raise damaged(path, f"the answer to request {request_id} is missing")
        return RequestRecord(request_id, key, request_path, STATES[state], attempts)
    _, latency_s, status, failure, message, _, _, body = read_stored(path, attempt_id, reply)
    return RequestRecord(
        request_id, key, request_path, STATES[state], attempts, status, body, failure, message, latency_s, attempt_id,
    )  # fmt: skip


@report_damage
def read_answer(path: Path, fields: Sequence[Any]) -> tuple[tuple[bytes, int], StoredAnswer]:
    """Reads a row of ``ANSWERS``: which request, and its answer."""
    wanted, key, ordinal, valid, request_id, attempt_id, *reply = fields
    if wanted != key or valid != 1 or attempt_id is None:
        raise damaged(path, "a request does not match its checksum")
    return (key, ordinal), StoredAnswer(reply[0], read_response(path, attempt_id, reply), request_id)
