"""``batchllm batches``: list the batches of jobs, or cancel those of one."""

import os
from pathlib import Path
from typing import Annotated

import typer

from batchllm.errors import UsageError


def register(app: typer.Typer, name: str) -> None:
    """Adds the command under its name."""
    app.command(name, rich_help_panel="Look at a job")(batches)


def batches(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            help="Outputs of jobs, or their journals.  (every journal in this folder)",
            metavar="[cancel] [OUTPUT]...",
            show_default=False,
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="With cancel: file with the key.", metavar="FILE", show_default=False)
    ] = None,
) -> None:
    """List the batches of jobs, with their counts as the last run saw them.

    batchllm batches cancel OUTPUT stops those of one job: what was done is kept, and the next run of the job collects
    it. Batches that the endpoint does not know any more are given up.
    """
    from batchllm.cli.terminal import say
    from batchllm.inspect.batches import cancel_batches, list_batches

    if words and words[0] == "cancel":
        if len(words) != 2:
            raise UsageError("batchllm batches cancel takes one OUTPUT")
        found = cancel_batches(Path(words[1]), os.environ, api_key_file=api_key_file)
        if not found:
            say("there is no batch to cancel")
        for line in found:
            typer.echo(line.to_text())
        return
    listed = 0
    for line in list_batches(map(Path, words or ())):
        typer.echo(line.to_text())
        listed += 1
    if not listed:
        say("there are no batches")
