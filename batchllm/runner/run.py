"""The whole run in one place, from a job to its output file.

Lock, check everything that can be wrong without costing money, open the journal, answer the rows, write the output.
Whatever stops the run, everything received is in the journal.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial

from batchllm.batch.waiting import Waiting, waiting_for
from batchllm.budget.account import Account
from batchllm.budget.forecast import Forecast
from batchllm.counters import RunCounters
from batchllm.endpoint import LazyClient, reachable
from batchllm.errors import Interrupted, JobError
from batchllm.job import Job
from batchllm.job.endpoints import names_of
from batchllm.journal import FINISHED, TRIAL, JobLock, Journal, JournalReader, State
from batchllm.leases import Leases
from batchllm.leases.leased_budget import LeasedBudget
from batchllm.online.loop import OnlineLoop
from batchllm.plan.chosen import chosen_rows
from batchllm.plan.job_plan import plan_of
from batchllm.plan.reuse import Reuse, journals_of
from batchllm.plan.work_item import ChatSender
from batchllm.prepare.first_preset import with_first_preset
from batchllm.prepare.job_paths import check_job_paths, job_paths, made_folder
from batchllm.prepare.prepared_job import PreparedJob, prepare_job
from batchllm.prepare.shards import RowRange
from batchllm.progress import Progress, Quiet
from batchllm.request.plain import plain_request
from batchllm.retry import RetryPolicy
from batchllm.runner.cut_off import with_raised_limit
from batchllm.runner.cut_off_rows import rows_again
from batchllm.runner.display import RunDisplay
from batchllm.runner.ending import RunRecord, recorded, status_of
from batchllm.runner.evaluated import RunEvaluation
from batchllm.runner.feed import RowFeed
from batchllm.runner.leased import leased
from batchllm.runner.limiters import lease_loop, limiter_of
from batchllm.runner.output import read_options, write_if_changed
from batchllm.runner.result import Result
from batchllm.runner.resume import ResumedJob
from batchllm.runner.skipped import skipped_paths
from batchllm.runner.summary import Summary, exit_status_of, rate_text, summary_of, with_output, with_rows
from batchllm.runner.trial import asked_of
from batchllm.stopping import RunStop, Stops, run_stop

Confirm = Callable[[Forecast], None]


def run_job(
    job: Job,
    *,
    progress: Progress | None = None,
    confirm: Confirm = lambda forecast: None,
    client: ChatSender | None = None,
    wait: bool = False,
    stops: Stops | None = None,
    feed: RowFeed | None = None,
    bring_input: Callable[[], None] = lambda: None,
    leases: Leases | None = None,
    rows: RowRange | None = None,
    sha256: str | None = None,
) -> Result:
    """Runs a job until it is finished or stopped; the same call again resumes it.

    Args:
        job: The job.
        progress: Shows the progress; shows nothing by default.
        confirm: Called with the forecast before the first request; raises to stop there.
        client: Sends the requests, instead of a client of the job's endpoint.
        wait: Wait for batches that are under way, instead of raising ``NotReady``.
        stops: What may stop the run from outside; by default nothing does.
        feed: Hands out the finished rows.
        bring_input: Called once the job is locked, before its input is read; puts the input in place.
        leases: Makes the run share rate limits and budget with others; only in online mode.
        rows: The only rows of the job: a shard of its input.
        sha256: The hash that the input must have, in hexadecimal; ``None`` for any.

    Returns:
        The finished run; its output is written.

    Raises:
        JobError: The job could not go on; everything received is in the journal.
        Interrupted: It was stopped from outside; everything received is in the journal.
    """
    stops = stops or Stops()
    with recorded(job) as record:
        paths = job_paths(job)
        check_job_paths(job, paths)
        record.begin()
        waiting = waiting_for(job, wait=wait)
        with ExitStack() as held:
            held.enter_context(made_folder(paths.output if job.into_folder else None))
            for lock in paths.locks:
                held.enter_context(JobLock(lock, wait_s=job.wait_lock_s, check=stops.check))
            bring_input()
            first = with_first_preset(with_raised_limit(job, paths.journal), paths.journal)
            job = held.enter_context(reachable(first))
            prepared = held.enter_context(prepare_job(job, paths, rows, sha256=sha256))
            reuse = held.enter_context(journals_of(job.reuse, paths.journal))
            record.describe(job)
            run = _Run(
                prepared, record, progress or Quiet(), confirm, client, reuse, waiting, stops, feed or RowFeed(),
                leases, rows,
            )  # fmt: skip
            with asyncio.Runner() as loop:  # asyncio.run may be another one in a notebook (nest_asyncio)
                return loop.run(run.run())


@dataclass(eq=False)
class _Run:
    prepared: PreparedJob
    record: RunRecord
    progress: Progress
    confirm: Confirm
    client: ChatSender | None
    reuse: Sequence[JournalReader]
    waiting: Waiting
    stops: Stops
    feed: RowFeed
    leases: Leases | None
    rows: RowRange | None

    def __post_init__(self) -> None:
        prepared, rows = self.prepared, self.rows
        self._job = prepared.job
        self._account = Account(prepared)
        among = prepared.statistics.rows
        self._chosen = (rows and rows.chosen) or chosen_rows(prepared.job, among)
        self._evaluation = RunEvaluation(prepared, self._chosen) if prepared.job.gold else None
        self._counters = RunCounters(
            rows=among if self._chosen is None else len(self._chosen),
            log=self.record.log,
            has_worked=rows is not None and rows.has_worked,
        )

    async def run(self) -> Result:
        resumed = ResumedJob(self.prepared, rows=self._counters.rows, chosen=self._chosen)
        journal = resumed.journal
        try:
            self._begin(resumed)
        except BaseException:
            resumed.withdraw()
            raise
        self._started_s = asyncio.get_running_loop().time()
        status: int | None = None
        try:
            self.stops.check()
            async with self.feed.following(
                self.prepared, journal, self._counters, continued=resumed.continued, chosen=self._chosen
            ):
                await self._answer_rows(journal, continued=resumed.continued)
            result = self._written(resumed)
            status = result.exit_status
            await self.feed.finish()
            return result
        except BaseException as error:
            if isinstance(error, (JobError, Interrupted)):
                status = int(error.exit_status)
            figures = self._summary(journal, status_of(error))
            if isinstance(error, (JobError, Interrupted)):
                with suppress(JobError):  # the error to report is the one that stopped the job
                    states = resumed.counts_of_pass()
                    figures = with_rows(figures, states)
                    error.kept = states.finished, self._counters.rows
            self.record.figures = figures
            raise
        finally:
            journal.close(status)

    def _written(self, resumed: ResumedJob) -> Result:
        """Writes the output, and returns the result."""
        journal, destination = resumed.journal, resumed.destination
        counts = write_if_changed(
            self.prepared,
            journal,
            destination=destination,
            chosen=self._chosen,
            prices=self._account.pricing.identity(),
            changed=self._counters.attempts > 0,
        )
        trial = self._chosen is not None
        journal.put(TRIAL if trial else FINISHED, resumed.plan_id)
        sent = counts.failed + counts.answered
        bad_rows = self.prepared.statistics.bad_rows
        status = exit_status_of(counts.failed, sent, self._job.allow_failed, bad_rows=bad_rows)
        summary = with_output(self._summary(journal, int(status)), counts)
        self.record.figures = summary
        return Result(
            output=destination.path,
            instead_of=destination.instead_of,
            summary=summary,
            evaluation=None if self._evaluation is None else self._evaluation.evaluate(journal),
            job=self._job,
            possibly_billed_rows=possibly_billed_rows(journal),
            samples=tuple(counts.samples) if trial else (),
            asked=asked_of(self.prepared, counts.sample_rows) if trial else (),
            failures=counts.failures,
            pace=rate_text(summary),
            read_options=read_options(self.prepared, destination.path),
            skipped=skipped_paths(self.prepared, destination),
        )

    def _begin(self, resumed: ResumedJob) -> None:
        """Says what is left to do before anything is sent, and begins where the last run stopped.

        Raises:
            UsageError: The user does not want it.
        """
        journal = resumed.journal
        self._account.begin(journal, self._counters, LeasedBudget if self.leases else None)
        counts, rows = resumed.counts(), self._counters.rows
        cut_off = resumed.cut_off()
        again = Counter(each.state for each in cut_off)
        answered = counts.answered - again[State.ANSWERED]
        failed = 0 if self._job.retry_failed else counts.failed + counts.unsendable - again[State.FAILED]
        left = max(0, rows - answered - counts.skipped - counts.pending - failed)
        requests = rows_again(self.prepared, journal.reader(), cut_off, self._account.meter.learned)
        forecast = replace(
            self._account.forecast(journal, rows=rows, left=max(0, left - len(cut_off)), again=requests),
            answered=answered,
            failed=failed,
            cut_off=len(cut_off),
            pending=counts.pending,
            skipped=counts.skipped,
            possibly_billed_rows=possibly_billed_rows(journal),
            input_notes=self.prepared.input_notes,
            begun=bool(journal.reader().batches()),
        )
        self.confirm(forecast)
        self.record.log.write(
            "plan",
            rows=rows,
            answered=answered,
            failed=failed,
            in_batches=counts.pending,
            left=left,
            cost_low=forecast.cost_low,
            cost_high=forecast.cost_high,
        )
        resumed.begin(cut_off)
        self._account.keep_forecast(journal, forecast)

    async def _answer_rows(self, journal: Journal, *, continued: bool) -> None:
        """Finishes every row, in the job's mode; batches under way are looked at first in either mode."""
        stop = run_stop(self._job, self.stops)
        batch_mode = self._job.via == "batch"
        if not batch_mode and not journal.batches.live():
            await self._answer_online(journal, stop, continued=continued)
            return
        from batchllm.batch.loop import BatchLoop

        async with AsyncExitStack() as stack:
            await BatchLoop(
                self.prepared,
                journal,
                client=LazyClient(self._job, stack),
                counters=self._counters,
                account=self._account,
                progress=self.progress,
                chosen=self._chosen,
                reuse=self._reuse_of(journal),
                online=None if batch_mode else lambda: self._answer_online(journal, stop, continued=True),
                waiting=self.waiting,
                run_stop=stop,
            ).run()

    async def _answer_online(self, journal: Journal, stop: RunStop, *, continued: bool) -> None:
        job, counters = self._job, self._counters
        plan = plan_of(
            self.prepared,
            journal,
            continued=continued,
            counters=counters,
            chosen=self._chosen,
            reuse=self._reuse_of(journal),
        )
        now = asyncio.get_running_loop().time()
        leased_limits, worked = self.leases is not None, counters.has_worked
        limiter = limiter_of(job, now, journal.get("learned"), leased=leased_limits, has_worked=worked)
        async with AsyncExitStack() as stack:
            clients = [LazyClient(job, stack, each) for each in job.endpoints or (None,)]
            online = OnlineLoop(
                client=self.client or clients[0],
                others=clients[1:],
                endpoint_numbers=journal.endpoint_numbers(names_of(job)),
                limiter=limiter,
                journal=journal,
                retry=RetryPolicy(job.pace.max_attempts),
                counters=counters,
                settled=plan.settled,
                meter=self._account.meter,
                early_stop=self._account.early_stop,
                run_stop=stop,
                plain=partial(plain_request, job),
            )
            display = RunDisplay(
                limiter=limiter,
                endpoint=job.endpoint.base_url or "the endpoint",
                progress=self.progress,
                counters=counters,
                account=self._account,
                journal=journal,
                stop=stop,
            )
            renewing = lease_loop(self.leases, job, limiter, self._account.meter.budget, online, stop)
            with stop.watch():
                async with display, leased(renewing):
                    await online.run(plan.batches())

    def _reuse_of(self, journal: Journal) -> Reuse | None:
        return Reuse(self.reuse, journal) if self.reuse else None

    def _summary(self, journal: Journal, status: int) -> Summary:
        return summary_of(
            self._counters,
            orphans=len(journal.orphans),
            seconds=asyncio.get_running_loop().time() - self._started_s,
            status=status,
            bad_rows=self.prepared.statistics.bad_rows,
        )


def possibly_billed_rows(journal: Journal) -> tuple[int, ...]:
    """Returns the rows, from 1, that a dead run possibly paid without an answer."""
    return tuple(sorted({orphan.row_index + 1 for orphan in journal.orphans if orphan.row_index is not None}))
