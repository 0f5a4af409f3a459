"""``--dry-run``: reads the whole input, builds and counts every request, and sends nothing.

One thread reads rows and builds their requests while others count tokens: tiktoken works outside the interpreter's
lock. No file is created; an existing journal is read without its lock, to see which rows are finished.
"""

import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import orjson

from batchllm import tokens
from batchllm.budget.account import refuse_unbounded
from batchllm.budget.costs import Pricing
from batchllm.budget.estimate import SEEN_PACE, RequestTotals
from batchllm.budget.forecast import Forecast
from batchllm.budget.usage import LEARNED, UsageEstimator
from batchllm.flows import job_flow
from batchllm.job import Job
from batchllm.journal import PLAN, JournalReader, State
from batchllm.plan.chosen import chosen_rows
from batchllm.plan.finished import final_states, pages
from batchllm.plan.preview import Preview
from batchllm.plan.reuse import journals_of
from batchllm.prepare.first_preset import with_first_preset
from batchllm.prepare.job_paths import job_paths
from batchllm.prepare.prepared_job import PreparedJob, prepare_job
from batchllm.records import ChatRequest, Row
from batchllm.request import RequestBuilder, Skipped, Unsendable, answer_settings
from batchllm.request.messages import TokenCount
from batchllm.runner.cut_off import check_retry, is_same_pass, with_raised_limit
from batchllm.runner.cut_off_rows import asked_again, cut_off_rows

BATCH = 128
AHEAD = 4
"""Batches that wait to be counted, for each thread: enough to keep it busy, few enough to need little memory."""
SHOWN = 2
"""Requests that are shown in full."""


class ToCount(NamedTuple):
    """A request to be counted.

    Attributes:
        request: What would be sent.
        path: Its path in the row's flow.
        conversation: Its conversation.
        upper: It belongs to the upper bound, and otherwise to the expectation.
        both: It belongs to both.
    """

    request: ChatRequest
    path: str
    conversation: str | None
    upper: bool
    both: bool = False


Batch = list[ToCount]


@dataclass(frozen=True, slots=True)
class DryRun:
    """The result of a dry run.

    Attributes:
        job: The job.
        forecast: What is left to send, and what that costs.
        first: The first requests that would be sent.
        unsendable: Rows that would fail before they are sent, by reason.
        counted_with: The vocabularies that counted; empty if nothing was counted.
    """

    job: Job
    forecast: Forecast
    first: tuple[ChatRequest, ...] = ()
    unsendable: Counter[str] = field(default_factory=Counter)
    counted_with: tuple[str, ...] = ()


def dry_run(job: Job) -> DryRun:
    """Reads a job's whole input and forecasts the job.

    Args:
        job: The job; it needs no key.

    Raises:
        JobError: The input, the job or its journal cannot be used.
    """
    paths = job_paths(job)
    job = with_first_preset(with_raised_limit(job, paths.journal), paths.journal)
    with prepare_job(job, paths) as prepared, ExitStack() as stack:
        refuse_unbounded(prepared, Pricing(job))
        own = None
        if paths.journal.exists() and not job.restart:
            own = stack.enter_context(JournalReader.open(paths.journal))
        others = stack.enter_context(journals_of(job.reuse, paths.journal))
        return _Counting(prepared, own, others).run()


class _Counting:
    """Counts the rows and tokens of one input."""

    def __init__(
        self, prepared: PreparedJob, own: JournalReader | None, others: Sequence[JournalReader]
    ) -> None:
        self._prepared = prepared
        self._job = job = prepared.job
        self._builder = RequestBuilder(job, prepared.statistics.columns, prepared.statistics.sample, None)
        cut_off = []
        if own is not None and job.raised_max_tokens is not None:
            check_retry(prepared, is_same=is_same_pass(prepared, own.get(PLAN)))
            cut_off = cut_off_rows(prepared, own)
        self._again = {each.row_index for each in cut_off}
        self._cut_off = 0
        self._learned = UsageEstimator(own.get(LEARNED) if own is not None else None)
        self._pace_seen = own.get(SEEN_PACE) if own is not None else None
        pricing = Pricing(job)
        self._sums = RequestTotals(pricing, job.endpoint.charge, self._learned)
        self._upper_sums = RequestTotals(pricing, job.endpoint.charge, self._learned)
        flow = job_flow(job, self._builder)
        self._single = flow.single
        # In batch mode nothing is re-asked unless it is said.
        self._waves = flow.waves if job.via == "batch" else max(1, len(job.steps))
        self._preview = Preview(
            flow,
            own,
            others,
            final=set(final_states(job.retry_failed)),
            dedupe=job.dedupe,
            again=asked_again(cut_off),
            stand_ins=self._learned.stand_ins(),
        )
        self._duplicates = self._skipped = 0
        self._known: Counter[State] = Counter()
        self._first: list[ChatRequest] = []
        self._unsendable: Counter[str] = Counter()
        self._exact = True
        self._history_tokens: Counter[tuple[str, bool]] = Counter()
        self._counter = _PromptCounter()

    def run(self) -> DryRun:
        statistics, job = self._prepared.statistics, self._job
        chosen = chosen_rows(job, statistics.rows)
        rows = self._prepared.source.rows()
        wanted: Iterable[Row] = rows if chosen is None else (row for row in rows if row.index in chosen)
        pending: deque[tuple[Batch, Future[list[int]]]] = deque()
        threads = os.cpu_count() or 1
        with ThreadPoolExecutor(threads, thread_name_prefix="count") as pool:
            for batch in self._batches(wanted):
                bodies = [(each.request.model, each.request.body) for each in batch]
                pending.append((batch, pool.submit(self._counter.count, bodies)))
                while pending and (pending[0][1].done() or len(pending) > AHEAD * threads):
                    self._add(*pending.popleft())
            while pending:
                self._add(*pending.popleft())
        forecast = self._sums.forecast(
            rows=statistics.rows if chosen is None else len(chosen),
            exact=self._exact and self._counter.exact,
            pace=job.pace,
            seen=self._pace_seen,
            upper=None if self._single else self._upper_sums,
        )
        forecast = replace(
            forecast,
            answered=self._known[State.ANSWERED],
            failed=self._known[State.FAILED],
            cut_off=self._cut_off,
            pending=self._known[State.PENDING],
            duplicate_rows=self._duplicates,
            skipped=self._skipped,
            unsendable=self._unsendable.total(),
            input_notes=self._prepared.input_notes,
            settings=answer_settings(self._builder.column, self._builder.shots, self._first),
            waves=self._waves if forecast.parts is None else 1 + forecast.parts.levels_upper_bound,
        )
        return DryRun(job, forecast, self._shown(), self._unsendable, self._counter.vocabularies())

    def _shown(self) -> tuple[ChatRequest, ...]:
        """Returns the requests that are shown: of steps only the first, since the later ones hold stand-ins."""
        if not self._job.steps:
            return tuple(self._first)
        firsts: dict[int, ChatRequest] = {}
        for request in self._first:
            firsts.setdefault(request.row_index, request)
        return tuple(firsts.values())

    def _batches(self, rows: Iterable[Row]) -> Iterator[Batch]:
        """Builds the requests that have to be sent, and counts the other rows."""
        for page in pages(rows, BATCH):
            batch: Batch = []
            for row in self._preview.look(page):
                self._duplicates += row.duplicate
                match row.unsent:
                    case Skipped():
                        self._skipped += 1
                    case Unsendable(reason=reason):
                        self._unsendable[reason] += 1
                is_again = row.row.index in self._again
                self._cut_off += is_again
                if row.state is not None and not is_again:
                    self._known[row.state] += 1
                requests = row.requests
                shown = SHOWN * max(1, len(self._job.steps)) - len(self._first)
                self._first += [each.request for each in requests[:shown]]
                longest = row.longest or requests
                both = not self._single and longest is requests
                batch += [ToCount(request, path, row.conversation, False, both) for path, request in requests]
                if not (self._single or both):
                    batch += [ToCount(request, path, row.conversation, True) for path, request in longest]
            if batch:
                yield batch

    def _add(self, batch: Batch, counted: "Future[list[int]]") -> None:
        for (request, path, conversation, upper, both), prompt in zip(batch, counted.result(), strict=True):
            if b'"image_url"' in request.body:
                self._exact = False
            if conversation is not None:
                prompt = self._with_history((conversation, upper), prompt, request.max_tokens)
            own = self._upper_sums if upper else self._sums
            for sums in (self._sums, self._upper_sums) if both else (own,):
                sums.add(request.model, prompt, request.max_tokens, path=path)

    def _with_history(self, conversation: tuple[str, bool], prompt: int, max_tokens: int | None) -> int:
        """Adds the turns before this one, with an estimate of their answers."""
        self._exact = False
        before = self._history_tokens[conversation]
        answer = self._learned.high(max_tokens)
        if answer is None:
            answer = (max_tokens or 0) // 2
        self._history_tokens[conversation] += prompt + ((max_tokens or answer) if conversation[1] else answer)
        return prompt + before


class _PromptCounter:
    """Counts the tokens of prompts; called by several threads at once."""

    def __init__(self) -> None:
        self._by_model: dict[str, TokenCount] = {}

    @property
    def exact(self) -> bool:
        """Whether every model was counted with its own vocabulary."""
        return all(tokens.counter(model).exact for model in self._by_model)

    def vocabularies(self) -> tuple[str, ...]:
        found = {tokens.counter(model).encoding_name or "an estimate" for model in self._by_model}
        return tuple(sorted(found))

    def count(self, bodies: Sequence[tuple[str, bytes]]) -> list[int]:
        """Counts the prompt of each body; takes pairs of model and body."""
        counted = []
        for model, body in bodies:
            count = self._by_model.get(model)
            if count is None:
                count = self._by_model[model] = TokenCount(tokens.counter(model))
            data = orjson.loads(body)
            counted.append(count.prompt(data["messages"], data))
        return counted
