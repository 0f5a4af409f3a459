"""``batchllm check``: tests key, proxy, model, limits and clock with one small request."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from batchllm.cli.parameters import argument, with_parameters
from batchllm.errors import UsageError
from batchllm.job.options import CONNECTION, TABLE
from batchllm.printable import printable


def check_command() -> Callable[..., None]:
    """Makes the command: a job file, and the options of the connection."""

    def check(job: str | None, **values: Any) -> None:
        """Send one minimal request, and report what is right and wrong: key, proxy, model, limits, clock.

        For a job file also its template, input, folder and lock."""
        _check(
            job, {name: value for name, value in values.items() if value is not None and value is not False}
        )

    job = argument("job", str | None, "A job file (.toml).", "JOB.toml", default=None)
    return with_parameters(
        check, "check", [job], [option for option in TABLE if option.panel == CONNECTION and option.tasks]
    )


def _check(job_file: str | None, flags: dict[str, Any]) -> None:
    from batchllm.inspect.check import check_job
    from batchllm.job import assemble

    if job_file is not None and Path(job_file).suffix.lower() != ".toml":
        raise UsageError(
            f"{job_file} is not a job file (.toml); without one, check looks at the endpoint alone"
        )
    what = {"job_file": job_file} if job_file else {"input": "-", "prompt": "{{ text }}"}
    job = assemble("run", {**flags, **what}, os.environ, needs_key=False)
    status = 0
    for finding in check_job(job, whole=job_file is not None):
        typer.echo(f"{finding.status:<6}{finding.subject:<12}{printable(finding.message, keep='')}")
        status = status or int(finding.exit_status)
    sys.exit(status)
