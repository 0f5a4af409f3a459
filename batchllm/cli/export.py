"""``batchllm export``: the output as far as it is, at any time."""

from pathlib import Path
from typing import Annotated

import typer

from batchllm.cli.arguments import OutputArgument


def register(app: typer.Typer, name: str) -> None:
    """Adds the command under its name."""
    app.command(name, rich_help_panel="Look at a job")(export)


def export(
    output: OutputArgument,
    to: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write here instead; '-' is standard output.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite a file that batchllm did not write.")
    ] = False,
) -> None:
    """Write what a job has so far: the rows that have their end, in input order."""
    from batchllm.cli.terminal import say
    from batchllm.inspect.export import export_job

    rows = export_job(output, to=to, force=force)
    if to is None or str(to) != "-":
        say(f"{rows:,} rows written to {to or output}")
