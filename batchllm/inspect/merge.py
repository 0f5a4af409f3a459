"""``merge``: puts the outputs of shards together, in order, and makes sure that no row is missing or there twice.

The journal beside each output says which rows of which input its shard has, and the hash of the output as it was
written. Where a journal is missing, the rows are compared with those of the input, cell by cell.
"""

import json
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from batchllm.errors import InputError, UsageError, listed
from batchllm.evaluate.answered import read_options_of
from batchllm.formats import (
    SUFFIXES,
    WRITTEN_SUFFIXES,
    InputStatistics,
    Source,
    open_source,
    output_format,
)
from batchllm.formats.merging import check_alike, write_merged
from batchllm.formats.several import SeveralSource
from batchllm.formats.suffixes import format_suffix
from batchllm.job import Job
from batchllm.job.paths import identity_of, is_folder, is_pattern
from batchllm.journal import JournalReader
from batchllm.prepare.existing_output import check_output, existing_digest
from batchllm.prepare.inputs import matches_of
from batchllm.prepare.job_paths import job_paths, journal_of
from batchllm.prepare.prepared_job import prepare_job
from batchllm.prepare.saved_job import job_in
from batchllm.prepare.shards import SHARD, ShardRows
from batchllm.printable import counted

_NUMBER = re.compile(r"\.shard-(\d+)-of-(\d+)\.")


@dataclass(frozen=True, slots=True)
class ShardOutput:
    """An output to be merged.

    Attributes:
        path: The file.
        source: Its rows.
        statistics: What the scan of it found.
        shard: What its journal says that it is; ``None`` without a journal.
        job: The job that wrote it, by its journal.
        asked: What shaped requests and columns, by its journal.
    """

    path: Path
    source: Source
    statistics: InputStatistics
    shard: ShardRows | None
    job: Job | None
    asked: Any = None

    @property
    def number(self) -> tuple[int, int] | None:
        """Its number and how many shards there are, by its journal or its name."""
        if self.shard is not None:
            return self.shard.number, self.shard.of
        found = _NUMBER.search(self.path.name)
        return (int(found[1]), int(found[2])) if found else None


@dataclass(frozen=True, slots=True)
class MergedOutput:
    """What was merged.

    Attributes:
        rows: Rows of the merged file.
        shards: How many outputs were put together.
        witness: What the rows were checked against, in words.
    """

    rows: int
    shards: int
    witness: str


def merge_outputs(
    outputs: Sequence[Path], merged: Path, *, inputs: Sequence[Path] = (), force: bool = False
) -> MergedOutput:
    """Puts the outputs of all shards of a job together.

    Args:
        outputs: The outputs, in any order; a pattern means those that match it, and not ``merged`` itself.
        merged: The file to write, all at once; its suffix decides the format.
        inputs: The inputs of the job, in its order, to compare with; by default those that the journals name, where
            they are needed.
        force: Overwrite ``merged`` though something is there.

    Raises:
        InputError: A row is missing, is there twice or was changed, an output is not finished, or formats or columns
            differ.
        UsageError: The outputs are those of different jobs, or nothing says which rows they have.
        CannotWrite: The merged file cannot be written.
    """
    output_format(merged)
    outputs = [path for named in outputs for path in _matched(named, WRITTEN_SUFFIXES, merged)]
    for path in outputs:
        if path.absolute() == merged.absolute():
            raise UsageError(f"{path} would be read and written; name another file with -o")
        if list(outputs).count(path) > 1:
            raise InputError(path, "is named twice, so its rows would be there twice")
    check_output(merged, written=None, force=force)
    found = _in_order([_opened(path) for path in outputs])
    _refuse_input(
        merged, [*inputs, *(path for each in found if each.job is not None for path in each.job.inputs)]
    )
    check_alike([each.source for each in found])
    known = [each.shard for each in found if each.shard is not None]
    if len(known) == len(found):
        _check_journals(found)
        witness = "the journals"
        if inputs:
            with _input_of(found, inputs) as (given, _, sha256):
                if sha256 is not None and sha256 != known[0].input_sha256:
                    raise InputError(given.name, "is not the input that these outputs are of")
            witness = f"the journals and {listed([str(path) for path in inputs])}"
    else:
        with _input_of(found, inputs) as (given, names, _):
            _compare(found, given, names)
            witness = given.name
    statistics = [each.statistics for each in found]
    write_merged([each.source for each in found], statistics, merged)
    return MergedOutput(sum(each.rows for each in statistics), len(found), witness)


def _matched(named: Path, suffixes: Collection[str], merged: Path | None = None) -> list[Path]:
    """Returns the files that a path or a pattern means."""
    if not is_pattern(named):
        return [named]
    found = [
        path
        for path in matches_of(named)
        if format_suffix(path) in suffixes and (merged is None or path.absolute() != merged.absolute())
    ]
    if not found:
        raise InputError(named, "matches no file of rows")
    return found


def _refuse_input(merged: Path, inputs: Sequence[Path]) -> None:
    """Refuses to overwrite an input of the job, whatever ``force`` says."""
    if not merged.exists():
        return
    for path in inputs:
        for each in matches_of(path) if is_pattern(path) else [path]:
            if identity_of(each) == identity_of(merged):
                raise UsageError(f"{merged} is an input of the job; name another file with -o")


def _opened(path: Path) -> ShardOutput:
    """Opens an output, and its journal where there is one."""
    if is_folder(path):
        raise InputError(path, "is a folder; name the outputs in it")
    if not path.is_file():
        raise InputError(path, "there is no such output")
    journal = journal_of(path)
    if journal == path:
        raise UsageError(f"{path} is a journal; name the OUTPUT that the job wrote")
    shard = job = asked = None
    if journal.exists():
        with JournalReader.open(journal) as reader:
            job, facts = job_in(reader), reader.get(SHARD)
            if facts is not None:
                shard = ShardRows(**facts)
                asked = _checked(path, reader, shard)
    source = open_source(path, **read_options_of(path, job))
    statistics = source.scan()
    source.release()
    if shard is not None and statistics.rows != shard.rows:
        raise InputError(
            path, f"{shard} has {counted(shard.rows, 'row')}, and the file has {statistics.rows:,}"
        )
    return ShardOutput(path, source, replace(statistics, sample=()), shard, job, asked)


def _checked(path: Path, reader: JournalReader, shard: ShardRows) -> Any:
    """Makes sure that an output is whole and as it was written; returns what shaped it."""
    written = reader.get("output") or {}
    if not reader.finished or not written.get("complete", True) or "sha256" not in written:
        raise InputError(path, f"{shard} is not finished; run its command again")
    if existing_digest(path) != written["sha256"]:
        raise InputError(
            path, f"was changed since {shard} was written; run its command again to write it anew"
        )
    view = json.loads(written["view"]) if "view" in written else [None, None]
    return view[:2]


def _in_order(found: list[ShardOutput]) -> list[ShardOutput]:
    """Returns outputs by their numbers, where all have one; makes sure that each is there once.

    Raises:
        InputError: One is missing, or there twice.
        UsageError: They are those of different numbers of shards.
    """
    numbers = [each.number for each in found if each.number is not None]
    if len(numbers) < len(found):
        return found
    if len({of for _, of in numbers}) > 1:
        words = ", ".join(f"{each.path} of {each.number[1]}" for each in found if each.number is not None)
        raise UsageError(f"these are not the shards of one run: {words}")
    by_number: dict[int, ShardOutput] = {}
    for (number, of), each in zip(numbers, found, strict=True):
        if number in by_number:
            raise InputError(
                each.path, f"shard {number} of {of} is there twice, as {by_number[number].path} too"
            )
        by_number[number] = each
    of = numbers[0][1]
    if missing := [str(number) for number in range(1, of + 1) if number not in by_number]:
        named = ", ".join(missing[:20]) + (", …" if len(missing) > 20 else "")
        raise InputError(
            found[0].path, f"of {counted(of, 'shard')} these are missing: {named}; name their outputs too"
        )
    return [by_number[number] for number in sorted(by_number)]


def _check_journals(found: Sequence[ShardOutput]) -> None:
    """Makes sure that the journals are those of one job and one input, and that the ranges have every row once."""
    first, at = found[0].shard, 0
    assert first is not None, "only called where every output has a journal"
    for each in found:
        shard = each.shard
        assert shard is not None, "only called where every output has a journal"
        if (shard.input_sha256, shard.input_rows) != (first.input_sha256, first.input_rows):
            raise InputError(each.path, f"is that of another input than {found[0].path}")
        if each.asked != found[0].asked:
            raise UsageError(
                f"{each.path} was asked something else than {found[0].path}, or has other columns; run its shard again "
                "with the same options"
            )
        if shard.first_row != at:
            is_gap = shard.first_row > at
            what = f"rows {at + 1:,} to {shard.first_row:,} are missing" if is_gap else "rows are there twice"
            raise InputError(
                each.path, f"before {shard} {what}; were all shards run with the same --conversation?"
            )
        at += shard.rows
    if at != first.input_rows:
        raise InputError(found[-1].path, f"rows {at + 1:,} to {first.input_rows:,} of the input are missing")


@contextmanager
def _input_of(
    found: Sequence[ShardOutput], paths: Sequence[Path]
) -> Iterator[tuple[Source, Sequence[str], str | None]]:
    """Opens the input to compare with: its rows, its columns, and its hash."""
    job = next((each.job for each in found if each.job is not None), None)
    if job is None and not paths:
        raise UsageError(
            f"{found[0].path} has no journal beside it that says which rows it has; name the job's input with --input"
        )
    with ExitStack() as stack:
        if job is not None:
            whole = replace(job, shard=None, inputs=tuple(paths) or job.inputs)
            prepared = stack.enter_context(prepare_job(whole, job_paths(whole)))
            yield prepared.source, prepared.statistics.columns, prepared.statistics.sha256
        else:
            named = [path for each in paths for path in _matched(each, SUFFIXES)]
            opened = [open_source(path) for path in named]
            for each in opened:
                stack.callback(each.close)
            source = (
                opened[0]
                if len(opened) == 1
                else SeveralSource(listed([each.name for each in opened]), opened)
            )
            statistics = source.scan()
            source.release()
            yield source, statistics.columns, statistics.sha256


def _compare(found: Sequence[ShardOutput], given: Source, columns: Sequence[str]) -> None:
    """Compares the rows of outputs with those of the input, in the columns that both have."""
    filled = [each for each in found if each.statistics.rows] or found  # JSONL without rows has no columns
    shared = [name for name in columns if all(name in each.source.columns for each in filled)]
    if not shared:
        raise UsageError(
            f"{found[0].path} has no column of {given.name}, so its rows cannot be compared with the input; merge it "
            "where the journals are"
        )
    theirs = ((each, row) for each in found for row in each.source.rows())
    for own, other in zip_longest(given.rows(), theirs):
        if other is None:
            raise InputError(
                given.name, f"row {own.index + 1:,} and what follows it is in none of the outputs"
            )
        each, row = other
        if own is None:
            raise InputError(
                each.path, f"row {row.index + 1:,} is one more than {given.name} has; is one there twice?"
            )
        if not all(map(_is_same, given.cells(own, shared), each.source.cells(row, shared))):
            raise InputError(
                each.path,
                f"row {row.index + 1:,} is not row {own.index + 1:,} of {given.name}; a row is missing, there twice "
                "or changed, or the outputs are named in another order",
            )


def _is_same(one: str, other: str) -> bool:
    """Whether two cells say the same: formats write the blanks of a list, or ``2.0``, in their own ways."""
    if one == other:
        return True
    try:
        return bool(json.loads(one) == json.loads(other))
    except ValueError:
        return False
