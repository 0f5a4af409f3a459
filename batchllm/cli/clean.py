"""``batchllm clean``: remove the journal of a finished job."""

from typing import Annotated

import typer

from batchllm.cli.arguments import OutputArgument


def register(app: typer.Typer, name: str) -> None:
    """Adds the command under its name."""
    app.command(name, rich_help_panel="Look at a job")(clean)


def clean(
    output: OutputArgument,
    force: Annotated[
        bool, typer.Option("--force", help="Even if the job is not finished: its answers are lost.")
    ] = False,
) -> None:
    """Remove the journal and the lock of a finished job; OUTPUT stays."""
    from batchllm.cli.terminal import say
    from batchllm.inspect.job import clean_job

    for path in clean_job(output, force=force):
        say(f"removed {path}")
