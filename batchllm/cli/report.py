"""``batchllm report``: one page to look at, which needs no batchllm."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from batchllm.cli.evaluate import GoldOption, OnOption, check_on
from batchllm.cli.parameters import JournalOption, option, path_argument
from batchllm.cli.streams import print_json, say
from batchllm.errors import UsageError
from batchllm.formats.suffixes import stem_of
from batchllm.stores import beside_on_disk


def report(
    outputs: Annotated[
        list[Path],
        path_argument(
            "The job's OUTPUT (with --engine also its work folder), and others of the same rows to compare it with.",
            "OUTPUT [OTHER]...",
        ),
    ],
    to: Annotated[
        Path | None,
        option(
            "--output",
            "-o",
            text="Write the page here.  (OUTPUT with the suffix .report.html)",
            metavar="FILE",
        ),
    ] = None,
    gold: GoldOption = None,
    on: OnOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the figures as one JSON object instead of writing a page.")
    ] = False,
    journal: JournalOption = None,
) -> None:
    """Write one HTML page about OUTPUT: what was asked, what came, whether it is any good, cost, time, and the rows.

    The page needs no network and no batchllm, and shows prompts and raw answers; send it to whom these may reach.
    Without the journal it has what OUTPUT says. Charts need matplotlib: pip install matplotlib.
    """
    from batchllm.report import check_page, make_report, write_page

    output, *others = outputs
    check_on(on, gold)
    if as_json and to is not None:
        raise UsageError("--json prints figures, and -o names a page; leave one out")
    path = to or beside_on_disk(output, f"{stem_of(output)}.report.html")
    if not as_json:
        check_page(path)
    with _output_of(output, journal) as output:
        found = make_report(output, others, gold=gold or None, on=on, journal=journal, with_rows=not as_json)
    if as_json:
        print_json(found.to_json())
        return
    write_page(found, path)
    for note in found.notes:
        say(note)
    say(f"Written: {path}")


@contextmanager
def _output_of(place: Path, journal: Path | None) -> Iterator[Path]:
    """Yields an output: of a job on many machines, by its work folder, the rows that are finished."""
    from batchllm.cluster.inspection import job_of_work, work_at
    from batchllm.inspect.export import export_job

    work = None if journal else work_at(place)
    if work is None:
        yield place
        return
    with job_of_work(work) as job:
        if job.output is None:
            raise UsageError(
                f"the output of the job of {work} went to standard output; export it to a file first"
            )
        if not job.finished:
            export_job(job.journal)
        yield job.output
