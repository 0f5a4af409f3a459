"""Rows that came from standard input: what the journal has of them, since nothing else is kept."""

from contextlib import closing
from pathlib import Path

from batchllm.answer import Reader, answer_columns
from batchllm.errors import UsageError
from batchllm.evaluate.row_files import MadeRows
from batchllm.flows.samples import sample_columns
from batchllm.formats import (
    Columns,
    OutputStatistics,
    format_of,
    plan_columns,
    with_fitting_kinds,
    write_output,
)
from batchllm.job import Job
from batchllm.journal import JournalReader
from batchllm.plan.outcomes import OutcomeReader, outcomes
from batchllm.plan.replay import AnswersAlone
from batchllm.prepare.column_kinds import with_kinds
from batchllm.request import answer_spec

NOT_KEPT = "the rows came from standard input, which is not kept"


def export_answers(reader: JournalReader, job: Job, path: Path | None) -> int:
    """Writes the answers of a job whose rows are not there any more, each with the number of its row.

    Args:
        reader: The job's journal.
        job: The job.
        path: The file to write; ``None`` is standard output.

    Returns:
        The number of rows written.

    Raises:
        UsageError: The file is the job's own output, which has the columns of the input.
    """
    if path is not None and path == job.output and path.exists():
        raise UsageError(f"{path}: {NOT_KEPT}, so an export has fewer columns; write it elsewhere with -o")
    if job.splits:
        raise UsageError(
            f"{NOT_KEPT}, and without them it is not known how the answers about the parts of a text were combined; "
            "`batchllm show` prints the answers of a row"
        )
    if job.steps:
        raise UsageError(
            f"{NOT_KEPT}, and without them it is not known which step an answer belongs to; `batchllm show` prints the "
            "answers of a row"
        )
    spec = answer_spec(job)
    answer_reader = Reader(spec)
    planned = plan_columns(
        ("row",),
        (*answer_columns(spec), *sample_columns(job)),
        job.add,
        job.columns,
        job.prefix,
        rename=job.rename,
    )

    output_format = (job.output_format or "csv") if path is None else format_of(path).name

    rows = MadeRows(("row",), str(reader.path), reader.get("rows") or 0, lambda index: {"row": index + 1})

    def write(columns: Columns) -> OutputStatistics:
        answers = OutcomeReader(AnswersAlone(reader, answer_reader, job.samples), lambda _: answer_reader)
        with closing(reader.outcomes()) as entries:
            return write_output(
                rows,
                outcomes(entries, answers),
                path=path,
                columns=columns,
                output_format=output_format,
                partial=True,
                encoding=job.output_encoding,
                escape_formulas=job.escape_formulas,
            )

    return with_fitting_kinds(with_kinds(planned, job), write).rows
