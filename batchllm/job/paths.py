"""The paths of a job's input, output and journal, and their formats."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from batchllm.errors import UsageError
from batchllm.formats import SUFFIXES, WRITTEN_SUFFIXES, format_named, format_of, output_format, output_kind
from batchllm.formats.suffixes import compression_suffix, format_suffix, labelled, stem_of, suffixes_of
from batchllm.job.layers import STANDARD_STREAM
from batchllm.stores import ObjectPath

FOLDER_JOURNAL = ".batchllm.journal"
"""The journal of a folder of outputs, in it."""

_PATTERN = re.compile(r"[*?[]")
_UNUSUAL = re.compile(r"[^\w.-]+")


def input_paths(
    inputs: tuple[Path, ...] | None, input_format: str | None
) -> tuple[tuple[Path, ...], str | None]:
    """Returns the inputs (none: standard input) and their format (``None``: found in what is read).

    Raises:
        UsageError: There is no input, or its suffix is not that of a format.
    """
    if inputs is None:
        named = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        raise UsageError(f"there is no INPUT: name a {named} file, or - for standard input")
    if str(inputs[0]) == STANDARD_STREAM:
        return (), input_format
    if not are_several(inputs):
        return inputs, input_format or format_of(inputs[0]).name
    for path in inputs if input_format is None else ():
        if not (is_pattern(path) or is_folder(path)):
            format_of(path)
    return inputs, input_format


def are_several(inputs: Sequence[Path]) -> bool:
    """Whether inputs are more than one file, or a folder or a pattern, of which nobody knows how many files it has."""
    return len(inputs) > 1 or any(is_pattern(path) or is_folder(path) for path in inputs)


def is_folder(path: Path) -> bool:
    """Whether an input is a folder, or an output; a name that no file can have is none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def is_pattern(path: Path) -> bool:
    """Whether an input is a pattern such as ``data/*.csv``, and not a file with such a name."""
    if isinstance(path, ObjectPath):
        return path.is_pattern
    return _PATTERN.search(str(path)) is not None and not os.path.lexists(path)


def output_path(
    path: Path | None,
    inputs: tuple[Path, ...],
    kind: str | None,
    *,
    label: str,
    simulated: bool,
    has_slash: bool = False,
    shard: str = "",
    in_parts: bool = False,
) -> tuple[Path | None, str | None]:
    """Returns the output (``None``: standard output) and its format.

    Args:
        path: As given; ``None`` makes ``INPUT-stem.LABEL.ext`` beside the input, or ``.LABEL.simulated``.
        inputs: The inputs.
        kind: The input's format, which standard output takes over.
        label: The task's or template's name.
        simulated: The simulator answers.
        has_slash: The path ends with a slash: a folder that gets an output for each input.
        shard: What ``shard_label`` returns, which the default ends in.
        in_parts: A folder gets parts, so that it can be called like a file.

    Raises:
        UsageError: The suffix is not that of a format.
    """
    if path is None and are_several(inputs):
        raise UsageError(
            "several inputs need -o: a file for all of them, such as all.csv, or a folder for one output each, such as"
            " outputs/"
        )
    if path is None and inputs:
        source = _writable(inputs[0])
        if kind is not None:
            source = with_written_suffix(source, kind)
        middle = _UNUSUAL.sub("-", label).strip("-.") or "run"
        words = (middle, "simulated" if simulated else "", shard)
        path = labelled(source, ".".join(filter(None, words)))
    if path is None or str(path) == STANDARD_STREAM:
        return None, kind and output_kind(kind)
    if isinstance(path, ObjectPath) and not path.url.is_writable:
        raise UsageError(f"{path}: a web address cannot be written; use s3://, gs:// or az://, or a file")
    if has_slash or (is_folder(path) and (in_parts or format_suffix(path) not in SUFFIXES)):
        return _output_folder(path, inputs, in_parts=in_parts), None
    try:
        return path, output_format(path).name
    except UsageError as error:
        hint = "" if path.suffix else f"; a folder for the outputs of several inputs ends with /: {path}/"
        raise UsageError(f"{error}{hint}") from None


def _output_folder(path: Path, inputs: tuple[Path, ...], *, in_parts: bool) -> Path:
    if format_suffix(path) in SUFFIXES and not in_parts:
        raise UsageError(f"{path} is a folder, and its name ends like that of a file; name another")
    if not inputs:
        raise UsageError(
            f"{path} is a folder, and rows from standard input have one output; name a file in it"
        )
    return path


def with_written_suffix(path: Path, kind: str) -> Path:
    """Returns a path with a suffix that outputs can have.

    Args:
        path: The path of an input.
        kind: Its format.
    """
    if format_suffix(path) in WRITTEN_SUFFIXES:
        return path
    suffix = format_named(kind).output or f".{kind}"
    return path.with_name(f"{stem_of(path)}{suffix}{compression_suffix(path)}")


def outputs_of(path: Path) -> list[str]:
    """Returns the names of the outputs that a file may be, or may lie beside as a trial or as skipped rows."""
    stem, suffixes = stem_of(path), suffixes_of(path)
    plain = [stem.removesuffix(mark) for mark in (".trial", ".skipped") if stem.endswith(mark)]
    return [path.name, *(f"{each}{suffixes}" for each in plain)]


def journal_on_disk(output: Path) -> Path:
    """Returns the usual journal of an output on disk."""
    return output.with_name(f"{output.name}.journal")


def is_output(path: Path, journal_of: Callable[[Path], Path] = journal_on_disk) -> bool:
    """Whether a file is the output of a job, or what a job left beside it: its journal is there too.

    Args:
        path: The file.
        journal_of: Returns the journal of an output.
    """
    return any(journal_of(path.with_name(name)).exists() for name in outputs_of(path))


def shard_label(shard: tuple[int, int] | None) -> str:
    """Returns what names the output of a shard: ``shard-3-of-8``; empty where the job is none."""
    return "" if shard is None else f"shard-{shard[0]}-of-{shard[1]}"


def journal_path(path: Path | None, output: Path | None) -> Path | None:
    """Returns the journal: as given, or beside the output; ``None`` leaves it to the runner (no file).

    Raises:
        UsageError: The path is that of a folder or a device.
    """
    if path is not None:
        _refuse_no_file(path, "--journal")
        return path
    if output is None or isinstance(output, ObjectPath):
        return None
    if format_suffix(output) not in SUFFIXES:
        return output / FOLDER_JOURNAL
    return journal_on_disk(output)


def _writable(source: Path) -> Path:
    """Returns the path beside which a default output goes: that of a web address is in the current folder."""
    if isinstance(source, ObjectPath) and not source.url.is_writable:
        return Path(source.name.replace("/", "-") or "download")
    return source


def _refuse_no_file(path: Path, option: str) -> None:
    """Refuses the path of a file to write that is a folder or a device."""
    try:
        if not path.name or path.is_dir():
            raise UsageError(f"{option} {path} is a folder; name a file, such as {path / 'job.journal'}")
        if path.exists() and not path.is_file():
            raise UsageError(f"{option} {path} is not an ordinary file; name another")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        raise UsageError(f"{option} {path}: {reason}; name another file") from None


def refuse_same_file(inputs: Iterable[Path] = (), **paths: Path | None) -> None:
    """Refuses a job that would overwrite what it reads, or write twice into one file.

    Raises:
        UsageError: Two of the paths are the same file, also by a link or another spelling.
    """
    seen: dict[object, str] = {identity_of(path): "input" for path in inputs}
    for called, path in paths.items():
        if path is None:
            continue
        identity = identity_of(path)
        if identity in seen:
            raise UsageError(
                f"{path} is {seen[identity]} and {called} at once; give another path for the {called}"
            )
        seen[identity] = called


def identity_of(path: Path) -> object:
    """Returns what the paths of one file have in common, whatever links or spellings they are."""
    if isinstance(path, ObjectPath):
        return path.url, path.url.query
    try:
        status = path.stat()
    except OSError:
        return os.path.realpath(path)
    return status.st_dev, status.st_ino
