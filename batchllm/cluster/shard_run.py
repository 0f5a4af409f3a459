"""One attempt at one shard: claim it, read its logs, answer what is missing, and write its summary."""

import fcntl
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from batchllm import __version__
from batchllm.cluster.answer_log import AnswerLog, ShardAttempt, ShardProgress
from batchllm.cluster.engine import ShardEnd, ShardTask
from batchllm.cluster.headers import with_own_headers
from batchllm.cluster.journal_from_logs import find_rows, rebuild
from batchllm.cluster.losses import lost_in
from batchllm.cluster.parts import Parts, put_part
from batchllm.cluster.plan import chosen_in
from batchllm.cluster.planner import plan_of_work
from batchllm.cluster.summaries import asked_again, done_of
from batchllm.cluster.work import claim, done_name, open_work, run_name
from batchllm.errors import INTERNAL_ERROR, CannotWrite, Interrupted, JobError, UsageError
from batchllm.job import Job
from batchllm.job.endpoints import with_keys
from batchllm.journal import store_value
from batchllm.leases import Leases
from batchllm.prepare.job_paths import job_paths, journal_beside
from batchllm.prepare.shards import RowRange
from batchllm.runner import Result, run_job
from batchllm.runner.cut_off import RAISED
from batchllm.stopping import StopSwitch

JUST_MADE_S = 60.0
"""The age from which on an attempt has surely locked its folder."""


def run_shard(
    task: ShardTask,
    environ: Mapping[str, str],
    leases: Leases | None = None,
    progress: ShardProgress | None = None,
    stops: StopSwitch | None = None,
) -> ShardEnd:
    """Makes an attempt at a shard; what ends it is returned, and not raised.

    Args:
        task: What is to be done.
        environ: The environment of this machine, which has the key.
        leases: Makes the run obey leases.
        progress: Takes how far it is.
        stops: Stops the attempt; one that is on another machine is stopped by a file of the work folder alone.
    """
    node = platform.node()
    try:
        status = _run(task, environ, node, leases, progress or ShardProgress(), stops or StopSwitch())
    except (JobError, Interrupted) as error:
        return ShardEnd(shard=task.shard, node=node, exit_status=int(error.exit_status), error=str(error))
    except Exception as error:  # noqa: BLE001 - the driver raises it
        text = f"{type(error).__name__}: {error}"
        return ShardEnd(shard=task.shard, node=node, exit_status=INTERNAL_ERROR, error=text)
    return ShardEnd(shard=task.shard, node=node, exit_status=status)


def check_node(task: ShardTask, environ: Mapping[str, str]) -> ShardEnd:
    """Checks that this machine has what the job needs: keys, headers, a temporary folder, and the work folder."""
    node = platform.node()
    try:
        if task.version != __version__:
            raise UsageError(
                f"it has batchllm {__version__}, and not {task.version}; install the same everywhere"
            )
        with_keys(with_own_headers(task.job, environ), environ)
        with attempt_folder():
            pass
        if not open_work(task.work).has(run_name(task.run)):
            raise UsageError(
                f"{task.work} is not the folder that the other machines see; share it, or use a URL"
            )
        if task.parts is not None:
            task.parts.check_here(task.run)
    except JobError as error:
        return ShardEnd(shard=task.shard, node=node, exit_status=int(error.exit_status), error=str(error))
    return ShardEnd(shard=task.shard, node=node, exit_status=0)


def _run(
    task: ShardTask,
    environ: Mapping[str, str],
    node: str,
    leases: Leases | None,
    progress: ShardProgress,
    switch: StopSwitch,
) -> int:
    work = open_work(task.work)
    plan = plan_of_work(work)
    shard = replace(plan.shards[task.shard], trial=task.trial)
    parts = task.parts
    before = done_of(work, shard)
    if (
        before is not None
        and not asked_again(before, task.job, task.run)
        and (parts is None or parts.is_written(work, shard, before, parts.size_of(shard)))
    ):
        return int(before["exit_status"])
    job = with_keys(with_own_headers(task.job, environ), environ)
    whose = {"run": task.run, "node": node, "pid": os.getpid(), "time": time.time(), "id": uuid4().hex}
    number = claim(work, shard, json.dumps(whose).encode())
    attempt = ShardAttempt(work, shard, number, task.run, node)
    rows = plan.rows_of(shard, has_worked=task.has_worked)
    rows = replace(rows, chosen=chosen_in(shard, job, plan.rows))
    with attempt_folder() as folder:
        local = _local(job, folder, parts)
        if task.adopts:
            _adopt(attempt, replace(local, reuse=job.reuse), rows)
            return 0
        return _answer(attempt, local, rows, leases, progress, switch, parts=parts, before=before)


@contextmanager
def attempt_folder() -> Iterator[Path]:
    """Makes a temporary folder, and removes those of attempts on this machine that were killed.

    Each attempt locks its folder. One that was just made may not be locked yet, so it stays.

    Raises:
        CannotWrite: No folder can be made.
    """
    prefix = "batchllm-shard-"
    with ExitStack() as stack:
        try:
            for abandoned in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
                with suppress(OSError):
                    if time.time() - abandoned.stat().st_mtime > JUST_MADE_S:
                        with _locked(abandoned):
                            shutil.rmtree(abandoned)
            made = tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)
            name = stack.enter_context(made)
            stack.enter_context(_locked(Path(name)))
        except OSError as error:
            raise CannotWrite(
                f"no temporary folder can be made on {platform.node()} ({error.strerror}{_at(error)}); set TMPDIR "
                "there to a folder on its own disk that can be written"
            ) from error
        yield Path(name)


def _at(error: OSError) -> str:
    return f": {error.filename}" if error.filename else ""


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _local(job: Job, folder: Path, parts: Parts | None) -> Job:
    """Returns the job with its files in a folder of this machine."""
    suffix = f".{job.output_format or job.input_format or 'jsonl'}" if parts is None else parts.suffix
    return replace(
        job, output=folder / f"part{suffix}", into_parts=False, journal=None, summary=None, log_file=None, gold=(),
        on=None, limit=None, sample=None, reuse=(), restart=False, wait_lock_s=0.0,
    )  # fmt: skip


def _adopt(attempt: ShardAttempt, job: Job, rows: RowRange) -> None:
    """Takes answers of other jobs into the log of an attempt."""
    paths = job_paths(job)
    known = rebuild(paths.journal, [(attempt.shard, attempt.number - 1)], attempt.work)
    with AnswerLog(attempt, paths.journal, known, ShardProgress(), StopSwitch()):
        find_rows(job, paths, rows)


def _answer(
    attempt: ShardAttempt,
    job: Job,
    rows: RowRange,
    leases: Leases | None,
    progress: ShardProgress,
    switch: StopSwitch,
    *,
    parts: Parts | None,
    before: Mapping[str, Any] | None,
) -> int:
    shard, work, output = attempt.shard, attempt.work, job.output
    assert output is not None, "it is in the folder of the attempt"
    journal = journal_beside(output)
    known = rebuild(journal, [(shard, attempt.number - 1)], work)
    if parts is not None:
        rows = replace(rows, input_kinds=parts.kinds, as_text=parts.as_text)
    if job.raised_max_tokens is not None:
        find_rows(replace(job, retry_cut_off=False, raised_max_tokens=None), job_paths(job), rows)
        store_value(journal, RAISED, known.limits)
    if rows.has_worked:  # the first rows have passed the early stop
        job = replace(job, no_early_stop=True)
    with AnswerLog(attempt, journal, known, progress, switch) as log:
        result = run_job(job, progress=progress, stops=switch, rows=rows, leases=leases)
    done = {
        **log.figures(),
        "exit_status": result.exit_status,
        "raised": job.raised_max_tokens or (before or {}).get("raised"),
        "summary": asdict(result.summary),
    }
    if parts is not None:
        done |= _of_part(attempt, result, before) | {"part": put_part(parts, attempt, output)}
    content = json.dumps(done, default=float).encode()
    if before is None and parts is None:
        work.create(done_name(shard), content)
    else:
        work.put(done_name(shard), content)
    return result.exit_status


def _of_part(attempt: ShardAttempt, result: Result, before: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns what the summary of a shard has beside a folder of parts, where no journal of all rows has it.

    Args:
        attempt: The attempt that finished the shard.
        result: Its result.
        before: The summary of the shard, if it was finished before.
    """
    work, shard, first_row = attempt.work, attempt.shard, attempt.shard.first_row
    runs = (
        []
        if before is None
        else [*before.get("earlier", ()), {"run": before["run"], "summary": before["summary"]}]
    )
    return {
        "failures": {reason: (first_row + row, text) for reason, (row, text) in result.failures.items()},
        "lost": lost_in(work, shard, attempt.number) if attempt.number > 1 else None,
        "earlier": runs,
    }
