"""The results of an ended batch: fetched to disk, kept raw in the journal, counted, and only then read.

Three passes, each of which may be cut off anywhere and made again. *Keep*: each line of the two files becomes the
reply of its attempt, unless it has one. *Explain*: an attempt without a line gets a failure that says why, and
whether it may have been paid. *Settle*: every request of the batch that is pending still gets its state from the
reply in the journal: an end, or open again, so that the same command sends it in a new batch.
"""

import logging
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from decimal import Decimal
from itertools import islice
from typing import IO

from batchllm.answer import Reader
from batchllm.batch.calls import steadily
from batchllm.batch.files import storage
from batchllm.batch.lines import error_response, read_line
from batchllm.batch.rejection import BatchRejection
from batchllm.batch.steps import DROPPED, GONE
from batchllm.client.batches import BatchApi
from batchllm.counters import RunCounters
from batchllm.journal import BatchRecord, BatchResult, BatchState, Journal, State
from batchllm.records import Answer, Failure, FailureKind, Paid, Response, Usage
from batchllm.retry import ENDPOINTS_OWN, Disposition, Verdict, classify, may_be_the_rows_own

log = logging.getLogger("batchllm.runner")

PAGE = 256
PAGE_BYTES = 4_000_000
MAX_POSSIBLY_BILLED = 3
"""Attempts of a request whose results were missing: the first, and at most two more."""

Outcome = Response | Failure
Readers = Callable[[], Callable[[int], Reader]]


class Collector:
    """Brings the results of ended batches row_counters.

    Args:
        api: Opens the endpoint at the first call.
        journal: Where replies and states go.
        reader: Reads an answer.
        readers: Makes what reads a row's answer, asked in growing order, where rows have tasks of their own.
        counters: Counts what was paid.
        row_counters: Counts rows that have their end.
        cost: What an answer cost, from its usage and model.
        max_attempts: Attempts of a request, of all calls, before it is given up.
        ephemeral: The endpoint forgets its batches when the run ends, and has no bill.

    Attributes:
        fatal: Why further requests would be refused, from the newest result that says so.
    """

    def __init__(
        self,
        api: Callable[[], Awaitable[BatchApi]],
        journal: Journal,
        *,
        reader: Reader,
        readers: Readers | None,
        counters: RunCounters,
        row_counters: RunCounters,
        cost: Callable[[Usage, str], Decimal | None],
        max_attempts: int,
        ephemeral: bool = False,
    ) -> None:
        self._api = api
        self._journal = journal
        self._reader = reader
        self._readers = readers
        self._counters = counters
        self._row_counters = row_counters
        self._cost = cost
        self._max_attempts = max_attempts
        self._ephemeral = ephemeral
        self.fatal: Verdict | None = None
        self._rows_own = False

    async def collect(
        self, batch: BatchRecord, refusal: BatchRejection | None, *, answered: bool = False
    ) -> BatchRecord:
        """ENDED → DONE.

        A refusal of key, model or URL is its row's failure where the batch has brought answers too, or where the
        job has some and few rows are refused.

        Args:
            batch: The batch.
            refusal: Why its validation failed, where it did.
            answered: The job has answers.

        Raises:
            CallFailed: A file of results cannot be fetched; ``status`` 404: it is there no more.
        """
        flags = self._journal.reader().replied(batch)
        seen: Counter[str] = Counter()
        folder = self._journal.path.parent
        for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
            with storage(folder), tempfile.TemporaryFile(dir=folder, prefix=".batchllm-") as file:
                await self._fetch(file_id, file)
                await self._keep(_results(file, batch, flags, seen))
        if refusal is not None and refusal.lines:
            wrong = {number: error_response(error) for number, error in refusal.lines.items()}
            await self._keep(_unsaved(wrong, batch, flags))
        _reconcile(batch, flags, seen)
        self._rows_own = seen["answers"] > 0 or (answered and seen["refused"] < ENDPOINTS_OWN)
        ended = await self._settle(batch, self._missing(batch, seen, refusal))
        return self._journal.batches.update(batch, state=BatchState.DONE, finished_rows=ended)

    async def _fetch(self, file_id: str, file: IO[bytes]) -> None:
        api = await self._api()
        await steadily(lambda: api.download(file_id, file))
        file.seek(0)

    async def _keep(self, results: Iterable[tuple[int, Outcome]]) -> None:
        """Saves outcomes, a page at a time; each page is durable, and all of it or none."""
        page: list[tuple[int, Outcome]] = []
        size = 0
        for attempt_id, outcome in results:
            page.append((attempt_id, outcome))
            size += len(outcome.body) if isinstance(outcome, Response) else 0
            if len(page) >= PAGE or size > PAGE_BYTES:
                await self._journal.save_all(page)
                page, size = [], 0
        if page:
            await self._journal.save_all(page)

    def _missing(self, batch: BatchRecord, seen: Counter[str], refusal: BatchRejection | None) -> Failure:
        """What an attempt without a line gets."""
        if batch.status == DROPPED:
            return Failure(FailureKind.UNSENT, "its batch was never created", Paid.NO, 0.0)
        if refusal is not None:
            return Failure(FailureKind.UNSENT, f"its batch was refused: {refusal.words}", Paid.NO, 0.0)
        if batch.status == GONE:
            paid = Paid.NO if self._ephemeral else Paid.MAYBE
            kind = FailureKind.UNSENT if self._ephemeral else FailureKind.NO_RESULT
            return Failure(kind, "the endpoint knows its batch no more", paid, 0.0)
        all_there = batch.completed is not None and seen["answers"] >= batch.completed
        if all_there and batch.status in ("expired", "cancelled"):
            return Failure(FailureKind.UNSENT, f"its batch was {batch.status} before it", Paid.NO, 0.0)
        message = f"its batch is {batch.status}, and its files of results have no line for it"
        paid = Paid.NO if all_there else Paid.MAYBE
        return Failure(FailureKind.NO_RESULT, message, paid, 0.0)

    async def _settle(self, batch: BatchRecord, missing: Failure) -> int:
        """Gives every request its state; returns how many have their end."""
        ended = 0
        reader = self._journal.reader()
        if self._readers is not None:
            reader_of = self._readers()
            for page in _pages(reader.results(batch, by_row=True)):
                ended += await self._settle_page(page, missing, reader_of)
        for page in _pages(reader.results(batch)):
            ended += await self._settle_page(page, missing, lambda _: self._reader)
        await self._journal.flush()
        return ended

    async def _settle_page(
        self, page: list[BatchResult], missing: Failure, reader_of: Callable[[int], Reader]
    ) -> int:
        lost = {result.attempt_id for result in page if result.outcome is None}
        if lost:
            await self._journal.save_all([(attempt_id, missing) for attempt_id in sorted(lost)])
        done: set[int] = set()
        ended = 0
        for result in page:
            if result.request_id not in done:
                done.add(result.request_id)
                row_reader = reader_of(-1 if result.row_index is None else result.row_index)
                ended += self._settle_one(result, result.outcome or missing, row_reader)
        await self._journal.flush()
        return ended

    def _settle_one(self, result: BatchResult, outcome: Outcome, reader: Reader) -> bool:
        verdict = classify(outcome)
        attempts = result.attempts + 1
        answer: Answer | None = None
        state = State.OPEN
        match verdict.disposition:
            case Disposition.ANSWERED | Disposition.REJECTED if isinstance(outcome, Response):
                answer = reader.read(outcome.status, outcome.body)
                usable = verdict.disposition is Disposition.ANSWERED and answer.error is None
                state = State.ANSWERED if usable else State.FAILED
            case Disposition.FATAL if (
                self._rows_own and may_be_the_rows_own(verdict) and isinstance(outcome, Response)
            ):
                answer = reader.read(outcome.status, outcome.body)
                state = State.FAILED
            case Disposition.FATAL:
                self.fatal = verdict
            case _ if isinstance(outcome, Failure) and outcome.kind is FailureKind.UNSENT:
                attempts -= 1
            case _ if verdict.disposition is Disposition.REFUSED:
                attempts -= 1
                self._counters.refusals += 1
            case _:
                most = (
                    MAX_POSSIBLY_BILLED if verdict.disposition is Disposition.UNKNOWN else self._max_attempts
                )
                state = State.UNANSWERED if attempts >= min(most, self._max_attempts) else State.OPEN
        self._count(verdict, answer, state)
        attempt_id = None if state is State.OPEN else result.attempt_id
        self._journal.record_outcome(result.request_id, state, attempt_id, attempts)
        return state is not State.OPEN

    def _count(self, verdict: Verdict, answer: Answer | None, state: State) -> None:
        counters, row_counters = self._counters, self._row_counters
        counters.requests += 1
        counters.attempts += 1
        if verdict.disposition is Disposition.UNKNOWN:
            counters.possibly_billed += 1
        if answer is not None and verdict.disposition is Disposition.ANSWERED:
            cost = self._cost(answer.usage, answer.model or "")
            counters.paid(answer.usage, cost)
            counters.final(cost)
            counters.finish_reasons[answer.finish_reason or "none"] += 1
        if answer is not None:
            row_counters.ended_with(answer)
        elif state is State.UNANSWERED:
            row_counters.unanswered += 1
            row_counters.failed_by_reason[verdict.reason] += 1
        else:
            counters.retries[verdict.reason] += 1


def _results(
    file: IO[bytes], batch: BatchRecord, flags: bytearray, seen: Counter[str]
) -> Iterator[tuple[int, Outcome]]:
    """The outcomes of a file that are not in the journal yet, each attempt's first; counts every line."""
    for line in file:
        if not line.strip():
            continue
        result = read_line(line, batch.name)
        if isinstance(result, str):
            seen[result] += 1
        elif result.number >= batch.requests:
            seen["unknown"] += 1
        else:
            seen["lines"] += 1
            if isinstance(result.outcome, Response) and 200 <= result.outcome.status < 300:
                seen["answers"] += 1
            elif may_be_the_rows_own(classify(result.outcome)):
                seen["refused"] += 1
            yield from _unsaved({result.number: result.outcome}, batch, flags)


def _unsaved(
    outcomes: dict[int, Outcome] | dict[int, Response], batch: BatchRecord, flags: bytearray
) -> Iterator[tuple[int, Outcome]]:
    """Outcomes by line whose attempts have no reply yet."""
    for number, outcome in outcomes.items():
        if not flags[number]:
            flags[number] = 1
            yield batch.first_attempt + number, outcome


def _reconcile(batch: BatchRecord, flags: bytearray, seen: Counter[str]) -> None:
    """Says where the lines of a batch are not what its requests and its counts promise."""
    missing = flags.count(0)
    odd = seen["unreadable"] + seen["unknown"]
    counted = (batch.completed or 0) + (batch.failed or 0)
    if batch.remote_id is None or batch.status in ("failed", GONE):
        return
    if odd or seen["lines"] != counted or (missing and batch.status == "completed"):
        log.warning(
            "batch %s is %s: %s lines of results for %s requests (its counts say %s), %s more cannot be read or are "
            "not ours; %s requests have no line",
            batch.remote_id, batch.status, seen["lines"], batch.requests, counted, odd, missing,
        )  # fmt: skip


def _pages(results: Iterator[BatchResult]) -> Iterator[list[BatchResult]]:
    while page := list(islice(results, PAGE)):
        yield page
