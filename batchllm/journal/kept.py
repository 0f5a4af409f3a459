"""The answers that requests keep while they are asked again: each stays unless a better one comes.

A request that is asked again is open, as any other that is to be sent. If its run dies, the next one finds the kept
answer as a reply whose outcome is not recorded, and a run that ends in order gives it back itself.
"""

import sqlite3
from collections.abc import Iterator

from batchllm.journal import bulk
from batchllm.journal.bulk import BulkRow
from batchllm.journal.reader import JournalReader
from batchllm.journal.records import AdmittedRow, State
from batchllm.records import Response

_UNDECIDED = """
SELECT DISTINCT attempt.request_id FROM attempt LEFT JOIN reply ON reply.attempt_id = attempt.attempt_id
WHERE attempt.attempt_id >= ? AND (reply.attempt_id IS NULL OR reply.status BETWEEN 200 AND 299)
"""

_BEFORE_BATCHES = """
SELECT request.request_id, max(reply.attempt_id) FROM request JOIN attempt ON attempt.request_id = request.request_id
JOIN reply ON reply.attempt_id = attempt.attempt_id
WHERE request.state = 4 AND reply.status BETWEEN 200 AND 299 AND reply.attempt_id <> request.attempt_id GROUP BY 1
"""


class KeptAnswers:
    """The answers of the requests that are asked again, by request."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[State, int, int]] = {}
        self._rows: dict[int, list[int]] = {}

    def __contains__(self, request_id: int) -> bool:
        return request_id in self._kept

    def add(self, row: AdmittedRow) -> None:
        """Keeps the answer of a row whose request is asked again."""
        assert row.request_id is not None and row.attempt_id is not None and row.state is not None, (
            "an answer"
        )
        self._kept[row.request_id] = row.state, row.attempts, row.attempt_id
        if row.row_index >= 0:
            self._rows.setdefault(row.request_id, []).append(row.row_index)

    def better(self, request_id: int, state: State, attempt_id: int | None) -> tuple[State, int | None]:
        """Returns state and attempt of a new outcome, or of the kept answer where that is better."""
        if state is State.OPEN or not self._kept:
            return state, attempt_id
        kept = self._kept.pop(request_id, None)
        if kept is None or state is State.ANSWERED or (state is State.FAILED and kept[0] is State.FAILED):
            return state, attempt_id
        return kept[0], kept[2]

    def left(self, connection: sqlite3.Connection, first_attempt: int) -> list[BulkRow]:
        """Returns the outcomes that give requests back their answers when a run ends.

        Args:
            connection: The journal's.
            first_attempt: The run's first attempt. A request with an attempt of this run that is in flight, or whose
                answer is not recorded yet, is left to the next run.
        """
        if not self._kept:
            return []
        undecided = {request_id for (request_id,) in connection.execute(_UNDECIDED, (first_attempt,))}
        rows: list[BulkRow] = []
        for request_id, (state, attempts, attempt_id) in self._kept.items():
            if request_id not in undecided:
                rows.append((bulk.OUTCOME, request_id, int(state), attempts, attempt_id))
                rows += [(bulk.ROW_STATE, row, bulk.MISSING) for row in self._rows.get(request_id, ())]
        return rows


def answers_before_batches(reader: JournalReader) -> Iterator[tuple[int, int, Response]]:
    """Yields the requests in batches that had an answer before: request, attempt, answer."""
    for request_id, attempt_id in reader.select(_BEFORE_BATCHES):
        yield request_id, attempt_id, reader.response_of(attempt_id)
