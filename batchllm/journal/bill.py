"""Reads what a journal knows about the bill: billed attempts, and rows that repeat another request.

It serves figures only, so checksums are not compared; the output is made from ``JournalReader.outcomes``, which
compares them.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from batchllm.journal.bulk import BulkQuery
from batchllm.journal.reader import JournalReader
from batchllm.journal.records import STATES, State

_PAGE = 1024


class BilledAttempt(NamedTuple):
    """An attempt that is billed, or possibly billed.

    Attributes:
        attempt_id: Its number.
        status: HTTP status, a 2xx; ``None`` where no answer came.
        body: The raw answer; where none came, the answer to another attempt of its request, if there is one.
    """

    attempt_id: int
    status: int | None
    body: bytes | None


class RepeatedRow(NamedTuple):
    """A row whose request repeats another one, so that its answer was not, or need not have been, paid again.

    Attributes:
        row_index: The row.
        shares_request: It has the request of an earlier row (``--dedupe``).
        equal: Its request equals an earlier row's, and is paid again.
        adopted: Its answer was taken from another job.
    """

    row_index: int
    shares_request: bool
    equal: bool
    adopted: bool


_PAID = """
SELECT attempt.attempt_id, reply.status,
       CASE WHEN reply.status IS NULL THEN answer.body ELSE reply.body END
FROM attempt JOIN request ON request.request_id = attempt.request_id
LEFT JOIN reply ON reply.attempt_id = attempt.attempt_id
LEFT JOIN reply AS answer ON answer.attempt_id = request.attempt_id AND answer.status BETWEEN 200 AND 299
WHERE attempt.attempt_id > ? AND attempt.sent_at IS NOT NULL
  AND (reply.attempt_id IS NULL OR reply.possibly_billed = 1 OR reply.status BETWEEN 200 AND 299)
ORDER BY attempt.attempt_id LIMIT ?
"""

_MARKED = """
SELECT row.row_index, row.shares_request = 1, request.ordinal > 0,
       attempt.attempt_id IS NOT NULL AND attempt.sent_at IS NULL
FROM row JOIN request ON request.request_id = row.request_id
LEFT JOIN attempt ON attempt.attempt_id = request.attempt_id
WHERE row.row_index >= ?
  AND (row.shares_request = 1 OR request.ordinal > 0 OR (attempt.attempt_id IS NOT NULL AND attempt.sent_at IS NULL))
ORDER BY row.row_index LIMIT ?
"""

_EARLIER = """
SELECT row.row_index, reply.status, reply.body, reply.attempt_id
FROM reply JOIN attempt ON attempt.attempt_id = reply.attempt_id
JOIN request ON request.request_id = attempt.request_id
JOIN row ON row.request_id = ifnull(request.root_id, request.request_id) AND row.shares_request = 0
WHERE reply.status BETWEEN 200 AND 299 AND attempt.sent_at IS NOT NULL AND request.attempt_id <> attempt.attempt_id
ORDER BY row.row_index
"""


_STATES = BulkQuery(
    "key, ordinal",
    "SELECT request.key, request.ordinal, request.state, request.request_id"
    " FROM wanted JOIN request ON request.key = wanted.key AND request.ordinal = wanted.ordinal",
)


def billed_attempts(reader: JournalReader) -> Iterator[BilledAttempt]:
    """Yields every sent attempt that is billed or possibly billed, of all runs and plans, oldest first."""
    last = 0
    while page := reader.select(_PAID, last, _PAGE):
        for fields in page:
            yield BilledAttempt._make(fields)
        last = page[-1][0]


def count_sent(reader: JournalReader) -> int:
    """Returns how many attempts of all runs have reached an endpoint, or possibly have."""
    ((sent,),) = reader.select("SELECT count(*) FROM attempt WHERE sent_at IS NOT NULL")
    ((unsent,),) = reader.select("SELECT count(*) FROM reply WHERE possibly_billed = 0")
    return int(sent) - int(unsent)


def repeated_rows(reader: JournalReader) -> Iterator[RepeatedRow]:
    """Yields the repeated rows of the current plan, in input order."""
    start = 0
    while page := reader.select(_MARKED, start, _PAGE):
        for row_index, shared, equal, adopted in page:
            yield RepeatedRow(row_index, shared == 1, equal == 1, adopted == 1)
        start = page[-1][0] + 1


def earlier_answers(reader: JournalReader) -> Iterator[tuple[int, int, bytes, int]]:
    """Yields billed answers that a later attempt replaced: row, status, body, attempt."""
    yield from reader.select(_EARLIER)


def states_of(
    reader: JournalReader, wanted: Sequence[tuple[bytes, int]]
) -> dict[tuple[bytes, int], tuple[State, int]]:
    """Returns states and numbers of requests by key and ordinal; what the journal does not have is left out."""
    found = reader.look_up(_STATES, wanted)
    return {(key, ordinal): (STATES[state], request_id) for key, ordinal, state, request_id in found}
