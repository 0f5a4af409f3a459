"""The summaries of finished shards, and their sum, which is the summary of the run."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from typing import Any

from batchllm.cluster.losses import DeadAttempt
from batchllm.cluster.plan import Shard
from batchllm.cluster.work import WorkFolder, done_name
from batchllm.counters import EndpointFigures
from batchllm.job import Job
from batchllm.runner import Summary

READERS = 16

Done = Mapping[str, Any]
"""The summary of a finished shard, or of the rows of it that are wanted, as the work folder has it."""

_COUNTS = ("requests", "attempts", "answers", "rate_limited", "truncated", "possibly_billed_twice")

_AMOUNTS = ("prompt_tokens", "completion_tokens", "total_tokens", "cost")


def done_of(work: WorkFolder, shard: Shard) -> dict[str, Any] | None:
    """Returns the summary of a shard, or of the rows of it that are wanted; ``None`` if these are not finished."""
    done: dict[str, Any] | None = work.get_json(done_name(shard))
    if done is None and shard.trial is not None:
        done = work.get_json(done_name(replace(shard, trial=None)))
    return done


def all_done(work: WorkFolder, shards: Sequence[Shard]) -> dict[int, Done]:
    """Returns the summaries of those shards that are finished, by number; several are asked for at once."""
    with ThreadPoolExecutor(READERS, thread_name_prefix="done") as pool:
        found = zip(shards, pool.map(lambda shard: done_of(work, shard), shards), strict=True)
        return {shard.number: done for shard, done in found if done is not None}


def asked_again(done: Done, job: Job, run: str) -> int:
    """Returns how many rows of a finished shard are asked again (``--retry-failed``, ``--retry-cut-off``), at most.

    Args:
        done: Its summary.
        job: The job.
        run: The run of the job, which does so once.
    """
    if done["run"] == run:
        return 0
    summary = done["summary"]
    is_raised = job.retry_cut_off and (done.get("raised") or 0) < (job.raised_max_tokens or 0)
    failed: int = summary["failed"] if job.retry_failed else 0
    cut_off: int = summary["finish_reasons"].get("length", 0) if is_raised else 0
    return failed + cut_off


def summed(
    finished: Summary,
    summaries: Collection[Mapping[str, Any]],
    dead: Collection[DeadAttempt],
    *,
    possibly_billed: int,
    seconds: float,
) -> Summary:
    """Returns the summary of a run on many machines.

    Args:
        finished: The rows, as the output has them.
        summaries: The summaries of the shards that the run finished.
        dead: Its workers that died; what their answers cost is unknown.
        possibly_billed: Requests of those that are possibly billed without an answer.
        seconds: The duration of the run.
    """
    counts: dict[str, Any] = {}
    for name in (*_COUNTS, *_AMOUNTS):
        values = [getattr(finished, name), *(each[name] for each in summaries)]
        values += [getattr(each, name, None if name == "cost" and each.answers else 0) for each in dead]
        known = [Decimal(str(value)) for value in values if value is not None]
        counts[name] = sum(known, Decimal(0)) if len(known) == len(values) else None
    counts = {
        name: value if value is None or name == "cost" else int(value) for name, value in counts.items()
    }
    retries = Counter(dict(finished.retries))
    for each in summaries:
        retries.update(each["retries"])
    endpoints = _endpoints([each for done in summaries for each in done["endpoints"]])
    counts["possibly_billed_twice"] += possibly_billed
    counts["requests"] += sum(each.attempts for each in dead)
    rate = counts["attempts"] * 60.0 / seconds if counts["attempts"] and seconds >= 1 else None
    return replace(
        finished,
        **counts,
        retries=dict(retries),
        endpoints=endpoints or finished.endpoints,
        answered_before=max(0, finished.answered_before - counts["answers"]),
        seconds=round(seconds, 3),
        requests_per_minute=None if rate is None else round(rate, 2),
        tokens_per_minute=None,
    )


def _endpoints(found: Collection[Mapping[str, Any]]) -> tuple[EndpointFigures, ...]:
    """Adds up what each endpoint did in the shards; its state is the one that was seen last."""
    sums: dict[str, EndpointFigures] = {}
    for each in found:
        last = EndpointFigures(**{**each, "requests_per_minute": None})
        before = sums.get(last.endpoint)
        if before is not None:
            names = ("attempts", "answers", "refusals", "failures")
            last = replace(last, **{name: getattr(before, name) + getattr(last, name) for name in names})
        sums[last.endpoint] = last
    return tuple(sums.values())
