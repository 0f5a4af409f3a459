"""``batchllm status``: how far a job is, also while it runs."""

import json
from typing import Annotated

import typer

from batchllm.cli.arguments import OutputArgument


def register(app: typer.Typer, name: str) -> None:
    """Adds the command under its name."""
    app.command(name, rich_help_panel="Look at a job")(status)


def status(
    output: OutputArgument,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Say how far a job is, also while it runs."""
    from batchllm.inspect.status import job_status

    found = job_status(output)
    typer.echo(json.dumps(found.to_json(), ensure_ascii=False) if as_json else found.to_text())
