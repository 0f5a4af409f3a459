"""Scans the input, and decides and checks everything that needs neither network nor journal."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from batchllm import tokens
from batchllm.answer import Reader, answer_columns
from batchllm.errors import InputError, UsageError, listed
from batchllm.flows import JobFlow, job_flow
from batchllm.flows.part_columns import split_columns
from batchllm.flows.samples import sample_columns
from batchllm.formats import (
    Columns,
    InputStatistics,
    Source,
    format_named,
    kept_columns,
    output_kind,
    plan_columns,
)
from batchllm.formats.columns import ADDABLE, STANDARD
from batchllm.formats.several import InputPart, SeveralSource
from batchllm.job import Job
from batchllm.prepare.column_kinds import with_kinds
from batchllm.prepare.inputs import opened_input
from batchllm.prepare.job_paths import JobPaths
from batchllm.prepare.outputs import check_outputs
from batchllm.prepare.shards import RowRange, ShardRows, restricted
from batchllm.printable import counted
from batchllm.records import Row
from batchllm.request import RequestBuilder, Skipped, answer_spec
from batchllm.template import KNOWN_PARAMETERS, TEXT, text_column

DOCUMENTS = 10
"""How many documents of the sample are read for the estimate before a run."""


@dataclass(frozen=True, slots=True)
class PreparedJob:
    """A job with its input scanned.

    Attributes:
        job: The job.
        paths: Its files.
        source: The input, open for further passes.
        statistics: The result of the scan.
        builder: Makes a row's request.
        flow: What is done with a row.
        reader: Reads a row's answer.
        columns: The columns of the output.
        output_format: Name of the format, such as ``csv``.
        count: Counts the tokens of a text; see ``token_count``.
        shard: Which rows of the input these are, where the job is a shard.
    """

    job: Job
    paths: JobPaths
    source: Source
    statistics: InputStatistics
    builder: RequestBuilder
    flow: JobFlow
    reader: Reader
    columns: Columns
    output_format: str
    count: Callable[[str], int]
    shard: ShardRows | None = None

    @property
    def input_notes(self) -> tuple[str, ...]:
        """What a reader of the input would not expect of it, in words."""
        bad = self.statistics.bad_rows
        left_out = (f"{counted(bad, 'row')} left out",) if bad else ()
        return (*self.source.notes, *left_out, *self._files_without_text())

    def _files_without_text(self) -> Iterator[str]:
        """Says which of several files have no row that can be sent, since they lack what the prompt reads."""
        if not isinstance(self.source, SeveralSource) or self.job.template is None:
            return
        found = [part for part in self.source.parts if part.rows and self._is_unread(part)]
        if found:
            names = listed([part.source.name for part in found])
            rows = sum(part.rows for part in found)
            has, its = ("has", "its") if len(found) == 1 else ("have", "their")
            sent = f"{its} {counted(rows, 'row')} {'is' if rows == 1 else 'are'} not sent"
            yield f"{names} {has} no text for the prompt, so {sent}"

    def _is_unread(self, part: InputPart) -> bool:
        absent = part.absent
        return absent.keys() >= set(self.job.images) and isinstance(
            self.builder.build(Row(0, 0, absent)), Skipped
        )


@contextmanager
def prepare_job(
    job: Job, paths: JobPaths, rows: RowRange | None = None, *, sha256: str | None = None
) -> Iterator[PreparedJob]:
    """Scans the input and prepares the job; standard input is copied to disk first.

    Args:
        job: The job.
        paths: Its files.
        rows: The only rows of the job, which are read instead of the whole input; columns and everything else that a
            scan decides are those of the whole input.
        sha256: The hash that a scan must find, in hexadecimal; ``None`` for any.

    Raises:
        InputError: The input cannot be read in its format, or is another one.
        UsageError: A column, a placeholder or an option does not fit the input.
    """
    if job.into_folder and (rows is not None or job.shard is not None):
        raise UsageError(
            f"a part of the rows has one output, and {job.output} is a folder; name a file with -o"
        )
    with opened_input(job, paths, rows) as source:
        shard = None
        if rows is not None:
            statistics = rows.restrict(source)
        else:
            statistics = source.scan()
            if sha256 not in (None, statistics.sha256):
                raise InputError(source.name, "is not the input of the plan; name another folder with --work")
            if job.shard is not None:
                statistics, shard = restricted(job, source, statistics)
        texts = None if rows is None else rows.texts
        prepared = replace(prepared_of(job, paths, source, statistics, texts), shard=shard)
        yield prepared if rows is None else replace(prepared, columns=rows.columns(prepared.columns))


def prepared_of(
    job: Job,
    paths: JobPaths,
    source: Source,
    statistics: InputStatistics,
    texts: Sequence[Mapping[str, str]] | None = None,
) -> PreparedJob:
    """Prepares a job whose input is scanned.

    Args:
        job: The job.
        paths: Its files.
        source: The input.
        statistics: What the scan found.
        texts: What decides about the text column; by default the sample.

    Raises:
        UsageError: The job does not fit the input.
    """
    _check_conversation(job, statistics)
    _check_steps(job, statistics)
    _check_texts(job, statistics)
    if job.text_from is not None:
        statistics = replace(statistics, sample=statistics.sample[:: 1 + len(statistics.sample) // DOCUMENTS])
    count = token_count(job)
    sample = statistics.sample if texts is None else [Row(0, 0, values) for values in texts]
    builder = RequestBuilder(job, statistics.columns or None, sample, count)
    columns = output_columns(job, builder, statistics.columns, source.header)
    output_format = job.output_format or output_kind(source.kind)
    if job.output_encoding is not None and format_named(output_format).magic:
        raise UsageError(
            f"--output-encoding is for CSV and JSONL, and the output is {output_format.upper()}; leave it out"
        )
    flow = job_flow(job, builder, source.rows)
    reader = Reader(answer_spec(job))
    prepared = PreparedJob(
        job, paths, source, statistics, builder, flow, reader, columns, output_format, count
    )
    check_outputs(prepared)
    return prepared


def output_columns(
    job: Job,
    builder: RequestBuilder,
    input_columns: Sequence[str],
    header: Callable[[Sequence[str]], Sequence[str]] = lambda names: (),
) -> Columns:
    """Returns the columns of a job's output.

    Args:
        job: The job.
        builder: Makes its requests.
        input_columns: The columns of the input.
        header: Returns names of columns as they are written, where they are called otherwise.

    Raises:
        UsageError: The input has a column of the same name as one of the answer, or lacks one that an option names.
    """
    added = (*sample_columns(job), *split_columns(job))
    if twice := set(added) & set(builder.answer_columns):
        option = "--on-long split" if job.splits else "--samples"
        raise UsageError(
            f"{option} adds a column {', '.join(sorted(twice))}, and the schema has a field of that name; rename "
            "the field"
        )
    kept = kept_columns(input_columns, job.keep, job.drop)
    columns = plan_columns(
        kept,
        (*builder.answer_columns, *added),
        (
            *(name for name in job.add if name not in added),
            *(("tool_calls",) if job.tools and "tool_calls" not in job.add else ()),
        ),
        job.columns,
        job.prefix,
        KNOWN_PARAMETERS if job.per_row else frozenset(),
        header(kept),
        job.rename,
    )
    return with_kinds(columns, job)


def token_count(job: Job) -> Callable[[str], int]:
    """Returns a token counter for a job: exact if a limit or a budget depends on it, otherwise an estimate.

    An exact count takes longer than everything else that is done for a row. Whether a text is long, and what its parts
    are, is counted exactly whatever this returns (``request.long_text``).
    """
    depends_on_it = (job.pace.tokens_per_minute, job.max_total_tokens, job.max_cost)
    if any(setting is not None for setting in depends_on_it):
        return tokens.counter(job.endpoint.model)
    return tokens.estimate


def _check_conversation(job: Job, statistics: InputStatistics) -> None:
    """Refuses options that a conversation cannot have.

    Raises:
        UsageError: There is no such column, or rows would be sent without the turns before them.
    """
    if job.conversation is None or not statistics.columns:
        return
    text_column(statistics.columns, (), job.conversation)
    if job.sample is not None:
        raise UsageError(
            "--sample takes rows out of their conversations; try the first ones instead, with -n"
        )


def _check_texts(job: Job, statistics: InputStatistics) -> None:
    """Refuses a column of file names that does not exist, and one that the text itself would replace.

    Raises:
        UsageError: There is no such column, or the input has a column of the text's name.
    """
    if job.text_from is None or not statistics.columns:
        return
    text_column(statistics.columns, (), job.text_from)
    if TEXT in statistics.columns:
        raise UsageError(
            f"--text-from: {{{{ text }}}} is the text of a file, and the input has a column {TEXT!r}; rename that one"
        )


def _check_steps(job: Job, statistics: InputStatistics) -> None:
    """Refuses steps whose columns are there already.

    Raises:
        UsageError: A step, or a field of its schema, is called like a column of input or output, or like another one.
    """
    taken = dict.fromkeys(statistics.columns, "the input has a column of that name")
    taken |= dict.fromkeys((*STANDARD, *ADDABLE), "the output has a column of that name beside the answers")
    for step in job.steps:
        for name in answer_columns(answer_spec(step.job)):
            if name in taken:
                raise UsageError(
                    f"step {step.name}: it would write the column {name}, and {taken[name]}; rename it"
                )
            taken[name] = f"step {step.name} writes a column of that name"
