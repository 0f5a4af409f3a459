"""The files with the records that ``--bad-rows skip`` leaves out; they stay in the format of their input."""

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from batchllm.formats import Source, write_skipped
from batchllm.formats.several import SeveralSource
from batchllm.formats.suffixes import labelled, stem_of, suffixes_of
from batchllm.prepare.existing_output import existing_digest
from batchllm.prepare.outputs import is_folder, names_in_folder
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.runner.trial import OutputDestination


class FileNotes(Protocol):
    """Keeps what is known of files, by a key; a journal is one."""

    def get(self, key: str) -> Any:
        """Returns what is known; ``None`` is nothing."""

    def put_now(self, key: str, value: Any) -> None:
        """Keeps it, durably."""


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file of records that are left out.

    Attributes:
        path: Where it goes.
        key: The journal's key for what is known of it.
        source: The file that the records are in.
        bad_rows: How many there are; without any, the file is removed.
    """

    path: Path
    key: str
    source: Source
    bad_rows: int


def skipped_files(prepared: PreparedJob, destination: OutputDestination) -> list[SkippedFile]:
    """Returns the files of records that are left out, one for each file of the input.

    They are ``OUTPUT.skipped.EXT``, in a folder of outputs too; beside the one output of several files they are
    ``OUTPUT.skipped.NAME``.
    """
    output, source = destination.path, prepared.source
    if output is None:
        return []
    key = f"{destination.key} skipped"
    if not isinstance(source, SeveralSource):
        inputs = prepared.job.inputs
        suffix = (suffixes_of(inputs[0]) if inputs else "") or f".{source.kind}"
        path = output.with_name(f"{stem_of(output)}.skipped{suffix}")
        return [SkippedFile(path, key, source, prepared.statistics.bad_rows)]
    if is_folder(prepared, output):
        return [
            SkippedFile(labelled(output / name, "skipped"), f"{key} {name}", part.source, part.bad_rows)
            for part, name in zip(source.parts, names_in_folder(source), strict=True)
        ]
    names = Counter(part.source.file.path.name for part in source.parts)
    found = []
    for part in source.parts:
        name = part.source.file.path.name
        if names[name] > 1:
            name = f"{part.number + 1}.{name}"
        path = output.with_name(f"{stem_of(output)}.skipped.{name}")
        found.append(SkippedFile(path, f"{key} {name}", part.source, part.bad_rows))
    return found


def skipped_paths(prepared: PreparedJob, destination: OutputDestination) -> tuple[Path, ...]:
    """Returns the files in which records that are left out have been written."""
    return tuple(file.path for file in skipped_files(prepared, destination) if file.bad_rows)


def write_skipped_files(prepared: PreparedJob, journal: FileNotes, destination: OutputDestination) -> None:
    """Writes the records that are left out, and removes this job's files of them where none is left out."""
    for file in skipped_files(prepared, destination):
        known = journal.get(file.key)
        if file.bad_rows:
            existing = existing_digest(file.path)
            write_skipped(file.source, file.path, _record(journal, file.key, existing))
        elif known is not None:
            if existing_digest(file.path) in (known["sha256"], known["replaces"]):
                with suppress(OSError):  # a file that stays is no reason to fail a finished run
                    file.path.unlink(missing_ok=True)
            journal.put_now(file.key, None)


def _record(journal: FileNotes, key: str, replaces: str | None) -> Callable[[str], None]:
    def record(sha256: str) -> None:
        facts: Mapping[str, Any] = {"sha256": sha256, "replaces": replaces}
        journal.put_now(key, facts)

    return record
