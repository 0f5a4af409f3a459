"""A folder of parts as the output of a job on many machines: one file a shard, in the order of the rows.

The worker that finishes a shard writes its part. It notes the part in the work folder, puts it in place whole, and then
writes the summary of the shard, which has the note. So the work folder knows each file that a worker may have put in
place, and a part that is there without a summary is written again.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from batchllm.budget.costs import Pricing
from batchllm.cluster.answer_log import ShardAttempt
from batchllm.cluster.plan import Shard
from batchllm.cluster.work import WorkFolder, claim_name, part_name, run_name
from batchllm.errors import CannotWrite, NotNow, UsageError
from batchllm.formats import SUFFIXES, WRITTEN_SUFFIXES, format_of, output_format
from batchllm.formats.files import output_target, put_file
from batchllm.formats.kinds import Kind
from batchllm.formats.parquet_writer import input_kinds
from batchllm.formats.suffixes import format_suffix, suffixes_of
from batchllm.job import Job
from batchllm.job.paths import identity_of, with_written_suffix
from batchllm.journal import JournalReader, state_path
from batchllm.prepare.inputs import input_files
from batchllm.prepare.job_paths import JobPaths, journal_beside, made_folder
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.runner.output import view_of
from batchllm.runner.trial import OUTPUT
from batchllm.stores import ObjectPath, head, listed


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the parts of a job are like.

    Attributes:
        folder: The folder.
        suffix: The suffix of their names, which decides the format.
        view: Identifies what is written of a row.
        kinds: The kinds of the input's columns, where the format has types and the input has none; see ``input_kinds``.
        as_text: Added columns that are text in all parts, because a value of one did not fit the kind.
    """

    folder: Path
    suffix: str
    view: str = ""
    kinds: Mapping[str, Kind] | None = None
    as_text: frozenset[str] = frozenset()

    def path_of(self, shard: Shard) -> Path:
        """Returns the path of the part of a shard; parts are counted from 1."""
        return self.path_of_part(shard.number + 1)

    def path_of_part(self, number: int) -> Path:
        """Returns the path of a part by its number."""
        return self.folder / f"part-{number:06}{self.suffix}"

    def of(self, prepared: PreparedJob) -> "Parts":
        """Returns the same, as a job whose input is scanned decides it."""
        kind = output_format(self.path_of_part(1)).name
        kinds = input_kinds(prepared.source, prepared.columns.input) if kind == "parquet" else None
        has_costs = any(name == "cost" for _, name in prepared.columns.fields)
        view = view_of(prepared, None, Pricing(prepared.job).identity() if has_costs else [])
        view = sha256(json.dumps([view, str(kinds)]).encode()).hexdigest()
        return replace(self, view=view, kinds=kinds)

    def is_written(
        self, work: WorkFolder, shard: Shard, done: Mapping[str, Any], size_bytes: int | None
    ) -> bool:
        """Whether the part of a shard is there, is what the job writes, and has every answer of the shard.

        Args:
            work: The work folder.
            shard: The shard.
            done: Its summary.
            size_bytes: The size of the file; ``None`` if there is none.
        """
        note = {
            "path": str(self.path_of(shard)),
            "view": self.view,
            "as_text": sorted(self.as_text),
            "bytes": size_bytes,
        }
        return done.get("part") == note and not work.has(claim_name(shard, done["attempt"] + 1))

    def size_of(self, shard: Shard) -> int | None:
        """Returns the size in bytes of the part of a shard; ``None`` if there is none."""
        path = self.path_of(shard)
        if isinstance(path, ObjectPath):
            found = head(path.url)
            return None if found is None else found.size_bytes
        try:
            return path.stat().st_size
        except FileNotFoundError:
            return None

    def sizes(self) -> dict[str, int]:
        """Returns the sizes in bytes of the files in the folder, by name; hidden ones are left out.

        Raises:
            CannotWrite: It cannot be listed.
        """
        if isinstance(self.folder, ObjectPath):
            found = {each.url.name: each.size_bytes or 0 for each in listed(self.folder.url, deep=False)}
        elif not self.folder.exists():
            return {}
        else:
            try:
                found = {path.name: path.stat().st_size for path in self.folder.iterdir()}
            except OSError as error:
                raise CannotWrite(f"{self.folder}: it cannot be listed: {error.strerror}") from error
        return {name: size for name, size in found.items() if not name.startswith(".")}

    @contextmanager
    def made(self, run: str) -> Iterator[None]:
        """Makes the folder, with a hidden file inside the ``with`` block, which nodes have to see.

        Raises:
            CannotWrite: It cannot be made or written.
        """
        mark = self._mark(run)
        if mark is None:
            yield
            return
        with made_folder(self.folder):
            try:
                for left in self.folder.glob(f".{run_name('*')}"):  # of commands that were killed
                    left.unlink(missing_ok=True)
                mark.touch()
            except OSError as error:
                raise CannotWrite(
                    f"{self.folder} cannot be written: {error.strerror}; name another folder with -o"
                ) from error
            try:
                yield
            finally:
                mark.unlink(missing_ok=True)

    def check_here(self, run: str) -> None:
        """Checks on a node that it sees the folder, and can write there.

        Raises:
            UsageError, CannotWrite: It does not, or cannot.
        """
        mark = self._mark(run)
        if mark is not None and not mark.exists():
            raise UsageError(
                f"{self.folder} is not the folder that the other machines see; share it, or use a URL"
            )
        output_target(self.path_of_part(1)).check()

    def _mark(self, run: str) -> Path | None:
        return None if isinstance(self.folder, ObjectPath) else self.folder / f".{run_name(run)}"


def parts_of(job: Job) -> Parts | None:
    """Returns the folder of parts that a job writes; ``None`` for one output.

    The suffix of the folder decides the format, as in ``answers.parquet/``; without one it is that of the inputs.

    Raises:
        UsageError: The suffix is that of no format that can be written, or the folder has the input.
    """
    if not job.into_parts or job.output is None:
        return None
    folder = job.output.absolute()
    if format_suffix(folder) in SUFFIXES:
        parts = Parts(folder=folder, suffix=suffixes_of(folder))
    else:
        unlocked = JobPaths(None, folder, folder)
        paths = input_files(replace(job, output=None), unlocked).paths
        kinds = [job.input_format or format_of(path).name for path in paths]
        kind = "jsonl" if len(set(kinds)) > 1 and "jsonl" in kinds else kinds[0]
        first = paths[kinds.index(kind)]
        parts = Parts(folder=folder, suffix=suffixes_of(with_written_suffix(first, kind)))
    if format_suffix(parts.path_of_part(1)) not in WRITTEN_SUFFIXES:
        raise UsageError(f"{folder}: parts can end in {', '.join(WRITTEN_SUFFIXES)}")
    if any(identity_of(path.parent) == identity_of(folder) for path in job.inputs):
        raise UsageError(f"{folder} has the input; name another folder with -o")
    return parts


def paths_of(parts: Parts) -> JobPaths:
    """Returns the files of a job with parts; lock and journal, which stays empty, are in the user's state folder."""
    name = f"parts-{sha256(str(parts.folder).encode()).hexdigest()[:16]}"
    return JobPaths(None, state_path(f"{name}.journal"), state_path(f"{name}.lock"))


def prepared_as(job: Job, parts: Parts) -> Job:
    """Returns the job as its input is prepared for the parts: with the first one as its output."""
    path = parts.path_of_part(1)
    return replace(job, output=path, output_format=output_format(path).name, into_parts=False, journal=None)


def put_part(parts: Parts, attempt: ShardAttempt, local: Path) -> dict[str, Any]:
    """Puts the output of a finished shard in place as its part; returns the note for the summary of the shard.

    Args:
        parts: The folder.
        attempt: The attempt at the shard.
        local: The output on this machine; its journal is beside it.

    Raises:
        NotNow: Another attempt has begun.
        CannotWrite, StorageFailure: It cannot be written.
    """
    work, shard = attempt.work, attempt.shard
    with JournalReader.open(journal_beside(local)) as reader:
        written = reader.get(OUTPUT)
    path = parts.path_of(shard)
    note = {
        "path": str(path),
        "view": parts.view,
        "as_text": sorted({*parts.as_text, *written["counts"]["as_text"]}),
        "bytes": local.stat().st_size,
    }
    work.put_json(part_name(shard, attempt.number), note)
    if work.has(claim_name(shard, attempt.number + 1)):
        raise NotNow(f"another worker has shard {shard.number}")
    put_file(local, path)
    return note
