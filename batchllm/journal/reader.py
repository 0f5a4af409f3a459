"""Reads a journal, also while a run writes it.

A reader never writes and never moves the log into the database: only the job's own run does, so two processes never do
it at once.
"""

import json
import sqlite3
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from zlib import crc32

from batchllm.errors import CannotWrite, InputError, NotNow
from batchllm.journal import batches, records, requests
from batchllm.journal.batches import BatchRecord, BatchResult
from batchllm.journal.bulk import BulkQuery, meta_key
from batchllm.journal.database import check_version, connect
from batchllm.journal.files import exists
from batchllm.journal.records import (
    FINISHED,
    PLAN,
    SKIPPED,
    STATES,
    TRIAL,
    AdmittedRow,
    AttemptRecord,
    FinishedRows,
    RowCounts,
    RowRecord,
    State,
)
from batchllm.journal.replies import REPLY, read_response
from batchllm.journal.requests import RequestRecord, StoredAnswer
from batchllm.journal.sqlite_errors import damaged, sqlite_errors
from batchllm.records import Response

_PAGE = 2048


class JournalReader:
    """Reads a journal; close it, or use ``with``.

    Every method raises ``InputError`` where the journal is damaged.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, *, immutable: bool = False) -> None:
        self._connection = connection
        self._immutable = immutable
        self.path = path

    @classmethod
    def open(cls, path: Path, *, any_version: bool = False) -> "JournalReader":
        """Opens a journal.

        Without a log beside it, no run is going on, and it is read without creating one.

        Args:
            path: The journal.
            any_version: Whether other versions are opened too, for ``get``, whose table is the same in all.

        Raises:
            InputError: There is none, or it is something else, damaged, or of another version.
        """
        if not exists(path):
            raise InputError(
                path,
                "there is no journal; run the job first, or name its journal, or the work folder of --engine, instead "
                "of its output",
            )
        immutable = not Path(f"{path}-wal").exists()
        connection = connect(path, mode="ro", immutable=immutable)
        try:
            with sqlite_errors(path):
                if not any_version:
                    check_version(connection, path)
        except CannotWrite as error:
            connection.close()
            raise InputError(path, "the journal cannot be read; check its permissions") from error
        except BaseException:
            connection.close()
            raise
        return cls(connection, path, immutable=immutable)

    def close(self) -> None:
        """Closes the reader."""
        self._connection.close()

    def __enter__(self) -> "JournalReader":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()

    def get(self, key: str) -> Any:
        """Returns the value that ``Journal.put`` stored under ``key``; ``None`` where there is none."""
        for fields in self.select(f"{records.META} WHERE key = ?", meta_key(key)):
            return json.loads(records.read_meta(self.path, fields)[1])
        return None

    def file_notes(self) -> dict[str, Any]:
        """Returns what is known of the files that runs wrote, by the keys of these notes."""
        found = dict(records.read_meta(self.path, fields) for fields in self.select(records.META))
        values = {key: json.loads(text) for key, text in found.items()}
        return {key: value for key, value in values.items() if isinstance(value, dict) and "sha256" in value}

    @property
    def last_attempt(self) -> int:
        """The number of the last attempt; 0 if there is none."""
        return int(self.select("SELECT ifnull(max(attempt_id), 0) FROM attempt")[0][0])

    @property
    def finished(self) -> bool:
        """Whether a run finished the current pass over the whole input, and no row was opened again since."""
        return self._ended(FINISHED)

    @property
    def trial_finished(self) -> bool:
        """Whether a trial of this pass is finished, and no row was opened again since."""
        return self._ended(TRIAL)

    def _ended(self, key: str) -> bool:
        plan = self.get(PLAN)
        if plan is None or self.get(key) != plan["plan_id"]:
            return False
        counts = self.counts()
        return not (counts.open or counts.pending)

    def runs(self) -> list[dict[str, Any]]:
        """Returns the runs of the job, oldest first, as dictionaries of the columns of the table ``run``."""
        names = ("run_id", "started_at", "ended_at", "exit_status", "pid", "host", "version")
        rows = self.select(f"SELECT {', '.join(names)} FROM run ORDER BY run_id")  # noqa: S608 - names are ours
        return [dict(zip(names, row, strict=True)) for row in rows]

    def counts(self) -> RowCounts:
        """Returns how many rows of the current plan are in which state."""
        rows = self.select(
            "SELECT CASE WHEN row.state IS NULL OR (row.state = 0 AND request.state = 4) THEN request.state"
            " ELSE row.state END, row.unsent_reason = ?, count(*) FROM row"
            " LEFT JOIN request ON request.request_id = row.request_id GROUP BY 1, 2",
            SKIPPED,
        )
        by = {(state, skipped): count for state, skipped, count in rows}
        return RowCounts(
            rows=sum(by.values()),
            answered=by.get((State.ANSWERED, None), 0),
            failed=by.get((State.FAILED, None), 0),
            unanswered=by.get((State.UNANSWERED, None), 0),
            open=by.get((State.OPEN, None), 0),
            skipped=by.get((None, 1), 0),
            unsendable=by.get((None, 0), 0),
            pending=by.get((State.PENDING, None), 0),
        )

    def count_requests(self) -> dict[State, int]:
        """Returns how many requests of all plans are in which state."""
        found = self.select("SELECT state, count(*) FROM request GROUP BY state")
        return {STATES[state]: count for state, count in found}

    def count_answered(self) -> int:
        """Returns how many requests of all plans have an answer or are in a batch."""
        ((count,),) = self.select("SELECT count(*) FROM request WHERE state IN (1, 4)")
        return int(count)

    def count_attempts(self) -> tuple[int, int]:
        """Returns how many requests all runs have sent, and how many of them are possibly billed without an answer."""
        ((sent,),) = self.select("SELECT count(*) FROM attempt WHERE sent_at IS NOT NULL")
        ((possibly_billed,),) = self.select("SELECT count(*) FROM reply WHERE possibly_billed = 1")
        return int(sent), int(possibly_billed)

    def outcomes(self, start: int = 0) -> Generator[RowRecord]:
        """Yields every row of the current plan with its outcome, in input order, from row ``start`` on."""
        path, entry = self.path, records.read_row
        with sqlite_errors(path), closing(self._connection.execute(records.ROWS, (start,))) as rows:
            for fields in rows:
                found = entry(path, fields)
                if found.row_index < start:
                    raise damaged(path, "rows are out of order")
                start = found.row_index + 1
                yield found
        self._check_still_immutable()

    def planned(self, start: int = 0) -> Iterator[AdmittedRow]:
        """Yields the rows that the current plan has admitted, in input order, from row ``start`` on.

        It reads in pages, so that a slow caller does not keep the log of a running job from being moved. A caller may
        admit rows meanwhile, up to the row that it has got last.
        """
        path, admitted = self.path, records.read_admitted
        while True:
            page = self.select(records.ADMITTED, start, _PAGE)
            for fields in page:
                found = admitted(path, fields)
                if found.row_index < start:
                    raise damaged(path, "rows are out of order")
                start = found.row_index + 1
                yield found
            if len(page) < _PAGE:
                return

    def finished_rows(self, states: Sequence[State], *, unsendable: bool) -> list[FinishedRows]:
        """Counts the finished rows before the first unfinished one, which a run may skip without reading them.

        A row that does not match its checksum counts as unfinished, so that ``planned`` finds it.

        Args:
            states: The states of a finished row.
            unsendable: Whether a row that cannot be sent is finished too.

        Returns:
            The rows by how they are finished; their sum is the index of the first row that is left.
        """
        final = ",".join(str(int(state)) for state in states)
        left = self.select(
            "SELECT row.row_index FROM row LEFT JOIN request ON request.request_id = row.request_id WHERE CASE"  # noqa: S608
            f" WHEN row.request_id IS NOT NULL THEN ifnull(row.state, request.state) IN ({final}) AND request.valid"
            " ELSE row.unsent_reason = ? OR ? END IS NOT 1 ORDER BY row.row_index LIMIT 1",
            SKIPPED,
            unsendable,
        ) or self.select("SELECT max(row_index) + 1 FROM row")
        bound = left[0][0] or 0
        rows = self.select(
            "SELECT ifnull(row.state, request.state),"
            " substr(row.unsent_reason, 1, instr(row.unsent_reason || char(10), char(10)) - 1),"
            " row.shares_request, count(*) FROM row LEFT JOIN request ON request.request_id = row.request_id"
            " WHERE row.row_index < ? GROUP BY 1, 2, 3",
            bound,
        )
        found = [
            FinishedRows(None if state is None else STATES[state], reason, shared == 1, count)
            for state, reason, shared, count in rows
        ]
        return found if sum(kind.rows for kind in found) == bound else []

    def begun_rows(self) -> list[tuple[int, int]]:
        """Returns the open rows whose first request was answered: their indexes, in order, and those requests."""
        return self.select(
            "SELECT row.row_index, row.request_id FROM row JOIN request ON request.request_id = row.request_id"
            " WHERE ifnull(row.state, request.state) = 0 AND (request.state IN (1, 2) OR"
            " (SELECT status FROM reply WHERE attempt_id = request.attempt_id) BETWEEN 200 AND 299)"
            " ORDER BY row.row_index"
        )

    def row(self, row_index: int) -> AdmittedRow:
        """Returns a row of the current plan.

        Raises:
            InputError: The current plan has no such row.
        """
        for fields in self.select(records.ADMITTED, row_index, 1):
            row = records.read_admitted(self.path, fields)
            if row.row_index == row_index:
                return row
        raise InputError(self.path, f"row {row_index + 1} is not in the journal (yet)")

    def attempts_of(self, request_id: int) -> list[AttemptRecord]:
        """Returns every attempt of a request, of all runs, oldest first."""
        return [
            records.read_attempt(self.path, fields) for fields in self.select(records.ATTEMPTS, request_id)
        ]

    def requests(self, request_ids: Sequence[int]) -> dict[int, RequestRecord]:
        """Returns requests with their outcomes, by their numbers."""
        found = self.look_up(requests.REQUESTS, [(request_id,) for request_id in request_ids])
        return {fields[0]: requests.read_request(self.path, fields) for fields in found}

    def flow_requests(self, root_id: int) -> list[RequestRecord]:
        """Returns a flow's first request and all later ones, oldest first, with their outcomes."""
        found = self.select(requests.FLOW_REQUESTS, root_id)
        return [requests.read_request(self.path, fields) for fields in found]

    def kept(self, key: bytes) -> bytes | None:
        """Returns a kept value; ``None`` where there is none."""
        for value, crc in self.select("SELECT value, crc FROM kept WHERE key = ?", key):
            if crc != crc32(value):
                raise damaged(self.path, "a kept value does not match its CRC")
            return bytes(value)
        return None

    def endpoint_of(self, attempt_id: int) -> str | None:
        """Returns the name of the endpoint that an attempt went to; ``None`` where that is not recorded."""
        for valid, number in self.select(
            "SELECT valid, endpoint FROM attempt WHERE attempt_id = ?", attempt_id
        ):
            if valid != 1:
                raise damaged(self.path, f"attempt {attempt_id} does not match its checksum")
            names: list[str] = self.get(records.ENDPOINTS) or []
            return names[number - 1] if number is not None and number <= len(names) else None
        return None

    def response_of(self, attempt_id: int) -> Response:
        """Returns the HTTP answer of an attempt that has one, with its headers."""
        found = self.select(f"SELECT {REPLY} FROM reply WHERE attempt_id = ?", attempt_id)  # noqa: S608
        if not found:
            raise damaged(self.path, f"the reply to attempt {attempt_id} is missing")
        return read_response(self.path, attempt_id, found[0])

    def answers_for(self, wanted: Sequence[tuple[bytes, int]]) -> dict[tuple[bytes, int], StoredAnswer]:
        """Returns the answers to requests by key and ordinal; requests without an answer are left out."""
        rows = self.look_up(requests.ANSWERS, wanted)
        return dict(requests.read_answer(self.path, fields) for fields in rows)

    def batches(self) -> list[BatchRecord]:
        """Returns the batches of the job, oldest first."""
        found = self.select(f"{batches.BATCHES} ORDER BY batch_id")
        return [batches.read_batch(self.path, fields) for fields in found]

    def replied(self, batch: BatchRecord) -> bytearray:
        """Returns for each line of a batch 1 where its attempt has a reply already, else 0."""
        flags = bytearray(batch.requests)
        query = "SELECT attempt_id FROM reply WHERE attempt_id BETWEEN ? AND ?"
        for (attempt_id,) in self.select(query, batch.first_attempt, batch.last_attempt):
            flags[attempt_id - batch.first_attempt] = 1
        return flags

    def results(self, batch: BatchRecord, *, by_row: bool = False) -> Iterator[BatchResult]:
        """Yields the requests of a batch without a recorded outcome, in pages: a caller may record them meanwhile.

        Args:
            batch: The batch.
            by_row: In the order of their rows; requests without a row in this plan are left out.
        """
        start = 0
        query = batches.RESULTS_BY_ROW if by_row else batches.RESULTS_BY_ATTEMPT
        while True:
            page = self.select(query, start, batch.first_attempt, batch.last_attempt)
            for fields in page:
                yield batches.read_result(self.path, fields)
            if len(page) < batches.PAGE:
                return
            start = (page[-1][2] if by_row else page[-1][0]) + 1

    def select(self, query: str, *parameters: Any) -> list[Any]:
        """Returns the rows of a query without checking them: for figures, not for answers."""
        with sqlite_errors(self.path):
            rows = self._connection.execute(query, parameters).fetchall()
        self._check_still_immutable()
        return rows

    def look_up(self, query: BulkQuery, keys: Sequence[Sequence[Any]]) -> list[Any]:
        """Returns the rows of a query for many keys, without checking them."""
        with sqlite_errors(self.path):
            rows = query.fetch(self._connection, keys)
        self._check_still_immutable()
        return rows

    def _check_still_immutable(self) -> None:
        if self._immutable and Path(f"{self.path}-wal").exists():
            raise NotNow(f"{self.path}: a run has begun to write it meanwhile; run the same command again")
