"""``batchllm init``: a commented job file to begin with."""

import os
from pathlib import Path
from typing import Annotated

import typer

from batchllm.errors import CannotWrite, UsageError


def register(app: typer.Typer, name: str) -> None:
    """Adds the command under its name."""
    app.command(name, rich_help_panel="Prepare a job")(init)


def init(
    path: Annotated[Path, typer.Argument(help="Where to write it; '-' is standard output.")] = Path(
        "job.toml"
    ),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.")] = False,
) -> None:
    """Write a job file with every setting there is, commented out but for the simplest job."""
    from batchllm.cli.terminal import say
    from batchllm.job import init_text

    if str(path) == "-":
        typer.echo(init_text(), nl=False)
        return
    if path.suffix.lower() != ".toml":
        raise UsageError(f"{path}: a job file ends in .toml, by which `batchllm run` knows it")
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)
    try:
        with os.fdopen(os.open(path, flags, 0o666), "w", encoding="utf-8") as file:
            file.write(init_text())
    except FileExistsError:
        raise UsageError(f"{path} exists; name another file, or overwrite it with --force") from None
    except OSError as error:
        raise CannotWrite(f"{path}: {error.strerror}") from error
    say(f"{path} written: edit it, then `batchllm check {path}` and `batchllm run {path} --dry-run`")
