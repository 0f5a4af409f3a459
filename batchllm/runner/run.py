"""The page that shows the run: from a job to the file with its answers.

The lock comes first, then everything that can be wrong without costing money, then the journal, then the sender
that brings the answers, then the output. Whatever happens on the sender, what was received is in the journal.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, nullcontext, suppress
from dataclasses import replace
from typing import Any

from batchllm.batch.waiting import Waiting, waiting_for
from batchllm.budget.account import Money
from batchllm.budget.estimate import Forecast
from batchllm.counters import RunCounters
from batchllm.endpoint import LazyClient, reachable
from batchllm.errors import JobError
from batchllm.job import Job
from batchllm.journal import (
    JobLock,
    Journal,
    JournalReader,
    check_folder,
)
from batchllm.limiter import Limiter
from batchllm.online.online import Online
from batchllm.plan.conversations import plan_of
from batchllm.plan.plan import chosen_rows
from batchllm.plan.reask import ReaskPolicy
from batchllm.plan.reuse import Reuse, journals_of
from batchllm.plan.work_item import ChatSender, WorkItem
from batchllm.prepare.job_paths import digest_of, job_paths
from batchllm.prepare.prepared_job import PreparedJob, prepare_job
from batchllm.progress import Progress, Quiet
from batchllm.retry import RetryPolicy
from batchllm.runner.display import shown
from batchllm.runner.output import Export, Figures, view_of
from batchllm.runner.resume import open_journal, resume
from batchllm.runner.summary import Result, Summary, exit_status_of, money_of, pace_words, summary_of
from batchllm.signals import signals_stop

Confirm = Callable[[Forecast], None]


def run_job(
    job: Job,
    *,
    progress: Progress | None = None,
    confirm: Confirm = lambda forecast: None,
    client: ChatSender | None = None,
    wait: bool = False,
) -> Result:
    """Runs a job to its end, or as far as it goes; the same call again goes on where it stopped.

    Args:
        job: What to do.
        progress: Shows how far it is; shows nothing by default.
        confirm: Told the forecast before the first request; raises to stop there.
        client: Sends the requests, instead of a client of the job's endpoint.
        wait: Wait for batches that are under way, instead of raising ``NotReady``.

    Returns:
        The finished run: its output is written.

    Raises:
        JobError: The job could not go on; everything received is in the journal.
    """
    paths = job_paths(job)
    check_folder(paths.journal)
    waiting = waiting_for(job, wait=wait)
    with (
        JobLock(paths.lock, wait_s=job.wait_lock_s),
        JobLock(paths.journal_lock, wait_s=job.wait_lock_s) if paths.journal_lock else nullcontext(),
        reachable(job) as job,
        prepare_job(job, paths) as prepared,
        journals_of(job.reuse, paths.journal) as reuse,
    ):
        return asyncio.run(_Run(prepared, progress or Quiet(), confirm, client, reuse, waiting).whole())


class _Run:
    """One run, step by step."""

    def __init__(
        self,
        prepared: PreparedJob,
        progress: Progress,
        confirm: Confirm,
        client: ChatSender | None,
        reuse: Sequence[JournalReader],
        waiting: Waiting,
    ) -> None:
        self._prepared = prepared
        self._job = prepared.job
        self._paths = prepared.paths
        self._progress = progress
        self._confirm = confirm
        self._client = client
        self._reuse = reuse
        self._waiting = waiting
        self._money = Money(prepared)
        self._chosen = chosen_rows(
            prepared.statistics.rows,
            limit=prepared.job.limit,
            sample=prepared.job.sample,
            seed=prepared.job.seed,
        )
        rows = prepared.statistics.rows if self._chosen is None else len(self._chosen)
        self._counters = RunCounters(rows=rows)
        self._reask = ReaskPolicy(prepared.job, prepared.count)

    async def whole(self) -> Result:
        started_s = asyncio.get_running_loop().time()
        journal = open_journal(self._prepared, rows=self._counters.rows, chosen=self._chosen)
        status: int | None = None
        try:
            continued = self._begin(journal)
            await self._bring(journal, continued=continued)
            await journal.flush()
            figures = self._write(journal)
            seconds = asyncio.get_running_loop().time() - started_s
            summary = self._summary(journal, figures, seconds)
            status = summary.exit_status
            self._write_summary(summary)
            return Result(
                output=self._paths.output,
                summary=summary,
                possibly_billed_rows=possibly_billed_rows(journal),
                samples=tuple(figures.samples) if self._chosen is not None else (),
                pace=pace_words(summary),
                delimiter=self._prepared.source.format.delimiter,
            )
        except JobError as error:
            status = int(error.exit_status)
            seconds = asyncio.get_running_loop().time() - started_s
            summary = summary_of(self._counters, orphans=len(journal.orphans), seconds=seconds, status=status)
            with suppress(JobError):  # what stopped the job is what to tell
                self._write_summary(summary)
            raise
        finally:
            journal.close(status)

    def _begin(self, journal: Journal) -> bool:
        """Goes on where the last run stopped, and says what is left to do before anything is sent.

        Returns:
            Whether the last run's pass over the input is continued.
        """
        plan = resume(self._prepared, journal, self._reask)
        self._money.begin(journal, self._counters)
        left = self._counters.rows
        if plan.continued:
            counts = journal.reader().counts()
            left -= counts.answered + counts.failed + counts.skipped + counts.unsendable + counts.pending
        forecast = self._money.forecast(journal, rows=self._counters.rows, left=max(0, left))
        self._confirm(replace(forecast, possibly_billed_rows=possibly_billed_rows(journal)))
        return plan.continued

    async def _bring(self, journal: Journal, *, continued: bool) -> None:
        """Brings every row to its end, by the sender that is asked for; batches under way are looked after first."""
        by_batch = self._job.via == "batch"
        if not by_batch and not journal.batches.live():
            await self._answer_rows(journal, continued=continued)
            return
        from batchllm.batch.setup import BatchContext, batch_loop

        async with AsyncExitStack() as stack:
            run = BatchContext(
                prepared=self._prepared,
                journal=journal,
                counters=self._counters,
                client=LazyClient(self._job, stack),
                budget=self._money.meter,
                progress=self._progress,
                chosen=self._chosen,
                reuse=Reuse(self._reuse, journal) if self._reuse else None,
                online=None if by_batch else lambda: self._answer_rows(journal, continued=True),
            )
            await batch_loop(run, self._waiting).travel()

    async def _answer_rows(self, journal: Journal, *, continued: bool) -> None:
        job, counters = self._job, self._counters
        reuse = Reuse(self._reuse, journal) if self._reuse else None
        plan = plan_of(
            self._prepared,
            journal,
            continued=continued,
            counters=counters,
            chosen=self._chosen,
            reuse=reuse,
            reask=self._reask,
        )
        loop = asyncio.get_running_loop()
        limiter: Limiter[WorkItem] = Limiter(
            job.pace, charge=job.endpoint.charge, now=loop.time(), learned=journal.get("learned")
        )
        async with AsyncExitStack() as stack:
            sender = Online(
                client=self._client or LazyClient(job, stack),
                limiter=limiter,
                journal=journal,
                retry=RetryPolicy(job.pace.max_attempts),
                counters=counters,
                grace_s=job.grace_s,
                settled=plan.settled,
                reask=self._reask.request,
                meter=self._money.meter,
                early_stop=self._money.early_stop,
            )
            with signals_stop(sender):
                async with shown(
                    limiter,
                    endpoint=job.endpoint.base_url or "the endpoint",
                    progress=self._progress,
                    counters=counters,
                    money=self._money,
                    journal=journal,
                ):
                    await sender.run(plan.batches())

    def _write(self, journal: Journal) -> Figures:
        """Writes the output, unless what is there already is this very view.

        The journal knows an output before it is there: a run that dies in between would not know its own.
        """
        output = self._paths.output
        view = json.dumps([view_of(self._prepared), str(self._chosen), self._money.pricing.identity()])
        last: dict[str, Any] = journal.get("output") or {}
        there = digest_of(output) if output is not None and output.exists() else None
        if (
            there is not None
            and self._counters.attempts == 0
            and last.get("view") == view
            and there == last.get("sha256")
        ):
            return Figures.from_json(last["figures"])

        def announce(sha256: str, figures: Figures) -> None:
            if output is not None:
                facts = {"sha256": sha256, "replaces": there, "view": view, "figures": figures.as_json()}
                journal.put_now("output", facts)

        export = Export(self._prepared, journal.reader, path=output, chosen=self._chosen)
        export.write(announce)
        return export.figures

    def _summary(self, journal: Journal, figures: Figures, seconds: float) -> Summary:
        status = exit_status_of(figures.failed, figures.answered + figures.failed, self._job.allow_failed)
        return replace(
            summary_of(self._counters, orphans=len(journal.orphans), seconds=seconds, status=int(status)),
            rows=figures.rows,
            answered=figures.answered,
            skipped=figures.skipped,
            failed=figures.failed,
            failed_by_reason=dict(figures.failed_by_reason),
            finish_reasons=dict(figures.finish_reasons),
            **money_of(figures.money, self._counters),
        )

    def _write_summary(self, summary: Summary) -> None:
        if self._job.summary is not None:
            summary.write(self._job.summary)


def possibly_billed_rows(journal: Journal) -> tuple[int, ...]:
    """Rows, from 1, whose requests a dead run may have paid without an answer."""
    return tuple(sorted({orphan.row_index + 1 for orphan in journal.orphans if orphan.row_index is not None}))
