"""An output as rows with answers: which columns are the answers, what each says beside them, and what they cost."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from itertools import chain, islice
from pathlib import Path
from typing import Any

from batchllm.answer.several_labels import NONE
from batchllm.budget.costs import Pricing
from batchllm.errors import InputError, UsageError, listed
from batchllm.evaluate.output_source import journal_there, output_source
from batchllm.evaluate.values import LABEL, LABELS, TEXT, AnswerField, is_missing, schema_kind
from batchllm.flows import job_flow
from batchllm.formats import ADDABLE, STANDARD, Source, format_of
from batchllm.formats.suffixes import format_suffix
from batchllm.job import Job
from batchllm.journal import JournalReader
from batchllm.prepare.job_paths import folder_journal
from batchllm.prepare.saved_job import job_in
from batchllm.records import Row, Usage
from batchllm.request import RequestBuilder, answer_spec

ANSWER_COLUMNS: Mapping[str, str | None] = {"label": LABEL, "response": None, "summary": TEXT, "code": TEXT}
"""The answer columns of the built-in tasks, and what they are compared as; ``None`` lets gold decide."""

_SAMPLED = ("agreement", "samples")
"""The columns that ``--samples`` adds."""

_SAMPLE_ROWS = 100

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AnsweredRows:
    """The rows of an output.

    Attributes:
        name: What messages call it.
        columns: All its columns.
        fields: Its answer columns, as far as they are known.
        beside: Columns beside the answers: ``error`` and the like to the name that they have in this output.
        read: Streams the rows; may be called again.
        prompt_columns: The columns that prompts read; ``None`` is unknown.
        price: What the answer of a row cost where no column says it; ``None`` is unknown.
    """

    name: str
    columns: tuple[str, ...]
    fields: tuple[AnswerField, ...]
    beside: Mapping[str, str]
    read: Callable[[], Iterator[Values]]
    prompt_columns: frozenset[str] | None = None
    price: Callable[[Usage, str], Decimal | None] | None = field(default=None, repr=False)

    @property
    def own_columns(self) -> tuple[str, ...]:
        """The columns that the rows had before they were answered, as far as that can be told."""
        ours = {*self.beside.values(), *(answer.name for answer in self.fields)}
        return tuple(name for name in self.columns if name not in ours)

    def cell(self, row: Values, name: str) -> Any:
        """Returns what a row says in a column beside its answers; ``None`` where it says nothing."""
        value = row.get(self.beside.get(name, ""))
        return None if is_missing(value) else value

    def number(self, row: Values, name: str) -> float | None:
        """Returns what a row says there as a number; ``None`` where it says none."""
        try:
            return float(self.cell(row, name))
        except (TypeError, ValueError):
            return None

    def cost(self, row: Values) -> Decimal | None:
        """Returns what the answer of a row cost, in US dollars; ``None`` is unknown."""
        value = self.cell(row, "cost")
        if value is not None:
            try:
                return Decimal(str(value))
            except InvalidOperation:
                return None
        if self.price is None:
            return None
        tokens = [self.number(row, name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")]
        if tokens[0] is None:
            return None
        usage = Usage(*(None if count is None else int(count) for count in tokens))
        return self.price(usage, str(self.cell(row, "model") or ""))

    def bare(self, name: str) -> str:
        """Returns the name of an answer column without the prefix of the output."""
        written = self.beside.get("finish_reason", "")
        return (
            name.removeprefix(written.removesuffix("finish_reason"))
            if written.endswith("finish_reason")
            else name
        )

    def answer_field(self, name: str) -> AnswerField:
        """Returns the answer column of that name, which may be any column.

        Raises:
            UsageError: There is no such column.
        """
        for answer in self.fields:
            if answer.name == name:
                return answer
        if name in self.columns:
            return AnswerField(name, ANSWER_COLUMNS.get(name))
        raise UsageError(f"{self.name} has no column {name!r}; its columns are: {listed(self.columns)}")


def open_output(
    output: Path,
    journal: Path | None = None,
    *,
    job: Job | None = None,
    options: Mapping[str, str] | None = None,
) -> AnsweredRows:
    """Opens an output; where its journal is there too, that says more about it.

    Args:
        output: The file.
        journal: Its journal; by default the one beside it.
        job: The job that wrote it, where that is known.
        options: Options of ``open_source`` that it is read with; by default what the job says.

    Raises:
        InputError: The file or its journal cannot be read.
        UsageError: Its suffix names no format.
    """
    path = journal_there(output) if journal is None else journal
    if path == output:
        raise UsageError(f"{output} is a journal; name the OUTPUT that the job wrote (export writes it)")
    path = path or folder_journal(output)
    if job is None and path is not None:
        with JournalReader.open(path) as reader:
            job = job_in(reader)
    if not output.exists():
        raise InputError(output, "there is no such output; run the job first")
    source = output_source(output, lambda path: read_options_of(path, job) if options is None else options)
    source.scan()
    return of_source(source, job, str(output))


def chained(outputs: Sequence[AnsweredRows]) -> AnsweredRows:
    """Returns the rows of several outputs, one output after the other.

    Raises:
        UsageError: Their answers are in other columns.
    """
    first, *others = outputs
    for other in others:
        if [each.name for each in other.fields] != [each.name for each in first.fields]:
            raise UsageError(
                f"{other.name} has other answer columns than {first.name}; evaluate each by itself"
            )
    if not others:
        return first
    columns = dict.fromkeys(name for each in outputs for name in each.columns)
    return replace(
        first,
        name=f"{first.name} and {len(others):,} more",
        columns=tuple(columns),
        read=lambda: chain.from_iterable(each.read() for each in outputs),
    )


def read_options_of(output: Path, job: Job | None) -> dict[str, str | None]:
    """Returns what the job knows of the way in which its output is written, as options of ``open_source``."""
    options = format_of(output).options
    known = {} if job is None else {"encoding": job.output_encoding, "delimiter": job.delimiter}
    if job is not None and format_suffix(output) != (format_suffix(job.inputs[0]) if job.inputs else ""):
        known.pop("delimiter")
    return {name: value for name, value in known.items() if name in options}


def of_source(source: Source, job: Job | None, name: str) -> AnsweredRows:
    """Returns the rows of a file that was scanned."""
    sample = list(islice(source.rows(), _SAMPLE_ROWS))
    return answered_rows(lambda: (row.values for row in source.rows()), source.columns, job, name, sample)


def answered_rows(
    read: Callable[[], Iterator[Values]],
    columns: Iterable[str],
    job: Job | None,
    name: str,
    sample: Iterable[Row],
) -> AnsweredRows:
    """Finds the answers among the columns of rows.

    Args:
        read: Streams the rows.
        columns: Their columns.
        job: The job that answered them, if it is known.
        name: What messages call them.
        sample: Some rows, to find the text column of the job.
    """
    columns = tuple(columns)
    prefix = _prefix(columns) if job is None else job.prefix
    beside = dict(_beside(columns, job, prefix))
    if job is None:
        found = [
            AnswerField(prefix + it, kind) for it, kind in ANSWER_COLUMNS.items() if prefix + it in columns
        ]
        return AnsweredRows(name, columns, tuple(found[:1]), beside, read)
    fields = answer_fields(job, columns)
    taken = {answer.name for answer in fields}
    beside = {column: written for column, written in beside.items() if written not in taken}
    rows = AnsweredRows(name, columns, fields, beside, read, price=Pricing(job, needed=False).mode_cost)
    return replace(rows, prompt_columns=_prompt_columns(job, rows.own_columns, sample))


def _beside(columns: tuple[str, ...], job: Job | None, prefix: str) -> Iterator[tuple[str, str]]:
    """The columns beside the answers; an input may have columns of such names, and they come before the answers."""
    end = columns.index(f"{prefix}finish_reason") if f"{prefix}finish_reason" in columns else len(columns)
    sampled = {prefix + name for name in _SAMPLED} <= set(columns) if job is None else job.samples > 1
    for name in (*STANDARD, *ADDABLE, *_SAMPLED):
        expected = STANDARD if job is None else (*(job.columns or STANDARD), *job.add)
        known = name in expected or (sampled and name in _SAMPLED)
        own = f"{prefix}{name}" if job is None else job.written(name)
        for written in (f"{prefix}response_{name}", own):
            if written in columns and (known or (job is None and columns.index(written) > end)):
                yield name, written
                break


def _prefix(columns: Iterable[str]) -> str:
    """The ``--prefix`` of an output, by the column that every output has."""
    ends = [column for column in columns if column.endswith("finish_reason") and "raw_" not in column]
    return ends[-1].removesuffix("finish_reason") if ends else ""


def answer_fields(job: Job, columns: Sequence[str]) -> tuple[AnswerField, ...]:
    """Returns the answer columns of a job.

    Args:
        job: The job.
        columns: The columns of its output.
    """
    if job.steps:
        return tuple(answer for step in job.steps for answer in answer_fields(step.job, columns))
    spec = answer_spec(job)
    schema = spec.schema if isinstance(spec.schema, Mapping) else None
    properties = schema.get("properties") if schema is not None and spec.read == "json" else None
    if isinstance(properties, Mapping) and schema is not None:
        found = [
            AnswerField(job.written(it), *schema_kind(value, schema)) for it, value in properties.items()
        ]
        return tuple(answer for answer in found if answer.name in columns)
    kind = ANSWER_COLUMNS.get(spec.column)
    if spec.read == "label":
        kind = LABELS if spec.multi_label else LABEL
    has_none = kind == LABELS and NONE not in spec.labels
    found = [AnswerField(job.written(spec.column), kind, none=NONE if has_none else "")]
    return tuple(answer for answer in found if answer.name in columns)


def _prompt_columns(job: Job, columns: tuple[str, ...], sample: Iterable[Row]) -> frozenset[str] | None:
    """The columns that prompts read; ``None`` where each row brings its own messages, or an option does not fit."""
    if job.per_row:
        return None
    try:
        builder = RequestBuilder(job, columns, sample, None)
        steps = job_flow(job, builder).by_step.values() if job.steps else ()
        return builder.used_columns.union(*(step.used_columns for step in steps))
    except UsageError:  # the output lacks a column that the input has
        return None
