"""Opens an output as rows: a file, or a folder of outputs as one."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from batchllm.errors import UsageError
from batchllm.formats import SUFFIXES, Source, open_source
from batchllm.formats.several import SeveralSource
from batchllm.formats.suffixes import format_suffix
from batchllm.job.paths import is_folder
from batchllm.journal import JournalReader
from batchllm.prepare.job_paths import journal_in, journal_of


def journal_there(output: Path) -> Path | None:
    """Returns the journal of an output, ``None`` where there is none; a journal is its own."""
    path = journal_in(output) if is_folder(output) else journal_of(output)
    return path if path.exists() else None


def output_source(output: Path, options: Callable[[Path], Mapping[str, Any]]) -> Source:
    """Opens an output.

    Args:
        output: The file, or a folder of outputs, whose rows come in the order of the job's input, or by name where no
            journal says it.
        options: Returns the options of ``open_source`` for a file.

    Raises:
        InputError: A file cannot be read.
        UsageError: The folder has no output.
    """
    if not is_folder(output):
        return open_source(output, **options(output))
    paths = _files_in(output)
    if not paths:
        raise UsageError(f"{output} is a folder; name the OUTPUT of a job, or its journal")
    return SeveralSource(str(output), (open_source(path, **options(path)) for path in paths))


def _files_in(folder: Path) -> list[Path]:
    journal = journal_in(folder)
    if journal.exists():
        with JournalReader.open(journal) as reader:
            names = (reader.get("output") or {}).get("files", ())
        if paths := [folder / name for name in names]:
            return paths
    known = (path for path in sorted(folder.iterdir()) if format_suffix(path) in SUFFIXES)
    return [path for path in known if path.is_file() and not path.name.startswith(".")]
