"""``--retry-cut-off``: asks again, with a higher limit, for the answers that were cut off.

The job stays the one that its journal knows, so its rows keep their requests; only what is sent has the higher limit.
Each request whose answer was cut off is opened again, and the flow of its row is replayed: what follows from a new
answer differs from what was asked before, and is asked anew. A request keeps its answer until a better one comes, and
a row of several requests keeps its own until its flow has ended well (``journal.kept``). The journal keeps from which
attempt on which limit was raised, so an answer that was cut off at that limit too is not asked for again by the same
command.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from batchllm.budget.sample import sample_rows
from batchllm.budget.usage import UsageEstimator
from batchllm.errors import UsageError
from batchllm.flows.stand_in import begun, missing
from batchllm.job import Job
from batchllm.job.record import STEPS, plain
from batchllm.journal import Journal, JournalReader
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.request.parameters import BOUNDS, max_tokens
from batchllm.runner.consent import FINGERPRINT

RAISED = "raised_limits"
"""The journal's key for the raised limits, each with the first attempt that was sent with it; ``None`` is none."""
Limits = Sequence[tuple[int, int | None]]
"""What the journal has under ``RAISED``."""


def with_raised_limit(job: Job, journal: Path) -> Job:
    """Returns the job that a journal knows, sent with the higher limit of this one.

    Args:
        job: The job; without ``--retry-cut-off`` it is returned as it is.
        journal: Its journal.

    Raises:
        UsageError: There is no limit to send it with, or the job cannot be retried so.
        InputError: The journal cannot be read.
    """
    if not job.retry_cut_off or job.raised_max_tokens is not None:
        return job
    before = None
    if journal.exists():
        with JournalReader.open(journal) as reader:
            before = reader.get(FINGERPRINT)
    return raised(job, before)


def raised(job: Job, before: "Mapping[str, Any] | None") -> Job:
    """Returns the job that is known, sent with the higher limit of this one.

    Args:
        job: The job, with ``--retry-cut-off``.
        before: The fingerprint of the job that is known; ``None`` if nothing was asked yet.

    Raises:
        UsageError: There is no limit to send it with, or the job cannot be retried so.
    """
    for other, is_given in (("--accept-change", job.accept_change), ("--restart", job.restart)):
        if is_given:
            raise UsageError(f"--retry-cut-off pays for rows that were cut off alone; leave out {other}")
    if job.conversation is not None:
        raise UsageError(
            "--retry-cut-off pays for rows that were cut off alone, and a new answer in a --conversation changes what "
            "every later turn was asked; ask for all of them again with --max-tokens and --accept-change"
        )
    if job.output is None and job.journal is None:
        raise UsageError(
            "--retry-cut-off finds the answers in a journal; name it with --journal, or the job with -o"
        )
    wanted = max_tokens(job.parameters)
    if wanted is None:
        raise UsageError("--retry-cut-off needs the higher limit to ask with; give it with --max-tokens")
    if before is None:
        return job
    of_steps = before.get(STEPS, {})
    steps = tuple(
        replace(step, job=_with_limits(step.job, of_steps.get(step.name, {}), wanted)) for step in job.steps
    )
    found = _with_limits(job, before, wanted)
    parameters = steps[0].job.parameters if steps else found.parameters
    # Answers of other jobs were asked for with the lower limit.
    return replace(found, steps=steps, parameters=parameters, reuse=())


def _with_limits(job: Job, before: "Mapping[str, Any]", raised_to: int) -> Job:
    """Returns a job with the limits of an answer that it had before, sent with a higher one."""
    parameters = {name: value for name, value in job.parameters.items() if name not in BOUNDS}
    of_template = plain(job.template.parameters) if job.template else {}
    parameters |= {
        name: value
        for name, value in before.get("parameters", {}).items()
        if name in BOUNDS and value != of_template.get(name)
    }
    return replace(job, parameters=parameters, raised_max_tokens=raised_to)


def identity_of(prepared: PreparedJob) -> str:
    """Identifies the input of a job and everything that its requests depend on."""
    of_input = [prepared.statistics.sha256, prepared.statistics.columns, prepared.source.reading()]
    subject = [of_input, prepared.job.fingerprint()]
    return hashlib.sha256(json.dumps(subject, sort_keys=True).encode()).hexdigest()


def is_same_pass(prepared: PreparedJob, plan: "Mapping[str, Any] | None") -> bool:
    """Whether a pass over the input that a journal knows is one of this input and job."""
    wanted = {"identity": identity_of(prepared), "dedupe": prepared.job.dedupe}
    return plan is not None and wanted.items() <= plan.items()


def check_retry(prepared: PreparedJob, *, is_same: bool) -> None:
    """Refuses a retry that would change nothing, or that cannot tell which rows were cut off.

    Args:
        prepared: The job and its input.
        is_same: The journal's last pass is of the same input and job.

    Raises:
        UsageError: The limit is not higher, or the input changed.
    """
    job = prepared.job
    if job.raised_max_tokens is None:
        return
    if not is_same:
        raise UsageError(
            "--retry-cut-off: the input was changed since the last run; run the job once without --retry-cut-off and "
            "with its old --max-tokens, then again with both"
        )
    expected, _ = UsageEstimator().stand_ins()
    limits: set[int] = set()
    for row in () if job.per_row else sample_rows(prepared):
        for _, request in missing(begun(prepared.flow.start(row)), expected):
            if request.raised:
                return
            limits.add(request.max_tokens or 0)
    if limits:
        named = ", ".join(f"{limit:,}" for limit in sorted(limits))
        raise UsageError(
            f"--retry-cut-off needs a limit higher than the one that answers were cut off at ({named} tokens); "
            "raise --max-tokens"
        )


def keep_limit(journal: Journal, raised: int | None) -> None:
    """Notes in the journal with which raised limit the attempts from now on are sent."""
    limits: list[Any] = journal.get(RAISED) or []
    if (limits[-1][1] if limits else None) != raised:
        journal.put(RAISED, [*limits, (journal.next_attempt, raised)])


def limit_of(attempt_id: int, limits: Limits) -> int | None:
    """Returns the raised limit that an attempt was sent with, ``None`` where it was not raised."""
    return next((limit for first, limit in reversed(limits) if first <= attempt_id), None)


def limits_in(reader: JournalReader) -> Limits:
    """Returns the raised limits that a journal knows."""
    limits: Limits = reader.get(RAISED) or []
    return limits
