"""``batchllm jobs`` and ``clean``: what runs have left behind, and how it is removed."""

from pathlib import Path
from typing import Annotated

import typer

from batchllm.cli.parameters import JournalOption, option, path_argument, word_argument
from batchllm.cli.streams import print_json, say
from batchllm.errors import UsageError
from batchllm.printable import counted, printable


def jobs(
    folders: Annotated[
        list[Path] | None,
        word_argument("Further folders to look in.  (the user's state folder alone)", "[FOLDER]..."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object a line.")] = False,
) -> None:
    """List jobs with their size, age, rows and state.

    The state folder has the jobs of tables that were given to the Python library, and those that wrote to standard
    output.
    """
    from batchllm.inspect.jobs import jobs as found_jobs
    from batchllm.journal import state_path

    found = found_jobs(*(folders or ()))
    for entry in found:
        if as_json:
            print_json(entry.to_json())
        else:
            typer.echo(printable(entry.to_text(), keep=""))
    if not found and not as_json:
        where = " or ".join(printable(str(folder)) for folder in [*(folders or ()), state_path("").parent])
        look = "" if folders else "; `batchllm jobs .` looks in this folder too"
        say(f"there are no jobs in {where}{look}")


def clean(
    output: Annotated[
        Path | None,
        path_argument(
            "The job's OUTPUT (or its journal); with --older-than, a folder beside the state folder.",
            "[OUTPUT]",
        ),
    ] = None,
    older_than: Annotated[
        str | None,
        option(
            text="Instead of one job, all finished ones that no run has changed for so long: 30d.",
            metavar="TIME",
        ),
    ] = None,
    journal: JournalOption = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Even if the job is not finished, or its journal cannot be read: its answers are lost.",
        ),
    ] = False,
) -> None:
    """Remove the journal of a finished job; OUTPUT stays.

    With --older-than, remove those of all old jobs that `batchllm jobs` lists, and their copies in the state folder.
    """
    if older_than is not None:
        if journal is not None:
            raise UsageError("--journal names one job, and --older-than many; leave out one of them")
        from batchllm.inspect.jobs import clean as clean_jobs

        removed = clean_jobs(*([output] if output else ()), older_than=older_than, force=force)
        for entry in removed:
            say(f"removed {entry.path.name}, {entry.size_text}")
        say(f"{counted(len(removed), 'job')} removed")
        return
    named = journal or output
    if named is None:
        raise UsageError("name the job's OUTPUT, or say which jobs with --older-than 30d")
    from batchllm.inspect.job import clean_job

    for path in clean_job(named, force=force):
        say(f"removed {path}")
