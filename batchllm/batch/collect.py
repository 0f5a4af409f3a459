"""Fetches the results of an ended batch and stores them in the journal.

Three passes, each of which can be interrupted and repeated. First, each line of the two files becomes the reply of
its attempt, unless it has one. Second, an attempt without a line gets a failure that says why, and whether it is
possibly billed. Third, every pending request of the batch gets its state from the reply in the journal: finished, or
open again, so that the same command sends it in a new batch.
"""

import logging
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import IO, Any

from batchllm.answer import Reader
from batchllm.batch.errors import BatchRejection, retry_call
from batchllm.batch.lines import error_response, read_line
from batchllm.batch.steps import DROPPED, GONE
from batchllm.batch.submit import storage
from batchllm.budget.account import Account
from batchllm.budget.usage import LEARNED
from batchllm.client.batches import BatchApi
from batchllm.counters import RunCounters
from batchllm.journal import BatchRecord, BatchResult, BatchState, Journal, State
from batchllm.plan.finished import pages
from batchllm.plan.outcomes import readers
from batchllm.plan.row_counts import count_end
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.records import Answer, Failure, FailureKind, Paid, Response
from batchllm.retry import ENDPOINT_REFUSALS, Disposition, Verdict, classify, may_concern_one_row

log = logging.getLogger("batchllm.runner")

PAGE = 256
PAGE_BYTES = 4_000_000
MAX_POSSIBLY_BILLED = 3
"""Attempts of a request whose results are missing: the first, and at most two more."""

Outcome = Response | Failure


class Collector:
    """Collects the results of ended batches.

    Args:
        api: Opens the endpoint at the first call.
        journal: Where replies and states go.
        prepared: The job; where a row needs several requests, answers are read by the flows that wait for them.
        counters: Counts what was paid.
        collected: Counts rows that are finished.
        account: Says what an answer cost, and learns from the answers.
        ephemeral: The endpoint forgets its batches when the run ends, and bills nothing.

    Attributes:
        fatal: Why further requests would be refused, from the newest result that says so.
    """

    def __init__(
        self,
        api: Callable[[], Awaitable[BatchApi]],
        journal: Journal,
        prepared: PreparedJob,
        *,
        counters: RunCounters,
        collected: RunCounters,
        account: Account,
        ephemeral: bool,
    ) -> None:
        self._api = api
        self._journal = journal
        self._prepared = prepared
        self._single = prepared.flow.single
        self._counters = counters
        self._collected = collected
        self._pricing = account.pricing
        self._learned = account.meter.learned
        self._max_attempts = prepared.job.pace.max_attempts
        self._ephemeral = ephemeral
        self.fatal: Verdict | None = None
        self._rows_own = False

    async def collect(
        self, batch: BatchRecord, rejection: BatchRejection | None, *, answered: bool = False
    ) -> BatchRecord:
        """ENDED → DONE.

        A refusal of key, model or URL fails its row if the batch has answers too, or if the job has some and few
        rows are refused.

        Args:
            batch: The batch.
            rejection: Why its validation failed, if it did.
            answered: The job has answers.

        Raises:
            CallFailed: A file of results cannot be fetched; ``status`` 404: it does not exist any more.
        """
        flags = self._journal.reader().replied(batch)
        seen: Counter[str] = Counter()
        folder = self._journal.path.parent
        for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
            with storage(folder), tempfile.TemporaryFile(dir=folder, prefix=".batchllm-") as file:
                api = await self._fetch(file_id, file)
                await self._keep(_results(file, batch, flags, seen, api.masked))
        if rejection is not None and rejection.lines:
            wrong = {number: error_response(error) for number, error in rejection.lines.items()}
            await self._keep(_unsaved(wrong, batch, flags))
        _warn_of_mismatch(batch, flags, seen)
        self._rows_own = seen["answers"] > 0 or (answered and seen["refused"] < ENDPOINT_REFUSALS)
        ended = await self._finish(batch, self._missing(batch, seen, rejection))
        return self._journal.batches.update(batch, state=BatchState.DONE, finished_rows=ended)

    async def _fetch(self, file_id: str, file: IO[bytes]) -> BatchApi:
        api = await self._api()
        await retry_call(lambda: api.download(file_id, file))
        file.seek(0)
        return api

    async def _keep(self, results: Iterable[tuple[int, Outcome]]) -> None:
        """Saves outcomes; a page is saved whole or not at all."""
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

    def _missing(self, batch: BatchRecord, seen: Counter[str], rejection: BatchRejection | None) -> Failure:
        """Returns the failure of an attempt without a line."""
        if batch.status == DROPPED:
            return Failure(FailureKind.UNSENT, "its batch was never created", Paid.NO, 0.0)
        if rejection is not None:
            return Failure(FailureKind.UNSENT, f"its batch was refused: {rejection.message}", Paid.NO, 0.0)
        if batch.status == GONE:
            paid = Paid.NO if self._ephemeral else Paid.MAYBE
            kind = FailureKind.UNSENT if self._ephemeral else FailureKind.NO_RESULT
            return Failure(kind, "the endpoint does not know its batch any more", paid, 0.0)
        all_there = batch.completed is not None and seen["answers"] >= batch.completed
        if all_there and batch.status in ("expired", "cancelled"):
            return Failure(FailureKind.UNSENT, f"its batch was {batch.status} before it", Paid.NO, 0.0)
        message = f"its batch is {batch.status}, and its files of results have no line for it"
        paid = Paid.NO if all_there else Paid.MAYBE
        return Failure(FailureKind.NO_RESULT, message, paid, 0.0)

    async def _finish(self, batch: BatchRecord, missing: Failure) -> int:
        """Gives every request its state; returns how many are finished."""
        ended = 0
        reader = self._journal.reader()
        if self._prepared.job.per_row:
            reader_of = readers(self._prepared)
            for page in pages(reader.results(batch, by_row=True), PAGE):
                ended += await self._finish_page(page, missing, reader_of)
        for page in pages(reader.results(batch), PAGE):
            ended += await self._finish_page(page, missing, lambda _: self._prepared.reader)
        self._journal.put(LEARNED, self._learned.to_json())
        await self._journal.flush()
        return ended

    async def _finish_page(
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
                ended += self._finish_one(result, result.outcome or missing, row_reader)
        await self._journal.flush()
        return ended

    def _finish_one(self, result: BatchResult, outcome: Outcome, reader: Reader) -> bool:
        verdict = classify(outcome)
        attempts = result.attempts + 1
        answer: Answer | None = None
        state = State.OPEN
        match verdict.disposition:
            case Disposition.ANSWERED | Disposition.REJECTED if isinstance(outcome, Response):
                answer = reader.read(outcome.status, outcome.body)
                usable = verdict.disposition is Disposition.ANSWERED and answer.error is None
                state = State.ANSWERED if usable else State.FAILED
                if not self._single:
                    self._count(verdict, answer, state)
                    self._journal.record_outcome(result.request_id, State.OPEN, result.attempt_id, attempts)
                    return True
            case Disposition.FATAL if (
                self._rows_own and may_concern_one_row(verdict) and isinstance(outcome, Response)
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
        self._log(result, verdict, answer, state, attempts)
        attempt_id = None if state is State.OPEN else result.attempt_id
        self._journal.record_outcome(result.request_id, state, attempt_id, attempts)
        return state is not State.OPEN

    def _log(
        self, result: BatchResult, verdict: Verdict, answer: Answer | None, state: State, attempts: int
    ) -> None:
        """Writes an event for a request without a usable answer."""
        if state is State.ANSWERED:
            return
        row = None if result.row_index is None else result.row_index + 1
        details: dict[str, Any] = {"row": row, "attempts": attempts}
        if answer is not None:
            details |= {"reason": answer.reason, "message": answer.error}
        else:
            details |= {"reason": verdict.reason, "message": verdict.message}
        if state is not State.OPEN:
            self._counters.log.write("failed", **details, final=state is State.FAILED)
        elif verdict.disposition is not Disposition.FATAL:
            refused = verdict.disposition is Disposition.REFUSED
            self._counters.log.write("refused" if refused else "retried", **details)

    def _count(self, verdict: Verdict, answer: Answer | None, state: State) -> None:
        counters, collected = self._counters, self._collected
        counters.requests += 1
        counters.attempts += 1
        if verdict.disposition is Disposition.UNKNOWN:
            counters.possibly_billed += 1
        if answer is not None and verdict.disposition is Disposition.ANSWERED:
            self._learned.add(answer.usage)
            asked = answer.usage, answer.model or ""
            counters.count_answer(
                answer.usage, self._pricing.mode_cost(*asked), self._pricing.saved_by_cache(*asked)
            )
            counters.finish_reasons[answer.finish_reason or "none"] += 1
        if answer is None and state is not State.UNANSWERED:
            counters.retries[verdict.reason] += 1
        elif self._single:
            count_end(collected, answer or Answer(reason=verdict.reason), state)


def _results(
    file: IO[bytes],
    batch: BatchRecord,
    flags: bytearray,
    seen: Counter[str],
    masked: Callable[[Outcome], Outcome],
) -> Iterator[tuple[int, Outcome]]:
    """Yields the outcomes that are not in the journal yet, each attempt's first, masked; counts every line."""
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
            elif may_concern_one_row(classify(result.outcome)):
                seen["refused"] += 1
            yield from _unsaved({result.number: masked(result.outcome)}, batch, flags)


def _unsaved(
    outcomes: dict[int, Outcome] | dict[int, Response], batch: BatchRecord, flags: bytearray
) -> Iterator[tuple[int, Outcome]]:
    """Yields the outcomes, given by line, whose attempts have no reply yet."""
    for number, outcome in outcomes.items():
        if not flags[number]:
            flags[number] = 1
            yield batch.first_attempt + number, outcome


def _warn_of_mismatch(batch: BatchRecord, flags: bytearray, seen: Counter[str]) -> None:
    """Logs if the lines of a batch do not match its requests and its counts."""
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
