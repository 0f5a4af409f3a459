"""``batchllm check``: what one needs to know when something does not work."""

import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from batchllm.cli.options import CONNECTION, OPTIONS, parameter_of
from batchllm.cli.sections import SectionedCommand
from batchllm.errors import UsageError


def register(app: typer.Typer, name: str) -> None:
    """Adds the command under its name."""
    app.command(name, cls=SectionedCommand, rich_help_panel="Prepare a job", help=HELP)(_command())


HELP = """Send one smallest request and say what is right and wrong: key, proxy, model, limits, clock.

For a job file also its template, input, folder and lock."""


def _command() -> Callable[..., None]:
    """A function with the connection's options, for typer to read."""

    def command(job: str | None, **values: Any) -> None:
        flags = {name: value for name, value in values.items() if value is not None and value is not False}
        _check(job, flags)

    info = typer.Argument(help="A job file (.toml).", metavar="JOB.toml", show_default=False)
    argument = inspect.Parameter(
        "job",
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        annotation=Annotated[str | None, info],
        default=None,
    )
    parameters = [argument, *(parameter_of(option) for option in OPTIONS if option.panel == CONNECTION)]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _check(job_file: str | None, flags: dict[str, Any]) -> None:
    from batchllm.inspect.check import check_job
    from batchllm.job import assemble
    from batchllm.progress import visible

    if job_file is not None and Path(job_file).suffix.lower() != ".toml":
        raise UsageError(
            f"{job_file} is not a job file (.toml); without one, check looks at the endpoint alone"
        )
    what = {"job_file": job_file} if job_file else {"input": "-", "prompt": "{{ text }}"}
    job = assemble("run", {**flags, **what}, os.environ, needs_key=False)
    status = 0
    for finding in check_job(job, whole=job_file is not None):
        typer.echo(f"{finding.status:<6}{finding.subject:<12}{visible(finding.message)}")
        status = status or int(finding.exit_status)
    sys.exit(status)
