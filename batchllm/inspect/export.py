"""``export``: the output as far as it is."""

from functools import partial
from pathlib import Path

from batchllm.errors import InputError, NotNow
from batchllm.inspect.open_job import open_job
from batchllm.journal import JobLock, JournalReader, store_value
from batchllm.prepare.job_paths import JobPaths, check_output, digest_of
from batchllm.prepare.prepared_job import PreparedJob, prepare_job
from batchllm.prepare.saved_job import restored
from batchllm.runner.output import Export


def export_job(output: Path, *, to: Path | None = None, force: bool = False) -> int:
    """Writes the rows that have their end; returns how many.

    Args:
        output: The job's output, or its journal.
        to: Where to write instead; ``-`` is standard output.
        force: Overwrite a file that batchllm did not write.

    Raises:
        InputError: There is no journal, or the input changed.
        UsageError: There is a file that batchllm did not write.
    """
    with open_job(output) as (reader, paths):
        job = restored(reader.get("job"))
        path = paths.output if to is None else None if str(to) == "-" else to
        if path is not None:
            check_output(path, written=reader.get("output"), force=force)
        with prepare_job(job, paths) as prepared:
            _same_input(prepared, reader)
            own = path is not None and path == paths.output
            known = partial(_make_known, paths) if own else lambda sha256, figures: None
            written = Export(prepared, lambda: reader, path=path, partial=True).write(known)
        return written.rows


def _make_known(paths: JobPaths, sha256: str, figures: object) -> None:
    """Tells the journal of an output before it is there; a run that goes on looks at its output at its end."""
    output = paths.output
    there = digest_of(output) if output is not None and output.exists() else None
    try:
        with JobLock(paths.lock):
            store_value(paths.journal, "output", {"sha256": sha256, "replaces": there})
    except NotNow:
        return


def _same_input(prepared: PreparedJob, reader: JournalReader) -> None:
    if prepared.statistics.sha256 != reader.get("source"):
        raise InputError(prepared.source.name, "changed since the job's last run; run the job again first")
