"""What the journal of an output knows: what was asked, when, how long answers took, and what was refused."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from batchllm.evaluate.answered import AnsweredRows
from batchllm.job import Job
from batchllm.job.record import plain
from batchllm.job.url import host_of
from batchllm.journal import JournalReader
from batchllm.journal.history import RunHistory, count_outcomes, latency_counts, run_history
from batchllm.prepare.existing_output import existing_digest
from batchllm.prepare.job_paths import is_disk_folder
from batchllm.prepare.saved_job import job_in
from batchllm.report.distribution import Distribution
from batchllm.report.texts import content_text
from batchllm.request.spec import prepared


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFacts:
    """What was asked.

    Attributes:
        task: The task, or the name of the template.
        model, provider, host: Who was asked.
        mode: ``online`` or ``batch``.
        messages: Role and template of each message; empty where each row brings its own.
        parameters: The request parameters of every row.
        variables: The variables of the template.
        samples: How often each row was asked.
        input: The name of the input file; ``None`` is standard input.
        began, ended: The first and the last run, in local time; ``None`` is unknown.
        runs: How many runs there were.
        finished: Whether every row is finished.
    """

    task: str
    model: str
    provider: str
    host: str
    mode: str
    messages: tuple[tuple[str, str], ...]
    parameters: Mapping[str, Any]
    variables: Mapping[str, Any]
    samples: int
    input: str | None
    began: str | None
    ended: str | None
    runs: int
    finished: bool

    def to_json(self) -> dict[str, Any]:
        """Returns the facts by name."""
        messages = [{"role": role, "content": content} for role, content in self.messages]
        return {**asdict(self), "messages": messages}


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalFacts:
    """What a journal says about its output.

    Attributes:
        job: What was asked.
        sent: Requests of all runs.
        answered, refused: Those that brought an answer, and those that a rate limit refused.
        latency: Seconds of a request that brought an answer; ``None`` in batch mode.
        history: The requests of the largest run over time; ``None`` in batch mode.
        same_rows: Whether the output is as the job wrote it, so that its rows can be told apart in the journal.
    """

    job: JobFacts
    sent: int
    answered: int
    refused: int
    latency: Distribution | None
    history: RunHistory | None
    same_rows: bool

    def to_json(self) -> dict[str, Any]:
        """Returns the facts by name."""
        history = self.history
        return {
            "asked": self.job.to_json(),
            "requests": {"sent": self.sent, "answered": self.answered, "refused": self.refused},
            "latency_s": None if self.latency is None else self.latency.to_json(),
            "requests_over_time": None
            if history is None
            else {
                "run": history.run_id,
                "began": local_time(history.began_at),
                "step_s": history.step_s,
                "answered": [moment.answered for moment in history.moments],
                "refused": [moment.refused for moment in history.moments],
                "failed": [moment.failed for moment in history.moments],
            },
        }


def read_facts(journal: Path, output: Path | None) -> JournalFacts | None:
    """Reads a journal; returns ``None`` where no run has begun.

    Args:
        journal: The journal.
        output: The file that the job wrote; ``None`` for rows in memory.

    Raises:
        InputError: The journal is damaged, or of another version.
    """
    with JournalReader.open(journal) as reader:
        job = job_in(reader)
        if job is None:
            return None
        sent, answered, refused = count_outcomes(reader)
        online = job.via != "batch"
        return JournalFacts(
            job=_job_facts(job, reader),
            sent=sent,
            answered=answered,
            refused=refused,
            latency=_latency(reader) if online else None,
            history=run_history(reader) if online else None,
            same_rows=output is None or _is_as_written(reader, output),
        )


def _is_as_written(reader: JournalReader, output: Path) -> bool:
    """Whether an output, or each file of a folder of outputs, is as the job wrote it."""
    written = reader.get("output") or {}
    if not is_disk_folder(output):
        return bool(written.get("sha256") == existing_digest(output))
    names = written.get("files", ())
    known = {name: (reader.get(f"output/{name}") or {}).get("sha256") for name in names}
    return bool(known) and all(digest == existing_digest(output / name) for name, digest in known.items())


def _latency(reader: JournalReader) -> Distribution | None:
    found = Distribution()
    for seconds, count in latency_counts(reader):
        found.add(seconds, count)
    return found if found.count else None


def _job_facts(job: Job, reader: JournalReader) -> JobFacts:
    runs = reader.runs()
    template = job.template
    messages = [] if template is None else prepared(job, template).messages
    ended = [run["ended_at"] for run in runs if run["ended_at"] is not None]
    return JobFacts(
        task=job.task if template is None or template.name == job.task else template.name,
        model=job.endpoint.model,
        provider=job.endpoint.preset,
        host=host_of(job.endpoint.base_url) if job.endpoint.base_url else "",
        mode="batch" if job.via == "batch" else "online",
        messages=tuple((it.role, content_text(it.content)) for it in messages),
        parameters=plain(job.all_parameters),
        variables=plain(job.all_variables),
        samples=job.samples,
        input=Path(job.input_name).name if job.inputs else None,
        began=local_time(runs[0]["started_at"]) if runs else None,
        ended=local_time(max(ended)) if ended else None,
        runs=len(runs),
        finished=reader.finished,
    )


def local_time(seconds: float) -> str:
    """Returns seconds since the epoch as local time, with its distance from UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(seconds))


def left_out(facts: JournalFacts | None, rows: AnsweredRows) -> str | None:
    """Returns a sentence that says what the report lacks, and why; ``None`` where it lacks nothing."""
    if facts is None:
        return (
            f"There is no journal beside {rows.name.rpartition('/')[2]}, so prompts, raw answers, latency and "
            "refusals are left out."
        )
    if facts.job.input is None:
        return (
            "The rows came from standard input, which is not kept, so prompts and raw answers are left out."
        )
    if not facts.same_rows:
        return "The output was changed since the job wrote it, so prompts and raw answers are left out."
    return None
