"""Commands that need no endpoint: ``init`` writes a job file, ``templates`` lists and prints the built-in ones."""

import os
from pathlib import Path
from typing import Annotated

import typer

from batchllm.cli.parameters import word_argument
from batchllm.cli.streams import say
from batchllm.errors import CannotWrite, UsageError


def init(
    path: Annotated[Path, typer.Argument(help="Where to write it; '-' is standard output.")] = Path(
        "job.toml"
    ),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.")] = False,
) -> None:
    """Write a job file with every option, commented out but for the simplest job."""
    from batchllm.job.reference import init_text

    if str(path) == "-":
        typer.echo(init_text(), nl=False)
        return
    if path.suffix.lower() != ".toml":
        raise UsageError(f"{path}: a job file ends in .toml; `batchllm run` knows it by that")
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)
    try:
        with os.fdopen(os.open(path, flags, 0o666), "w", encoding="utf-8") as file:
            file.write(init_text())
    except FileExistsError:
        raise UsageError(f"{path} exists; name another file, or overwrite it with --force") from None
    except OSError as error:
        raise CannotWrite(f"{path}: {error.strerror}") from error
    say(f"{path} written: edit it, then `batchllm check {path}` and `batchllm run {path} --dry-run`")


def templates(
    words: Annotated[list[str] | None, word_argument("show NAME prints one.", "[show NAME]")] = None,
) -> None:
    """List the built-in templates, or print one to copy and change."""
    from batchllm import template

    if not words:
        for name in template.builtin_names():
            typer.echo(f"{name:<12} {template.load(name).description}")
    elif words[0] == "show" and len(words) == 2:
        typer.echo(template.load(words[1]).source, nl=False)
    else:
        raise UsageError("say `batchllm templates`, or `batchllm templates show NAME`")
