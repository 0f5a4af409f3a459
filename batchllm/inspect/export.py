"""``export``: writes the finished rows of a job at any time."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from batchllm.errors import CannotWrite, InputError, NotNow, UsageError
from batchllm.formats import SUFFIXES, format_of
from batchllm.formats.suffixes import format_suffix
from batchllm.inspect.job import open_job
from batchllm.inspect.no_input import NOT_KEPT, export_answers
from batchllm.job import Job
from batchllm.job.paths import are_several
from batchllm.journal import JobLock, JournalReader, store_value
from batchllm.prepare.existing_output import check_output, existing_digest, exported_note
from batchllm.prepare.job_paths import JobPaths
from batchllm.prepare.outputs import OutputFile, output_files
from batchllm.prepare.prepared_job import PreparedJob, prepare_job
from batchllm.runner.output import OutputCounts, OutputWriter
from batchllm.runner.trial import OUTPUT


def export_job(
    output: Path,
    *,
    to: Path | None = None,
    force: bool = False,
    note: Callable[[str], None] = lambda text: None,
) -> int:
    """Writes the finished rows; returns how many.

    Args:
        output: The job's output, or its journal.
        to: Where to write instead; ``-`` is standard output.
        force: Overwrite a file that batchllm did not write.
        note: Told what the export lacks where the rows came from standard input.

    Raises:
        InputError: The journal does not exist, or the input changed.
        UsageError: The suffix names no format, or the file exists and batchllm did not write it.
    """
    with open_job(output) as (reader, paths, job):
        path = paths.output if to is None else None if str(to) == "-" else to
        own = path is not None and path == paths.output
        in_folder = path is not None and _is_folder(path, job)
        if path is not None:
            if not in_folder:
                if to is not None:
                    format_of(path)
                check_output(
                    path, written=reader.get("output"), force=force, journal=paths.journal if own else None
                )
            complete = (reader.get("output") or {}).get("complete")
            if own and path.exists() and complete and not (reader.finished or force):
                raise UsageError(
                    f"{path} holds the finished job, and fewer rows of the job as it is now are finished; export them "
                    "to another file with -o, or overwrite it with --force"
                )
        if not job.inputs:
            note(f"{NOT_KEPT}; the export has the answers with the numbers of their rows")
            return export_answers(reader, job, path)
        with prepare_job(job, paths) as prepared:
            _same_input(prepared, reader)
            for file in output_files(prepared, path, OUTPUT) if in_folder else ():
                if file.path is not None and file.path.parent.exists():
                    known = reader.get(file.key) if own else None
                    check_output(
                        file.path, written=known, force=force, journal=paths.journal if own else None
                    )
            writer = OutputWriter(prepared, lambda: reader, path=path, partial=True)
            return writer.write(partial(_record_output, paths, reader.finished)) if own else writer.write()


def _is_folder(path: Path, job: Job) -> bool:
    """Whether an export goes into a folder, with a file for each input."""
    return (job.into_folder or are_several(job.inputs)) and format_suffix(path) not in SUFFIXES


def _record_output(
    paths: JobPaths, complete: bool, file: OutputFile, sha256: str, counts: OutputCounts
) -> None:
    """Records an output before it is put in place: in the journal, or beside it while a run has the journal."""
    existing = existing_digest(file.path)
    try:
        with JobLock(paths.lock):
            store_value(
                paths.journal, file.key, {"sha256": sha256, "replaces": existing, "complete": complete}
            )
    except NotNow:
        try:
            with exported_note(paths.journal).open("a", encoding="ascii") as note:
                note.write(f"{sha256}\n")
        except OSError as error:
            raise CannotWrite(f"{exported_note(paths.journal)}: {error.strerror}; export with -o") from None


def _same_input(prepared: PreparedJob, reader: JournalReader) -> None:
    if prepared.statistics.sha256 != reader.get("source"):
        raise InputError(prepared.source.name, "changed since the job's last run; run the job again first")
