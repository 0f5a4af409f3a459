"""The page that shows the run: from a job to the file with its answers.

The lock comes first, then everything that can be wrong without costing money, then the journal, then the road
that brings the answers, then the output. Whatever happens on the road, what was received is in the journal.
"""

import asyncio
import hashlib
import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from batchllm import __version__
from batchllm.answer import ASK_AGAIN
from batchllm.errors import Interrupted, JobError, UsageError
from batchllm.job import Job
from batchllm.journal import Admitted, JobLock, Journal, State, check_folder, check_space, set_aside
from batchllm.limiter import Limiter
from batchllm.progress import Progress, Quiet
from batchllm.records import Answer, ChatRequest, Failure, Response
from batchllm.request import ask_again
from batchllm.retry import Fate, RetryPolicy, classify
from batchllm.runner.export import Figures, export
from batchllm.runner.forecast import Forecast, forecast_job
from batchllm.runner.guard import refuse_change
from batchllm.runner.online import Online, Ticket
from batchllm.runner.places import check_output, digest_of, places_of
from batchllm.runner.plan import Plan, chosen_rows
from batchllm.runner.result import Result, Summary, exit_status_of
from batchllm.runner.saved import saved
from batchllm.runner.stage import Stage, set_up
from batchllm.runner.tally import Tally

Confirm = Callable[[Forecast], None]
SHOW_EVERY_S = 0.25
BYTES_PER_ROW = 4_000
"""Room that a row is expected to need in journal and output together, at most, beside its own bytes."""


def run_job(
    job: Job, *, progress: Progress | None = None, confirm: Confirm = lambda forecast: None
) -> Result:
    """Runs a job to its end, or as far as it goes; the same call again goes on where it stopped.

    Args:
        job: What to do.
        progress: Shows how far it is; shows nothing by default.
        confirm: Told the forecast before the first request; raises to stop there.

    Returns:
        The finished run: its output is written.

    Raises:
        JobError: The job could not go on; everything received is in the journal.
    """
    places = places_of(job)
    check_folder(places.journal)
    with (
        JobLock(places.lock, wait_s=job.wait_lock_s),
        set_up(job, places) as stage,
        _endpoint(stage) as stage,
    ):
        return asyncio.run(_Run(stage, progress or Quiet(), confirm).whole())


class _Run:
    """One run, step by step."""

    def __init__(self, stage: Stage, progress: Progress, confirm: Confirm) -> None:
        self._stage = stage
        self._job = stage.job
        self._places = stage.places
        self._progress = progress
        self._confirm = confirm
        self._chosen = chosen_rows(
            stage.census.rows, limit=stage.job.limit, sample=stage.job.sample, seed=stage.job.seed
        )
        rows = stage.census.rows if self._chosen is None else len(self._chosen)
        self._tally = Tally(rows=rows)
        self._pace = ""

    async def whole(self) -> Result:
        started_s = asyncio.get_running_loop().time()
        journal = self._open_journal()
        status: int | None = None
        try:
            known = self._begin(journal)
            await self._answer_rows(journal, known)
            await journal.flush()
            figures = self._write(journal)
            seconds = asyncio.get_running_loop().time() - started_s
            summary = self._summary(journal, figures, seconds)
            status = summary.exit_status
            self._write_summary(summary)
            return Result(
                output=self._places.output,
                summary=summary,
                maybe_paid_rows=maybe_paid_rows(journal),
                samples=tuple(figures.samples) if self._chosen is not None else (),
                pace=self._pace,
                delimiter=self._stage.source.format.delimiter,
            )
        except JobError as error:
            status = int(error.exit_status)
            seconds = asyncio.get_running_loop().time() - started_s
            self._write_summary(self._stopped(journal, seconds, status))
            raise
        finally:
            journal.close(status)

    def _open_journal(self) -> Journal:
        """Opens the journal once the output is known to be ours and there is room for both."""
        job, places = self._job, self._places
        check_space(places.journal.parent, self._stage.census.bytes + self._tally.rows * BYTES_PER_ROW)
        if job.restart:
            set_aside(places.journal)
        journal = Journal.open(places.journal, version=__version__)
        try:
            if places.output is not None:
                written = journal.get("output") or {}
                known = (
                    written.get("sha256") if written.get("path") == str(places.output.absolute()) else None
                )
                check_output(places.output, known_sha256=known, force=job.force)
            refuse_change(self._stage, journal, self._chosen)
        except BaseException:
            journal.close()
            raise
        return journal

    def _begin(self, journal: Journal) -> Iterator[Admitted]:
        """Continues the last pass over the input where it was the same, and settles what a crash left open."""
        stage = self._stage
        fingerprint = json.dumps(
            [stage.census.sha256, self._job.fingerprint(), stage.census.columns], sort_keys=True
        )
        identity = hashlib.sha256(fingerprint.encode()).hexdigest()
        plan = journal.begin_plan(identity, dedupe=self._job.dedupe)
        journal.put("fingerprint", self._job.fingerprint())
        journal.put("job", saved(self._job))
        journal.put("source", stage.census.sha256)
        journal.put("rows", stage.census.rows)
        for reply in journal.unsettled():
            answer = stage.reader.read(reply.response.status, reply.response.body)
            match classify(reply.response).fate:
                case Fate.ANSWERED:
                    state = State.ANSWERED if answer.error is None else State.FAILED
                    journal.settle(reply.request_id, state, reply.attempt_id, reply.attempts)
                case Fate.REJECTED:
                    journal.settle(reply.request_id, State.FAILED, reply.attempt_id, reply.attempts)
        left = self._tally.rows
        if plan.continued:
            counts = journal.reader().counts()
            left -= counts.answered + counts.failed + counts.skipped + counts.unsendable
        self._confirm(forecast_job(stage, rows=self._tally.rows, left=max(0, left)))
        return journal.planned() if plan.continued else iter(())

    async def _answer_rows(self, journal: Journal, known: Iterator[Admitted]) -> None:
        job, tally = self._job, self._tally
        plan = Plan(
            self._stage.source.rows(),
            self._stage.builder,
            journal,
            known=known,
            tally=tally,
            chosen=self._chosen,
            retry_failed=job.retry_failed,
        )
        loop = asyncio.get_running_loop()
        limiter: Limiter[Ticket] = Limiter(
            job.pace, charge=job.endpoint.charge, now=loop.time(), learned=journal.get("learned")
        )
        async with AsyncExitStack() as stack:
            road = Online(
                client=_OnDemand(job, stack),
                limiter=limiter,
                journal=journal,
                retry=RetryPolicy(job.pace.max_attempts),
                tally=tally,
                grace_s=job.grace_s,
                settled=lambda ticket, answer, state: plan.settled(ticket, state),
                ask_again=self._ask_again,
            )
            self._progress.start(tally.rows, 0)
            ticker = asyncio.create_task(self._tick(limiter))
            try:
                with _signals(road):
                    await road.run(plan.batches())
            finally:
                ticker.cancel()
                self._show(limiter)
                self._progress.close()
                journal.put("learned", limiter.learned())
                self._pace = _pace_words(limiter, loop.time())

    def _ask_again(self, ticket: Ticket, answer: Answer) -> ChatRequest | None:
        if answer.reason in ASK_AGAIN and ticket.asked_again < self._job.reask:
            return ask_again(ticket.request, answer)
        return None

    def _write(self, journal: Journal) -> Figures:
        """Writes the output, unless what is there already is this very view."""
        places = self._places
        view = json.dumps([journal_view(self._stage), str(self._chosen)])
        last: dict[str, Any] = journal.get("output") or {}
        if (
            places.output is not None
            and self._tally.attempts == 0
            and last.get("view") == view
            and places.output.exists()
            and digest_of(places.output) == last.get("sha256")
        ):
            return Figures(**last["figures"])
        written, figures = export(self._stage, journal.reader(), path=places.output, chosen=self._chosen)
        if places.output is not None:
            kept = {name: getattr(figures, name) for name in Figures.__slots__}
            journal.put(
                "output",
                {
                    "path": str(places.output.absolute()),
                    "sha256": written.sha256,
                    "view": view,
                    "figures": kept,
                },
            )
        return figures

    def _summary(self, journal: Journal, figures: Figures, seconds: float) -> Summary:
        status = exit_status_of(figures.failed, figures.answered + figures.failed, self._job.allow_failed)
        return replace(
            self._stopped(journal, seconds, int(status)),
            rows=figures.rows,
            answered=figures.answered,
            skipped=figures.skipped,
            failed=figures.failed,
            failed_by_reason=dict(figures.failed_by_reason),
            finish_reasons=dict(figures.finish_reasons),
        )

    def _stopped(self, journal: Journal, seconds: float, status: int) -> Summary:
        """The figures of this run alone, which is all there is when it is stopped on the way."""
        tally = self._tally
        return Summary(
            rows=tally.rows,
            answered=tally.answered + tally.before,
            skipped=tally.skipped,
            failed=tally.failed + tally.unanswered,
            failed_by_reason=dict(tally.failed_by_reason),
            finish_reasons=dict(tally.finish_reasons),
            requests=tally.requests,
            attempts=tally.attempts,
            found=tally.before,
            maybe_paid_twice=tally.maybe_paid + len(journal.orphans),
            prompt_tokens=tally.prompt_tokens,
            completion_tokens=tally.completion_tokens,
            total_tokens=tally.tokens,
            refusals=tally.refusals,
            retries=dict(tally.retries),
            seconds=round(seconds, 3),
            exit_status=status,
        )

    def _write_summary(self, summary: Summary) -> None:
        if self._job.summary is not None:
            summary.write(self._job.summary)

    async def _tick(self, limiter: Limiter[Ticket]) -> None:
        while True:
            await asyncio.sleep(SHOW_EVERY_S)
            self._show(limiter)

    def _show(self, limiter: Limiter[Ticket]) -> None:
        tally = self._tally
        view = limiter.view(asyncio.get_running_loop().time())
        note = "" if view.limits == "nothing" else f"limit: {view.limits}"
        self._progress.show(tally.ended, tally.failed + tally.unanswered, tally.tokens, note)


class _OnDemand:
    """A client that is opened by the first request: a job with nothing to send needs none."""

    def __init__(self, job: Job, stack: AsyncExitStack) -> None:
        self._job = job
        self._stack = stack
        self._opening: asyncio.Task[Any] | None = None

    async def send(self, request: ChatRequest) -> Response | Failure:
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        client = await asyncio.shield(self._opening)
        outcome: Response | Failure = await client.send(request)
        return outcome

    async def _open(self) -> Any:
        from batchllm.client import Client

        return await self._stack.enter_async_context(
            Client(self._job.endpoint, timeout_s=self._job.pace.timeout_s)
        )


@contextmanager
def _endpoint(stage: Stage) -> Iterator[Stage]:
    """The stage with an endpoint that can be reached: starts the simulator where it is asked for by name."""
    job = stage.job
    if job.endpoint.preset != "simulator" or job.endpoint.base_url:
        yield stage
        return
    from batchllm.simulator import SimulatorSettings, start_in_thread

    with start_in_thread(SimulatorSettings()) as simulator:
        endpoint = replace(job.endpoint, base_url=simulator.base_url)
        yield replace(stage, job=replace(job, endpoint=endpoint))


@contextmanager
def _signals(road: Online) -> Iterator[None]:
    """The first signal stops the run in order, the second at once; only the main thread hears signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    seen: list[int] = []

    def heard(number: int) -> None:
        seen.append(number)
        road.stop(Interrupted(seen[0]))
        if len(seen) > 1:
            road.abort()

    for number in numbers:
        loop.add_signal_handler(number, partial(heard, number))
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def maybe_paid_rows(journal: Journal) -> tuple[int, ...]:
    """Rows, from 1, whose requests a dead run may have paid without an answer."""
    return tuple(sorted({orphan.row_index + 1 for orphan in journal.orphans if orphan.row_index is not None}))


def journal_view(stage: Stage) -> dict[str, Any]:
    """What shapes the output beside the answers: where it is equal, an output need not be written again."""
    return {
        "columns": [list(stage.columns.order), list(map(list, stage.columns.fields))],
        "format": stage.output_format,
        "source": stage.census.sha256,
    }


def _pace_words(limiter: Limiter[Ticket], now: float) -> str:
    view = limiter.view(now)
    words = []
    if view.requests_per_minute:
        words.append(f"{view.requests_per_minute:,.0f} requests/min")
    if view.tokens_per_minute:
        words.append(f"{view.tokens_per_minute:,.0f} tokens/min")
    return ", ".join(words)


def need_model(job: Job) -> None:
    """Refuses a job without a model.

    Raises:
        UsageError: No model is named and none can be chosen.
    """
    if not job.endpoint.model and not job.per_row:
        raise UsageError("no model: name one with --model, or set OPENAI_MODEL")
