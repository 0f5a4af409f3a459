"""Finds the files that the inputs of a job mean, and opens them; each run looks through patterns and folders anew."""

import glob
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batchllm.errors import InputError, UsageError
from batchllm.formats import SUFFIXES, Source, format_named, format_of, open_source, spool
from batchllm.formats.files import input_file
from batchllm.formats.registry import FORMATS
from batchllm.formats.several import SeveralSource
from batchllm.formats.suffixes import format_suffix
from batchllm.job import Job
from batchllm.job.assembly import NOTHING_ASKED
from batchllm.job.paths import (
    are_several,
    identity_of,
    is_folder,
    is_output,
    is_pattern,
    outputs_of,
    refuse_same_file,
)
from batchllm.job.texts import are_documents, is_document
from batchllm.prepare.job_paths import JobPaths, journal_beside, journal_in
from batchllm.prepare.shards import RowRange
from batchllm.printable import counted
from batchllm.stores import ObjectPath


@dataclass(frozen=True, slots=True)
class InputFiles:
    """The files of several inputs.

    Attributes:
        paths: The files, in order.
        notes: What was found and what was left out, in words.
    """

    paths: tuple[Path, ...]
    notes: tuple[str, ...]


@contextmanager
def opened_input(job: Job, paths: JobPaths, rows: RowRange | None) -> Iterator[Source]:
    """Opens the input of a job for the ``with`` block; standard input is copied to disk first.

    Args:
        job: The job.
        paths: Its files.
        rows: The only rows that are wanted; ``None`` for all.

    Raises:
        InputError: A file cannot be read in its format.
        UsageError: An option is for no file of the input.
    """
    options = {option: getattr(job, option) for form in FORMATS for option in form.options}
    with ExitStack() as stack:
        if job.into_folder or are_several(job.inputs):
            source = _several(job, input_files(job, paths), options, rows)
        elif job.inputs:
            source = open_source(job.inputs[0], format=job.input_format, **options)
        else:
            path = spool(sys.stdin.buffer)
            stack.callback(path.unlink, missing_ok=True)
            source = open_source(path, format=job.input_format, name="standard input", **options)
        stack.callback(source.close)
        yield source


def _several(job: Job, files: InputFiles, options: Mapping[str, Any], rows: RowRange | None) -> Source:
    """Opens several files; each gets the options that its format understands, and each option is for one at least.

    Of documents, those that have none of the rows are not looked at.
    """
    given = {option: value for option, value in options.items() if value is not None}
    forms = {
        path: format_named(job.input_format) if job.input_format else format_of(path) for path in files.paths
    }
    for path, form in forms.items():
        if job.template is None and not form.nested:
            raise UsageError(f"{path}: {NOTHING_ASKED}")
    used = {option for form in forms.values() for option in form.options}

    looked_at = set(files.paths)
    if rows is not None and all(form.documents for form in forms.values()):
        looked_at.intersection_update(files.paths[rows.rows.start : rows.rows.stop])

    def open_file(path: Path) -> Source:
        own = {name: it for name, it in given.items() if name in forms[path].options or name not in used}
        if path not in looked_at:
            return forms[path].source(input_file(path, str(path)), format_suffix(path), **own)
        return open_source(path, format=job.input_format, **own)

    # A row that brings its own request says what it is by the members that it has.
    sources = map(open_file, files.paths)
    return SeveralSource(job.input_name, sources, files.notes, fills=job.template is not None)


def input_files(job: Job, paths: JobPaths) -> InputFiles:
    """Returns the files that the inputs of a job name.

    A file that is named itself is taken. In folders and among the matches of patterns, files of known formats are
    taken, sorted by name; hidden files, folders, the job's own output, and in folders the outputs of other jobs, are
    left out.

    Raises:
        InputError: A folder cannot be read, or nothing is left in it, or a pattern matches nothing.
        UsageError: A file is named twice, or is the output too.
    """
    documents = are_documents(job.inputs, job.input_format)
    search = _Search(job, paths, takes_documents=documents)
    found = [path for named in job.inputs for path in search.found(named)]
    _refuse_twice(found)
    refuse_same_file(found, output=None if job.into_folder else paths.output)
    notes = [counted(len(found), "file")]
    if search.left_out:
        notes.append(f"left out: {', '.join(search.words())}")
    return InputFiles(tuple(found), tuple(notes))


@dataclass(slots=True)
class _Search:
    job: Job
    paths: JobPaths
    left_out: Counter[str] = field(default_factory=Counter)
    takes_documents: bool = False

    def found(self, named: Path) -> Iterator[Path]:
        if is_pattern(named):
            yield from self._taken(named, matches_of(named), in_folder=False)
        elif is_folder(named):
            try:
                inside = sorted(named.iterdir())
            except OSError as error:
                raise InputError(named, f"the folder cannot be read: {error.strerror}") from error
            yield from self._taken(named, inside, in_folder=True)
        else:
            yield named

    def _taken(self, named: Path, matched: Sequence[Path], *, in_folder: bool) -> list[Path]:
        reasons = [(path, self._reason(path, in_folder=in_folder)) for path in matched]
        self.left_out.update(reason for _, reason in reasons if reason)
        taken = [path for path, reason in reasons if reason is None]
        if not taken:
            what = "has no file of rows" if in_folder else "matches no file of rows"
            left_out = {reason for _, reason in reasons}
            known = f"; the suffixes of such files are {', '.join(SUFFIXES)}" if matched else ""
            if "output" in left_out:
                known = "; the outputs of batchllm in it are left out, so name those that are inputs"
            if "folder" in left_out:
                known += f"; subfolders are left out, and the pattern '{named / '**/*'}' goes into them"
            raise InputError(named, f"{what}{known}")
        return taken

    def _reason(self, path: Path, *, in_folder: bool) -> str | None:
        """Why a file is left out; empty where that goes without saying, ``None`` where it is taken."""
        if in_folder and path.name.startswith("."):
            return "hidden file"
        if path.is_dir():
            return "folder" if in_folder else ""
        if path.name.endswith((".journal", ".journal-wal", ".journal-shm", ".lock", ".journal.exported")):
            return ""
        if self._is_own_output(path) or (in_folder and is_output(path, journal_beside)):
            return "output"
        if self.job.input_format is None and format_suffix(path) not in SUFFIXES:
            return "file of another kind"
        if self.job.input_format is None and is_document(path) and not self.takes_documents:
            return "document"
        return None

    def _is_own_output(self, path: Path) -> bool:
        output = self.paths.output
        if output is None:
            return False
        if self.job.into_folder:
            return journal_in(output).exists() and path.parent.resolve() == output.resolve()
        if path.name == output.name and not self.paths.journal.exists():
            return False  # it was there before the job
        return path.parent.resolve() == output.parent.resolve() and output.name in outputs_of(path)

    def words(self) -> list[str]:
        plural = {"file of another kind": "files of another kind"}
        return [
            counted(count, what, plural.get(what, ""))
            for what, count in sorted(self.left_out.items())
            if what
        ]


def matches_of(pattern: Path) -> Sequence[Path]:
    """Returns what matches a pattern, sorted by name."""
    if isinstance(pattern, ObjectPath):
        return pattern.matches()
    return sorted(map(Path, glob.glob(str(pattern), recursive=True)))  # noqa: PTH207 - it knows hidden files


def _refuse_twice(paths: Sequence[Path]) -> None:
    """Refuses a file that is there twice, also through a link or another spelling.

    Raises:
        UsageError: There is one.
    """
    seen: dict[object, Path] = {}
    for path in paths:
        first = seen.setdefault(identity_of(path), path)
        if first is not path:
            called = f"{path} is named twice" if first == path else f"{first} and {path} are the same file"
            raise UsageError(f"{called}; name it once")
