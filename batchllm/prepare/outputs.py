"""The files that a job writes its rows into: one, or in a folder one for each file of the input."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from batchllm.errors import UsageError
from batchllm.formats import SUFFIXES, Columns, Source, format_named, format_of
from batchllm.formats.several import InputPart, SeveralSource
from batchllm.formats.suffixes import format_suffix
from batchllm.job.paths import identity_of, with_written_suffix
from batchllm.records import Chosen

if TYPE_CHECKING:
    from batchllm.prepare.prepared_job import PreparedJob


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file with rows of a job.

    Attributes:
        path: Where it goes; ``None`` is standard output.
        key: The journal's key for what is known of it.
        source: Its rows.
        begin, end: The first of its rows in the whole input, and the one behind its last.
        sha256: Hash of its source, as it was scanned.
        columns: Its columns.
        kind: Name of its format.
    """

    path: Path | None
    key: str
    source: Source
    begin: int
    end: int
    sha256: str
    columns: Columns
    kind: str


def output_files(
    prepared: "PreparedJob", path: Path | None, key: str, chosen: Chosen = None
) -> list[OutputFile]:
    """Returns the files of an output.

    Args:
        prepared: The job and its input.
        path: The file, or the folder for a file for each one of the input; ``None`` is standard output.
        key: The journal's key for what is known of the output.
        chosen: The only rows that are written; files of a folder without any of them are left out.

    Raises:
        UsageError: Two files of the input would be written into one, or one of them would be overwritten.
    """
    source, statistics = prepared.source, prepared.statistics
    if not is_folder(prepared, path):
        kind = prepared.output_format if path is None else format_of(path).name
        return [OutputFile(path, key, source, 0, statistics.rows, statistics.sha256, prepared.columns, kind)]
    assert isinstance(source, SeveralSource) and path is not None, "it is a folder for several files"
    named: dict[str, Path] = {}
    inputs = {identity_of(part.source.file.path): part.source.name for part in source.parts}
    rows = None if chosen is None else sorted(chosen)
    found = []
    for part, own_name in zip(source.parts, names_in_folder(source), strict=True):
        own = part.source.file.path
        name = with_written_suffix(Path(own_name), part.source.kind).name
        if name in named:
            raise UsageError(
                f"{named[name]} and {own} would both be written to {path / name}; rename one of them, or name one"
                " output with -o"
            )
        named[name] = own
        written = path / name
        if (overwritten := inputs.get(identity_of(written))) is not None:
            raise UsageError(
                f"{written} would overwrite the input {overwritten}; name another folder with -o"
            )
        end = part.begin + part.rows
        if rows is None or bisect_left(rows, end) > bisect_left(rows, part.begin):
            columns = columns_of(prepared.columns, part, every=prepared.columns.input == source.columns)
            kind = format_of(written).name
            file_key = f"{key}/{name}"
            found.append(
                OutputFile(written, file_key, part.source, part.begin, end, part.sha256, columns, kind)
            )
    return found


def names_in_folder(source: SeveralSource) -> list[str]:
    """Returns what the files of an input are called in one folder.

    Equal names get as many of the folders above as tell them apart: ``a-x.csv`` and ``b-x.csv`` of ``a/x.csv`` and
    ``b/x.csv``.
    """
    groups: dict[str, list[int]] = {}
    for part in source.parts:
        written = with_written_suffix(part.source.file.path, part.source.kind).name
        groups.setdefault(written, []).append(part.number)
    names = [part.source.file.path.name for part in source.parts]
    for numbers in groups.values():
        folders = [_folders_of(source.parts[number].source.file.path) for number in numbers]
        deepest = max(map(len, folders)) if len(numbers) > 1 else 0
        for depth in range(deepest + 1):
            above = ["-".join(each[max(0, len(each) - depth) :]) for each in folders]
            if len(set(above)) == len(above):
                for number, label in zip(numbers, above, strict=True):
                    names[number] = f"{label}-{names[number]}" if label else names[number]
                break
    return names


def _folders_of(path: Path) -> list[str]:
    return [each for each in str(path).split("/")[:-1] if each not in ("", ".", "..")]


def check_outputs(prepared: "PreparedJob") -> None:
    """Refuses outputs that cannot be, and rows that their formats cannot hold, before anything is paid.

    Raises:
        UsageError: There are some.
    """
    job = prepared.job
    for file in output_files(prepared, job.output, ""):
        check = format_named(file.kind).check
        if check is not None:
            rows = file.end - file.begin
            check(file.source, min(rows, job.limit or job.sample or rows), file.columns)


def is_folder(prepared: "PreparedJob", path: Path | None) -> bool:
    """Whether an output is a folder for several files."""
    return (
        path is not None
        and isinstance(prepared.source, SeveralSource)
        and format_suffix(path) not in SUFFIXES
    )


def columns_of(columns: Columns, part: InputPart, *, every: bool) -> Columns:
    """Returns the columns of the output of one file: of the input's those that it has, in its own order."""
    own: Sequence[str] = part.source.columns
    if not every:
        own = [name for name in columns.input if name in part.source.columns]
    return replace(columns, input=tuple(own))
