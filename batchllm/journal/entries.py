"""What the journal hands out: frozen values, cheap enough to be made for every row."""

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from batchllm.records import Failure, Response

SKIPPED = "skipped"
"""The note of a row with nothing to send: an empty text cell. Any other note is the row's error."""


class State(IntEnum):
    """How far a request is.

    ``OPEN``: not ended; ``ANSWERED``: final; ``FAILED``: an answer that is a failure, final unless the user asks
    for a retry; ``UNANSWERED``: ended without an answer, sent again by the next run; ``PENDING``: in a batch that
    has not brought its end yet, sent by nobody else.
    """

    OPEN = 0
    ANSWERED = 1
    FAILED = 2
    UNANSWERED = 3
    PENDING = 4


STATES = tuple(State)
"""State by number: three times faster than ``State(number)``."""


class AdmittedRow(NamedTuple):
    """What a row of the input means in the journal.

    Attributes:
        row_index: Position in the input, from 0.
        request_id: The request it shares its answer with; ``None`` for a row that is never sent.
        ordinal: Which of several equal requests it is, from 0.
        state: How far the request is; ``OPEN`` for a new one, ``None`` for a row that is never sent.
        attempts: Attempts so far, of all runs.
        attempt_id: The attempt that ended it.
        unsent_reason: Why the row is never sent: ``"skipped"``, or its error.
        shares_request: A row admitted before it, in this plan, means the same request (with deduplication only).
    """

    row_index: int
    request_id: int | None
    ordinal: int | None
    state: State | None
    attempts: int
    attempt_id: int | None
    unsent_reason: str | None
    shares_request: bool


class RowRecord(NamedTuple):
    """One row of the current plan with what it got.

    Attributes:
        row_index: Position in the input, from 0.
        unsent_reason: Why the row was never sent: ``"skipped"``, or its error; else ``None``.
        state: How far its request is; ``None`` with a note.
        attempts: Attempts so far, of all runs.
        status: HTTP status of the attempt that ended it; ``None`` where no HTTP answer came, or none yet.
        body: Raw body of that answer, or what had arrived of it.
        failure: One word why no HTTP answer came (``timeout``); ``None`` where one did.
        message: The same in one sentence.
        paid: ``"no"`` or ``"maybe"`` beside a failure.
        latency_s: Seconds that the attempt took.
        received_at: When it ended, in seconds since the epoch.
        attempt_id: The attempt that ended it.
    """

    row_index: int
    unsent_reason: str | None
    state: State | None
    attempts: int
    status: int | None
    body: bytes
    failure: str | None
    message: str | None
    paid: str | None
    latency_s: float | None
    received_at: float | None
    attempt_id: int | None


class FinishedRows(NamedTuple):
    """Rows with the same end.

    Attributes:
        state: How their requests ended; ``None`` for rows that are never sent.
        reason: Why those are not: ``"skipped"``, or the first line of their note; else ``None``.
        shares_request: Rows admitted before them mean the same requests.
        rows: How many.
    """

    state: State | None
    reason: str | None
    shares_request: bool
    rows: int


class AttemptRecord(NamedTuple):
    """One attempt of a request, for people who look closely.

    Attributes:
        attempt_id: Its number in the journal.
        run_id: The run that made it.
        sent_at: When its intent was made, in seconds since the epoch; ``None``: the answer was taken from
            another job, nothing was sent.
        body: The bytes sent where they differ from the row's own request, else ``None``.
        received_at: When its outcome was saved; ``None``: in flight, or the run died.
        outcome: What came back; ``None``: nothing was saved.
        paid: ``"no"`` or ``"maybe"`` where no HTTP answer came.
    """

    attempt_id: int
    run_id: int
    sent_at: float | None
    body: bytes | None
    received_at: float | None
    outcome: Response | Failure | None
    paid: str | None


class Orphan(NamedTuple):
    """A request of a dead run that may have been paid without an answer.

    Attributes:
        attempt_id: The attempt without a reply.
        request_id: Its request.
        row_index: The first row that meant it by the plan of the dead run; ``None`` where none does any more.
    """

    attempt_id: int
    request_id: int
    row_index: int | None


class UnreadReply(NamedTuple):
    """A reply that was saved, but whose request a crash left open: the runner reads it and settles.

    Attributes:
        request_id: The open request.
        attempt_id: Its newest attempt with an HTTP answer.
        attempts: Attempts so far, refusals not counted.
        response: What was saved.
    """

    request_id: int
    attempt_id: int
    attempts: int
    response: Response


class StoredAnswer(NamedTuple):
    """An answer of another job's journal.

    Attributes:
        received_at: When it came, in seconds since the epoch.
        response: What came.
    """

    received_at: float
    response: Response


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """One pass over the input.

    Attributes:
        plan_id: Its number, growing.
        continued: The same source and job as the plan before: rows already admitted are known.
        rows: How many rows are known.
    """

    plan_id: int
    continued: bool
    rows: int


@dataclass(frozen=True, slots=True)
class RowCounts:
    """Rows of the current plan by how far they are.

    Attributes:
        rows: Rows that were admitted.
        answered, failed, unanswered, open: By the state of their request.
        skipped: Rows with nothing to send.
        unsendable: Rows with an error that kept them from being sent.
        pending: Rows whose request is in a batch.
    """

    rows: int
    answered: int
    failed: int
    unanswered: int
    open: int
    skipped: int
    unsendable: int
    pending: int = 0
