"""Looks at a job through its work folder, also while machines are at it: ``status``, ``report`` and ``export``."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from batchllm.cluster.journal_from_logs import find_rows, rebuild_all
from batchllm.cluster.one_output import is_of
from batchllm.cluster.parts import parts_of
from batchllm.cluster.plan import ClusterPlan
from batchllm.cluster.planner import plan_of_work
from batchllm.cluster.progress import ClusterFigures, FiguresReader
from batchllm.cluster.work import PLAN, WorkFolder, open_work
from batchllm.journal import JournalReader
from batchllm.prepare.job_paths import job_paths
from batchllm.prepare.saved_job import restored
from batchllm.stores import is_url


def work_at(place: Path) -> WorkFolder | None:
    """Returns the work folder at a path or URL; ``None`` if something else is there."""
    if is_url(place) and place.suffix:
        return None  # an output
    work = open_work(str(place))
    return work.newest() if work.has(PLAN) else None


def cluster_status(work: WorkFolder) -> ClusterFigures:
    """Returns how far a job is."""
    return FiguresReader(work, plan_of_work(work)).read()


@dataclass(frozen=True, slots=True)
class JobOfWork:
    """The job of a work folder.

    Attributes:
        journal: A journal with every answer.
        output: The file of the job that is finished, or an export of the rows that are; ``None`` is standard output.
        name: The output as it was named; ``None`` is standard output.
        finished: The job is finished, so journal and output are its own. Otherwise they are temporary.
        in_parts: The output of the job is a folder of parts; journal and output are temporary.
    """

    journal: Path
    output: Path | None
    name: Path | None
    finished: bool
    in_parts: bool = False


@contextmanager
def job_of_work(work: WorkFolder) -> Iterator[JobOfWork]:
    """Yields the job of a work folder; nothing is sent.

    Raises:
        InputError: The input is not what it was, or cannot be read here.
    """
    plan = plan_of_work(work)
    job = restored(plan.job)
    parts = parts_of(job)
    journal = job_paths(job).journal
    if parts is None and _is_of(journal, plan):
        yield JobOfWork(journal, job.output, job.output, True)
        return
    with tempfile.TemporaryDirectory(prefix="batchllm-work-") as folder:
        name = "rows.jsonl" if job.output is None else job.output.name
        output = Path(folder) / (name if parts is None else f"rows{parts.suffix}")
        aside = replace(job, output=output, into_parts=False, journal=None, reuse=())
        paths = job_paths(aside)
        rebuild_all(paths.journal, plan, work)
        find_rows(aside, paths)
        yield JobOfWork(paths.journal, output, job.output, False, job.into_parts)


def _is_of(journal: Path, plan: ClusterPlan) -> bool:
    if not journal.exists():
        return False
    with JournalReader.open(journal) as reader:
        return is_of(plan, reader) and reader.finished
