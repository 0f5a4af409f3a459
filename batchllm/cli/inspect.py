"""Commands that look at a job through its journal: ``status``, ``show``, ``export`` and ``batches``."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from batchllm.cli.parameters import (
    JournalOption,
    JsonOption,
    OutputArgument,
    OutputOrWorkArgument,
    option,
    word_argument,
)
from batchllm.cli.streams import print_json, say
from batchllm.errors import UsageError
from batchllm.printable import counted, printable
from batchllm.screen import columns_of, wrapped
from batchllm.stores import located


def status(output: OutputOrWorkArgument, as_json: JsonOption = False, journal: JournalOption = None) -> None:
    """Show how far a job is, also while it runs."""
    from batchllm.cluster.inspection import cluster_status, work_at
    from batchllm.inspect.status import job_status

    work = None if journal else work_at(output)
    if work is None:
        found = job_status(journal or output)
        text, values = found.to_text(), found.to_json()
    else:
        figures = cluster_status(work)
        text, values = figures.to_text(str(output)), figures.to_json()
    if as_json:
        print_json(values)
    else:
        typer.echo(wrapped(text, columns_of(sys.stdout)))


def show(
    output: OutputArgument,
    row: Annotated[
        int, typer.Argument(help="Number of the row, from 1, the header not counted.", metavar="ROW", min=1)
    ],
    as_json: JsonOption = False,
    journal: JournalOption = None,
) -> None:
    """Print one row's exact request, every attempt, the raw answer and the times."""
    from batchllm.inspect.show import row_facts, show_row

    if as_json:
        print_json(row_facts(journal or output, row - 1))
        return
    on_terminal = sys.stdout.isatty()
    for line in show_row(journal or output, row - 1):
        typer.echo(printable(line) if on_terminal else line)


def export(
    output: OutputOrWorkArgument,
    to: Annotated[
        Path | None,
        option(
            "--output",
            "-o",
            text="Write here instead; '-' is standard output.  (OUTPUT)",
            metavar="FILE",
            parser=located,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite a file that batchllm did not write.")
    ] = False,
    journal: JournalOption = None,
) -> None:
    """Write the finished rows of a job, in input order, also while it runs."""
    from batchllm.cluster.inspection import job_of_work, work_at
    from batchllm.inspect.export import export_job

    work = None if journal else work_at(output)
    if work is None:
        rows = export_job(journal or output, to=to, force=force, note=say)
    else:
        with job_of_work(work) as job:
            if to is None and not job.finished:
                what = f"has its parts in {job.name}" if job.in_parts else "is not finished"
                raise UsageError(f"the job of {work} {what}; name a file for its rows with -o")
            rows = export_job(job.journal, to=to, force=force, note=say)
            output = job.name or output
    if to is None or str(to) != "-":
        say(f"{counted(rows, 'row')} written to {to or output}")


def batches(
    words: Annotated[
        list[str] | None,
        word_argument(
            "Outputs of jobs, or their journals.  (every journal in this folder)", "[cancel] [OUTPUT]..."
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None, option(text="With cancel: file with the key.", metavar="FILE")
    ] = None,
) -> None:
    """List the batches of jobs, with the counts that the last run saw.

    batchllm batches cancel OUTPUT cancels those of one job: the next run of the job collects the answers that they
    have. A batch that the endpoint no longer knows is given up.
    """
    from batchllm.inspect.batches import cancel_batches, list_batches

    words = words or []
    cancel = words[:1] == ["cancel"]
    if cancel and len(words) != 2:
        raise UsageError("batchllm batches cancel takes one OUTPUT")
    found = list(
        cancel_batches(located(words[1]), os.environ, api_key_file=api_key_file)
        if cancel
        else list_batches(map(located, words), say)
    )
    for line in found:
        typer.echo(line.to_text())
    if not found:
        say("there is no batch to cancel" if cancel else "there are no batches")
