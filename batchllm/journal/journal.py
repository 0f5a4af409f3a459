"""The journal as a run uses it: cheap calls from the event loop, durable when awaited."""

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any
from zlib import crc32

from batchllm.journal import bulk
from batchllm.journal.admission import NO_BODY_KEYS, Item
from batchllm.journal.batches import BatchStore
from batchllm.journal.bulk import MISSING, BulkRow, meta_key, meta_row
from batchllm.journal.database import connect
from batchllm.journal.files import remove
from batchllm.journal.kept import AskedAgain, KeptAnswer, opened
from batchllm.journal.reader import JournalReader
from batchllm.journal.records import (
    ENDPOINTS,
    AdmittedRow,
    PlanRecord,
    State,
)
from batchllm.journal.recovery import OpenedJournal, open_store
from batchllm.journal.requests import LaterRequest, LaterState, StoredAnswer
from batchllm.journal.sqlite_errors import sqlite_errors
from batchllm.journal.writer import Done, JournalThread, OperationKind, resolve
from batchllm.records import Failure, Response


class Journal:
    """Writes a job's journal. Open it with ``open``, holding the job's lock; close it, or use ``with``.

    ``admit``, ``intend``, ``save_all`` and ``adopt`` return futures of the running event loop. Once the journal has
    failed, it stays failed: every call raises, or its future gets, ``CannotWrite`` (no room, no permission),
    ``StorageFailure`` (the disk reported an error) or ``InputError`` (damaged).

    Attributes:
        path: Its file.
        new: Whether this run created it.
        run_id: The number of this run.
        orphans: Possibly billed attempts of dead runs without an answer, found now for the first time.
        batches: Writes the batches of the job.
    """

    def __init__(
        self, opened: OpenedJournal, writer: JournalThread, path: Path, clock: Callable[[], float]
    ) -> None:
        self.path = path
        self.new = opened.new
        self.run_id = opened.run_id
        self.orphans = opened.orphans
        self._meta = opened.meta
        self._next_attempt = opened.next_attempt
        self._destinations: dict[int, int] = {}
        self._kept = opened.kept
        self._store = opened.store
        self._writer = writer
        self._clock = clock
        self.batches = BatchStore(writer, self._store.connection, self._reserve, self.run_id, clock, path)
        self._reader: JournalReader | None = None
        self._closed = False

    @classmethod
    def open(
        cls, path: Path, *, threaded: bool = True, clock: Callable[[], float] = time.time, version: str = ""
    ) -> "Journal":
        """Opens a job's journal, or creates it, and closes what dead runs left.

        Args:
            path: ``OUTPUT.journal``.
            threaded: Whether commits happen in a thread of their own; without one, every call commits before it
                returns a future that is done (for tests in virtual time).
            clock: Seconds since the epoch, for the recorded times only.
            version: The version of the program, recorded with the run.

        Raises:
            CannotWrite: It cannot be created or written.
            InputError: It is something else, damaged, or of another version.
            StorageFailure: The disk reported an error.
        """
        writer = JournalThread(path, threaded=threaded)
        opened = writer.start(lambda: open_store(path, clock(), version))
        return cls(opened, writer, path, clock)

    def begin_plan(self, identity: str, *, dedupe: bool = False, job: str = "") -> PlanRecord:
        """Starts a pass over the input, or continues the last one where it was the same.

        Call it once, before ``admit`` and ``planned``; it waits for the disk.

        Args:
            identity: Identifies the source and everything that its requests depend on. Where it equals the last
                pass's, the rows of that pass keep their requests and need not be admitted again.
            dedupe: Whether equal rows share one request.
            job: Identifies what requests depend on beside the source. Only where it changed, what rows were asked
                before is adopted, and a flow may ask something else at a path that has an answer.
        """
        return self._writer.call(lambda: self._store.begin_plan(identity, dedupe=dedupe, job=job))

    def planned(self, start: int = 0) -> Iterator[AdmittedRow]:
        """Yields the rows that the current plan has admitted; see ``JournalReader.planned``."""
        return self.reader().planned(start)

    def admit(
        self,
        items: Sequence[Item],
        *,
        open_rows: bool = False,
        body_keys: Mapping[bytes, bytes] = NO_BODY_KEYS,
    ) -> "asyncio.Future[list[AdmittedRow]]":
        """Gives rows their requests; rows come in input order, each once in a plan.

        Args:
            items: ``(row_index, key, None)`` for a row with a request, ``(row_index, None, reason)`` for one that
                is never sent. A row that is admitted again with a reason loses its request.
            open_rows: Rows may need more than their first request, so they are open until ``end_row`` ends them.
            body_keys: By key, the hash of the request's body where the key is made of more.
        """
        return self._submit(
            OperationKind.CALL,
            lambda: self._store.admission.admit(items, open_rows=open_rows, body_keys=body_keys),
        )

    def later(self, wanted: Sequence[LaterRequest]) -> "asyncio.Future[list[LaterState]]":
        """Finds the later requests of flows, or records them."""
        return self._submit(OperationKind.CALL, lambda: self._store.admission.later(wanted))

    def endpoint_numbers(self, names: Sequence[str]) -> list[int]:
        """Returns the numbers of endpoints in this journal, from 1; a new one gets the next number."""
        known: list[str] = self.get(ENDPOINTS) or []
        if new := [name for name in dict.fromkeys(names) if name not in known]:
            known += new
            self.put(ENDPOINTS, known)
        return [known.index(name) + 1 for name in names]

    def goes_to(self, request_id: int, endpoint: int) -> None:
        """Says to which endpoint the next attempt of a request goes, by its number (``endpoint_numbers``)."""
        self._destinations[request_id] = endpoint

    def intend(self, request_ids: Sequence[int]) -> "asyncio.Future[list[int]]":
        """Records that requests are about to be sent; they may be sent when the future has its result.

        Args:
            request_ids: The requests.

        Returns:
            The ids of the attempts, in the same order.
        """
        rows = self._attempts(request_ids, self._clock())
        return self._submit(OperationKind.WRITE, (rows, (), [row[1] for row in rows]))

    def save(self, attempt_id: int, outcome: Response | Failure, saved: Done) -> None:
        """Saves what an attempt brought. It is called for every row, so it creates no future.

        Args:
            attempt_id: The attempt.
            outcome: What it brought.
            saved: Called in the event loop with ``None`` and ``None`` when that is durable, or with ``None`` and the
                error (without a thread, before ``save`` returns). It must not raise.
        """
        payload = attempt_id, self._clock(), outcome
        self._writer.submit(OperationKind.SAVE, payload, saved, asyncio.get_running_loop())

    def save_all(self, outcomes: Sequence[tuple[int, Response | Failure]]) -> "asyncio.Future[None]":
        """Saves what attempts brought, all or nothing, for results that arrive as a file."""
        now = self._clock()
        saves = [(attempt_id, now, outcome) for attempt_id, outcome in outcomes]
        return self._submit(OperationKind.WRITE, ((), saves, None))

    def record_outcome(self, request_id: int, state: State, attempt_id: int | None, attempts: int) -> None:
        """Records the outcome of a request with the next commit; after a crash before it, the reply is read again.

        A request that is asked again (``ask_again``) keeps its answer unless this outcome is better.

        Args:
            request_id: The request.
            state: Its state.
            attempt_id: The attempt whose reply is its outcome; ``None`` where it was never sent.
            attempts: Attempts so far, of all runs.
        """
        state, attempt_id = self._kept.better(request_id, state, attempt_id)
        attempt = MISSING if attempt_id is None else attempt_id
        self._writer.defer((bulk.OUTCOME, request_id, int(state), attempts, attempt))

    def ask_again(self, flows: Iterable[AskedAgain]) -> None:
        """Opens requests that have an answer, with the next commit; it stays unless a better one comes."""
        for flow in flows:
            self._kept.add(flow._replace(since=self._next_attempt))
            for request_id, attempt_id in {**dict.fromkeys(flow.answers), **flow.reopened}.items():
                self._writer.defer(opened(request_id, State.OPEN, attempt_id))
            if flow.row_state is not None:
                for row_index in flow.rows:
                    self.end_row(row_index, State.OPEN)
        for row in self._kept.note():
            self._writer.defer(row)

    def kept_answer(self, request_id: int) -> KeptAnswer | None:
        """Returns what a request had that is asked again (``ask_again``); ``None`` if it is not."""
        return self._kept.of_request(request_id)

    def is_asked_again(self, root_id: int) -> bool:
        """Whether a request of a flow is asked again though it has an answer; then the later ones may differ."""
        return self._kept.of_flow(root_id) is not None

    def give_back(self, root_id: int) -> AskedAgain | None:
        """Gives a flow back, with the next commit, the answers that its row had; ``None`` if that had no usable one."""
        flow = self._kept.of_flow(root_id)
        if flow is None or not flow.was_answered:
            return None
        for request_id, kept in flow.answers.items():
            self._writer.defer(opened(request_id, *kept))
        self._kept.remove(root_id)
        return flow

    def end_row(self, row_index: int, state: State | None) -> None:
        """Records with the next commit how far a row's flow is; ``None``: as far as its only request."""
        self._writer.defer((bulk.ROW_STATE, row_index, MISSING if state is None else int(state)))

    def reopen(self, root_id: int) -> None:
        """Opens the failed requests of a flow with the next commit, so that they are asked again."""
        self._writer.defer((bulk.REOPEN, root_id))

    def keep(self, key: bytes, value: bytes) -> None:
        """Keeps a value with the next commit, unless there is one under this key."""
        self._writer.defer((bulk.KEPT, bytearray(key), bytearray(value), crc32(value)))

    def adopt(self, answers: Sequence[tuple[int, StoredAnswer]]) -> "asyncio.Future[list[int]]":
        """Saves answers, of another job's journal for instance, each as the reply to an attempt that was never sent.

        Args:
            answers: The request's id, and what ``JournalReader.answers_for`` found for it.

        Returns:
            The ids of the attempts, in the same order, for ``record_outcome``.
        """
        rows = self._attempts([request_id for request_id, _ in answers], None)
        saves = [
            (row[1], stored.received_at, stored.response)
            for row, (_, stored) in zip(rows, answers, strict=True)
        ]
        return self._submit(OperationKind.WRITE, (rows, saves, [row[1] for row in rows]))

    @property
    def next_attempt(self) -> int:
        """The number of the next attempt."""
        return self._next_attempt

    def _reserve(self, count: int) -> int:
        first = self._next_attempt
        self._next_attempt = first + count
        return first

    def _attempts(self, request_ids: Sequence[int], sent_at: float | None) -> list[BulkRow]:
        run_id, first = self.run_id, self._reserve(len(request_ids))
        sent = MISSING if sent_at is None else sent_at
        endpoint_of = self._destinations.pop
        return [
            (bulk.ATTEMPT, first + i, request_id, run_id, sent, endpoint_of(request_id, 0))
            for i, request_id in enumerate(request_ids)
        ]

    def put(self, key: str, value: Any) -> None:
        """Stores a JSON value under a key with the next commit."""
        text = json.dumps(value)
        self._meta[meta_key(key)] = text
        self._writer.defer(meta_row(key, text))

    def put_now(self, key: str, value: Any) -> None:
        """Stores a JSON value under a key and waits for the disk."""
        self.put(key, value)
        self._writer.call(lambda: None)

    def get(self, key: str) -> Any:
        """Returns the value stored under a key, by this run or an earlier one; ``None`` where there is none."""
        text = self._meta.get(meta_key(key))
        return None if text is None else json.loads(text)

    def reader(self) -> JournalReader:
        """Returns a reader that sees everything recorded before this call; it lives as long as the journal."""
        self._writer.catch_up()
        if self._reader is None:
            with sqlite_errors(self.path):
                self._reader = JournalReader(connect(self.path, mode="ro"), self.path)
        return self._reader

    async def flush(self) -> None:
        """Returns when everything queued so far is durable."""
        await self._submit(OperationKind.CALL, lambda: None)

    def withdraw(self) -> None:
        """Closes the journal of a run that was refused before anything was sent: no trace of the run is left."""
        self.close(withdrawn=True)
        if self.new:
            remove(self.path)

    def close(self, exit_status: int | None = None, *, withdrawn: bool = False) -> None:
        """Writes what waits, records how the run ended, moves the log into the database, and closes it.

        Args:
            exit_status: The exit status of the process.
            withdrawn: The run never was.

        Raises:
            JobError: Not all of that could be done, and no call or future had said so before.
        """
        if self._closed:
            return
        self._closed = True
        if self._reader is not None:
            self._reader.close()

        def end_run() -> None:
            if withdrawn:
                self._store.forget_run(self.run_id)
            else:
                self._store.end_run(self.run_id, self._clock(), exit_status)

        def finish() -> None:
            self._store.write(self._kept.settle(self._store.connection), [end_run])
            self._store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

        self._writer.stop(finish)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _submit(self, kind: OperationKind, payload: Any) -> "asyncio.Future[Any]":
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._writer.submit(kind, payload, partial(resolve, future), loop)
        return future
