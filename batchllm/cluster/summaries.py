"""The summaries of finished shards, and their sum, which is the summary of the run."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import product
from typing import Any

from batchllm.budget.costs import plus
from batchllm.cluster.losses import DeadAttempt
from batchllm.cluster.plan import ClusterPlan, Shard
from batchllm.cluster.work import WorkFolder, done_name
from batchllm.counters import EndpointFigures
from batchllm.job import Job
from batchllm.runner import Summary
from batchllm.runner.summary import exit_status_of

READERS = 16

Done = Mapping[str, Any]
"""The summary of a finished shard, or of the rows of it that are wanted, as the work folder has it."""

_NEEDED = ("run", "attempt", "exit_status", "frames", "summary")

_COUNTS = ("requests", "attempts", "answers", "rate_limited", "truncated", "possibly_billed_twice")

_TOKENS = ("prompt_tokens", "completion_tokens", "total_tokens")

_ROWS = ("rows", "answered", "skipped", "failed", "with_confidence")

_EQUAL = ("duplicate_rows", "duplicate_rows_cost", "deduplicated_rows", "saved_by_dedupe")


def done_of(work: WorkFolder, shard: Shard) -> dict[str, Any] | None:
    """Returns the summary of a shard, or of the rows of it that are wanted; ``None`` if these are not finished."""
    done: dict[str, Any] | None = work.get_json(done_name(shard), *_NEEDED)
    if done is None and shard.trial is not None:
        return done_of(work, replace(shard, trial=None))
    return done


@dataclass(frozen=True, slots=True)
class JobState:
    """What a job has finished.

    Attributes:
        plan: Its plan.
        done: The summaries of the shards that are finished, by number.
    """

    plan: ClusterPlan
    done: Mapping[int, Done] = field(default_factory=dict)

    @classmethod
    def read(cls, work: WorkFolder, plan: ClusterPlan) -> "JobState":
        """Reads the summaries from the work folder, several at once."""
        with ThreadPoolExecutor(READERS, thread_name_prefix="done") as pool:
            found = zip(plan.shards, pool.map(lambda shard: done_of(work, shard), plan.shards), strict=True)
            return cls(plan, {shard.number: done for shard, done in found if done is not None})

    @property
    def unfinished(self) -> list[Shard]:
        """The shards that have no summary."""
        return [shard for shard in self.plan.shards if shard.number not in self.done]


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


def total(values: Collection[Any]) -> Any:
    """Adds up a figure of several summaries; ``None`` where one is unknown."""
    if None in values:
        return None
    return sum(Decimal(str(value)) if isinstance(value, float) else value for value in values)


def rows_of_parts(found: Sequence[Mapping[str, Any]], job: Job, *, bad_rows: int) -> Summary:
    """Adds up the rows of all parts, and what all runs together paid for them; the run itself paid nothing yet.

    Args:
        found: The summaries of the parts.
        job: The job.
        bad_rows: Records of the input that are left out.
    """

    def of_all(name: str) -> Any:
        return total([each[name] for each in found])

    sums = {name: of_all(name) or 0 for name in _ROWS}
    counts = {name: Counter[str]() for name in ("failed_by_reason", "finish_reasons", "labels")}
    for name, each in product(counts, found):
        counts[name].update(each[name])
    sent = sums["answered"] + sums["failed"]
    status = exit_status_of(sums["failed"], sent, job.allow_failed, bad_rows=bad_rows)
    figures: dict[str, Any] = {
        **{name: dict(counted) for name, counted in counts.items()},
        **sums,
        **{name: of_all(name) for name in _EQUAL},
        **dict.fromkeys(_TOKENS, 0),
        "answered_before": sum(map(_finished_rows, found)),
        "saved_by_journal": plus(of_all("saved_by_journal"), of_all("cost")),
    }
    return Summary(**figures, cost=Decimal(0), bad_rows=bad_rows, exit_status=int(status))


def finished_by(run: str, found: Iterable[Done]) -> list[Mapping[str, Any]]:
    """Returns the summaries of what a run has finished, also of what a later one finished again."""
    several = (each for done in found for each in (*done.get("earlier", ()), done))
    return [each["summary"] for each in several if each["run"] == run]


def summed(
    finished: Summary,
    summaries: Collection[Mapping[str, Any]],
    dead: Collection[DeadAttempt],
    lost: Collection[int],
    seconds: float,
) -> Summary:
    """Returns the summary of a run on many machines.

    Args:
        finished: The rows, as the output has them.
        summaries: The summaries of the shards that the run finished.
        dead: Its workers that died; what their answers cost is unknown.
        lost: Rows that are paid twice, or may be, because workers died.
        seconds: The duration of the run.
    """
    counts: dict[str, Any] = {}
    for name in (*_COUNTS, *_TOKENS, "cost"):
        values = [getattr(finished, name), *(each[name] for each in summaries)]
        values += [getattr(each, name, None if name == "cost" and each.answers else 0) for each in dead]
        counts[name] = total(values)
    here = sum(each.rows for each in dead)  # rows of this run
    retries = Counter(dict(finished.retries))
    for each in summaries:
        here += _finished_rows(each) - each["answered_before"]
        retries.update(each["retries"])
    endpoints = _endpoints([each for done in summaries for each in done["endpoints"]])
    counts["possibly_billed_twice"] += len(lost) if dead else 0
    counts["requests"] += sum(each.attempts for each in dead)
    of_shards = plus(counts["cost"], None if finished.cost is None else -finished.cost)
    rate = counts["attempts"] * 60.0 / seconds if counts["attempts"] and seconds >= 1 else None
    return replace(
        finished,
        **counts,
        retries=dict(retries),
        endpoints=endpoints or finished.endpoints,
        answered_before=max(0, finished.answered_before - here),
        saved_by_journal=plus(finished.saved_by_journal, None if of_shards is None else -of_shards),
        seconds=round(seconds, 3),
        requests_per_minute=None if rate is None else round(rate, 2),
        tokens_per_minute=None,
    )


def _finished_rows(summary: Mapping[str, Any]) -> int:
    """Returns how many rows have an end, without those that share the request of another row."""
    finished: int = summary["answered"] + summary["failed"] - summary["deduplicated_rows"]
    return finished


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
