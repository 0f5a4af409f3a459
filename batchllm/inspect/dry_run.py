"""``--dry-run``: the whole input read, built and counted, and nothing sent.

One thread reads rows and builds their requests while others count tokens: tiktoken works outside the interpreter's
lock. What is kept of a row is 16 bytes, by which equal requests are found (``Seen``). Nothing is created on the disk;
a journal that is there is read, without its lock, for what has its answer already.
"""

import os
from array import array
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice

import orjson

from batchllm import tokens
from batchllm.budget.estimate import SEEN_PACE, Forecast, Sums
from batchllm.budget.learned import LEARNED, Learned
from batchllm.budget.pricing import Pricing
from batchllm.job import Job
from batchllm.journal import AdmittedRow, JournalReader, State
from batchllm.journal.bill import states_of
from batchllm.plan.conversations import conversation_of, turn_request
from batchllm.plan.plan import FINAL, chosen_rows
from batchllm.plan.reuse import journals_of
from batchllm.prepare.job_paths import job_paths
from batchllm.prepare.prepared_job import PreparedJob, prepare_job
from batchllm.records import ChatRequest, Row
from batchllm.request import RequestBuilder, Skipped, Unsendable
from batchllm.request.messages import TokenCount

BATCH = 128
AHEAD = 4
"""Batches that wait to be counted, for each thread: enough to keep it busy, few enough to weigh nothing."""
SHOWN = 2
"""Requests that are shown in full."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What a look at the whole input found.

    Attributes:
        job: The job.
        forecast: What it has before it.
        first: The first requests that would be sent.
        unsendable: Rows that would fail before they are sent, by reason.
        counted_with: The vocabularies that counted; empty where nothing was counted.
    """

    job: Job
    forecast: Forecast
    first: tuple[ChatRequest, ...] = ()
    unsendable: Counter[str] = field(default_factory=Counter)
    counted_with: tuple[str, ...] = ()


class Seen:
    """A set of keys, in 16 to 32 bytes each.

    Open addressing over their first eight bytes: among a million different keys, two begin alike with a probability
    of 3 in 100 million, and all that depends on it is a count.
    """

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 * 1024))
        self._mask = 1023
        self._count = 0

    def add(self, key: bytes) -> bool:
        """Puts a key in; whether it was there already."""
        value = int.from_bytes(key[:8], "big") or 1
        slots, mask = self._slots, self._mask
        place = value & mask
        while (found := slots[place]) != 0:
            if found == value:
                return True
            place = (place + 1) & mask
        slots[place] = value
        self._count += 1
        if self._count * 2 > mask:
            self._grow()
        return False

    def _grow(self) -> None:
        old = self._slots
        self._mask = mask = self._mask * 2 + 1
        self._slots = slots = array("Q", bytes(8 * (mask + 1)))
        for value in old:
            if value:
                place = value & mask
                while slots[place]:
                    place = (place + 1) & mask
                slots[place] = value


def survey(job: Job, *, threads: int | None = None) -> Survey:
    """Looks at a job's whole input and forecasts it.

    Args:
        job: The job; it needs no key.
        threads: Threads that count; one a core by default.

    Raises:
        JobError: The input, the job or its journal cannot be used; nothing was sent in any case.
    """
    paths = job_paths(job)
    with prepare_job(job, paths) as prepared, ExitStack() as stack:
        own = None
        if paths.journal.exists() and not job.restart:
            own = stack.enter_context(JournalReader.open(paths.journal))
        others = stack.enter_context(journals_of(job.reuse, paths.journal))
        return _Survey(prepared, _Ends(prepared, own, others), own, threads or os.cpu_count() or 1).whole()


class _Ends:
    """Knows which rows have their end already; rows are asked for in input order."""

    def __init__(
        self, prepared: PreparedJob, own: JournalReader | None, others: Sequence[JournalReader]
    ) -> None:
        job = prepared.job
        self._own = own
        self._others = others
        self._dedupe = job.dedupe
        self._final = (State.ANSWERED, State.PENDING) if job.retry_failed else FINAL
        self._ordinals: Counter[bytes] = Counter()
        same = own is not None and own.get("source") == prepared.statistics.sha256
        same = same and own is not None and own.get("fingerprint") == job.fingerprint()
        self._planned: Iterator[AdmittedRow] | None = own.planned() if same and own is not None else None
        self._next = None if self._planned is None else next(self._planned, None)

    @property
    def any(self) -> bool:
        """Whether there is a journal to ask at all."""
        return self._own is not None or bool(self._others)

    def of(self, requests: Sequence[tuple[ChatRequest, bool]]) -> list[bool]:
        """For each request, and whether an equal one came before it: whether it has its end."""
        if not self.any:
            return [False] * len(requests)
        wanted = [(request.key, self._ordinal(request.key, equal)) for request, equal in requests]
        ended = [self._planned_end(request.row_index) for request, _ in requests]
        if self._own is not None and self._planned is None:
            states = states_of(self._own, wanted)
            ended = [states.get(pair) in self._final for pair in wanted]
        for other in self._others:
            states = states_of(other, wanted)
            ended = [
                is_ended or states.get(pair) is State.ANSWERED
                for is_ended, pair in zip(ended, wanted, strict=True)
            ]
        return ended

    def _ordinal(self, key: bytes, equal: bool) -> int:
        if self._dedupe or not equal:
            return 0
        self._ordinals[key] += 1
        return self._ordinals[key]

    def _planned_end(self, row_index: int) -> bool:
        """By the row's number, where the journal's last pass was over the same bytes with the same job."""
        if self._planned is None:
            return False
        while self._next is not None and self._next.row_index < row_index:
            self._next = next(self._planned, None)
        found = self._next
        return found is not None and found.row_index == row_index and found.state in self._final


class _Survey:
    """One look at one input."""

    def __init__(self, prepared: PreparedJob, ends: _Ends, own: JournalReader | None, threads: int) -> None:
        self._prepared = prepared
        self._job = prepared.job
        self._ends = ends
        self._threads = threads
        self._builder = RequestBuilder(
            self._job, prepared.statistics.columns, prepared.statistics.sample, None
        )
        self._learned = Learned(own.get(LEARNED) if own is not None else None)
        self._pace_seen = own.get(SEEN_PACE) if own is not None else None
        self._sums = Sums(Pricing(self._job), self._job.endpoint.charge, self._learned)
        self._seen = Seen()
        self._answered = self._duplicates = self._skipped = 0
        self._first: list[ChatRequest] = []
        self._unsendable: Counter[str] = Counter()
        self._exact = True
        self._conversations: dict[int, int] = {}
        self._count = _Count()

    def whole(self) -> Survey:
        statistics, job = self._prepared.statistics, self._job
        chosen = chosen_rows(statistics.rows, limit=job.limit, sample=job.sample, seed=job.seed)
        rows = self._prepared.source.rows()
        wanted: Iterable[Row] = rows if chosen is None else (row for row in rows if row.index in chosen)
        pending: deque[tuple[list[tuple[ChatRequest, int | None]], Future[list[int]]]] = deque()
        with ThreadPoolExecutor(self._threads, thread_name_prefix="count") as pool:
            for batch in self._batches(iter(wanted)):
                bodies = [(request.model, request.body) for request, _ in batch]
                pending.append((batch, pool.submit(self._count.prompts, bodies)))
                while pending and (pending[0][1].done() or len(pending) > AHEAD * self._threads):
                    self._add(*pending.popleft())
            while pending:
                self._add(*pending.popleft())
        forecast = self._sums.forecast(
            rows=statistics.rows if chosen is None else len(chosen),
            exact=self._exact and self._count.exact,
            pace=job.pace,
            seen=self._pace_seen,
        )
        forecast = replace(
            forecast,
            answered=self._answered,
            duplicates=self._duplicates,
            skipped=self._skipped,
            unsendable=self._unsendable.total(),
        )
        return Survey(job, forecast, tuple(self._first), self._unsendable, self._count.names())

    def _batches(self, rows: Iterator[Row]) -> Iterator[list[tuple[ChatRequest, int | None]]]:
        """The requests that have to be sent, with their conversations."""
        while page := list(islice(rows, BATCH)):
            built: list[tuple[ChatRequest, bool]] = []
            names: list[int | None] = []
            for row in page:
                match request := self._build(row):
                    case ChatRequest():
                        built.append((request, self._seen.add(request.key)))
                        names.append(self._conversation(row))
                    case Skipped():
                        self._skipped += 1
                    case Unsendable(reason=reason):
                        self._unsendable[reason] += 1
            self._duplicates += sum(equal for _, equal in built)
            ended = self._ends.of(built)
            self._answered += sum(ended)
            batch = [
                (request, name)
                for (request, equal), name, is_ended in zip(built, names, ended, strict=True)
                if not is_ended and not (equal and self._job.dedupe)
            ]
            self._first += [request for request, _ in batch[: SHOWN - len(self._first)]]
            if batch:
                yield batch

    def _build(self, row: Row) -> ChatRequest | Skipped | Unsendable:
        column = self._job.conversation
        name = None if column is None else conversation_of(row, column)
        return self._builder.build(row) if name is None else turn_request(self._builder, row, name, [])

    def _conversation(self, row: Row) -> int | None:
        column = self._job.conversation
        name = None if column is None else conversation_of(row, column)
        return None if name is None else hash(name)

    def _add(self, batch: list[tuple[ChatRequest, int | None]], counted: "Future[list[int]]") -> None:
        for (request, name), prompt in zip(batch, counted.result(), strict=True):
            if b'"image_url"' in request.body:
                self._exact = False
            if name is not None:
                prompt = self._with_turns_before(name, prompt, request.max_tokens)
            self._sums.add(request.model, prompt, request.max_tokens)

    def _with_turns_before(self, name: int, prompt: int, bound: int | None) -> int:
        """The prompt of a turn with the turns before it, whose answers nobody knows yet."""
        self._exact = False
        before = self._conversations.get(name, 0)
        answer = self._learned.high(bound)
        self._conversations[name] = before + prompt + (answer if answer is not None else (bound or 0) // 2)
        return prompt + before


class _Count:
    """Counts the prompts of bodies, on several threads at once."""

    def __init__(self) -> None:
        self._of: dict[str, TokenCount] = {}

    @property
    def exact(self) -> bool:
        """Whether every model was counted with its own vocabulary."""
        return all(tokens.counter(model).exact for model in self._of)

    def names(self) -> tuple[str, ...]:
        """The vocabularies that counted."""
        found = {tokens.counter(model).encoding_name or "an estimate" for model in self._of}
        return tuple(sorted(found))

    def prompts(self, bodies: Sequence[tuple[str, bytes]]) -> list[int]:
        """Tokens of the prompt of each body."""
        counted = []
        for model, body in bodies:
            count = self._of.get(model)
            if count is None:
                count = self._of[model] = TokenCount(tokens.counter(model))
            data = orjson.loads(body)
            counted.append(count.prompt(data["messages"], data))
        return counted
