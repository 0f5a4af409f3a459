"""What the help says beside the options: examples, the short help, and ``batchllm help``."""

import re
from difflib import get_close_matches
from typing import Annotated, Any

import typer

from batchllm.errors import UsageError

EXAMPLES = {
    "batchllm": (
        "batchllm classify reviews.csv --provider simulator",
        "batchllm run -p 'Translate to English: {{ text }}' reviews.csv -m gpt-4o-mini",
        "batchllm status reviews.classify.csv",
    ),
    "summarize": (
        "batchllm summarize reviews.csv --bullets 2 -m gpt-4o-mini",
        "batchllm summarize reviews.csv -n 10 --provider simulator",
        "batchllm summarize reviews.csv -o short.jsonl --max-cost 5",
    ),
    "classify": (
        "batchllm classify reviews.csv --labels bug,praise,question -m gpt-4o-mini",
        "batchllm classify reviews.csv -n 10 --provider simulator",
        "batchllm classify reviews.csv -o labelled.csv --max-cost 5",
    ),
    "codegen": (
        "batchllm codegen tasks.csv --language Rust -m gpt-4o",
        "batchllm codegen tasks.csv -n 10 --provider simulator",
        "batchllm codegen tasks.jsonl -o code.jsonl --max-cost 5",
    ),
    "run": (
        "batchllm run -p 'Translate to English: {{ text }}' reviews.csv -m gpt-4o-mini",
        "batchllm run -p '{{ text }}' reviews.csv --schema 'topic, urgent bool' -n 10",
        "batchllm run job.toml",
    ),
}
"""Three examples for each command that runs a job, and for the program."""

COMMON = (
    "output", "labels", "bullets", "language", "prompt", "instructions", "column", "provider", "base_url", "model",
    "max_tokens", "max_cost", "limit", "retry_failed", "dry_run",
)  # fmt: skip
"""The options that people use, in the order of the short help."""

EXIT_STATUS = (
    ("0", "every row that was sent has an answer", ""),
    ("1", "finished, some rows failed; OUTPUT is written (--allow-failed 1% tolerates a share)", ""),
    (
        "2",
        "wrong use or configuration, or key, model or URL refused before any success: nothing was paid",
        "after a correction",
    ),
    ("3", "stopped at a budget, or early", "with a larger budget"),
    ("65", "the input or the journal cannot be read; nothing was sent", "after a correction"),
    ("69", "the endpoint is unavailable, or out of quota", "yes"),
    (
        "70",
        "an internal error: our fault, never yours; please report it with what --debug shows",
        "yes",
    ),
    ("73", "cannot write (permissions, disk full)", "yes"),
    ("74", "I/O error", "yes"),
    ("75", "not now: another run has this job, a batch is not ready, or --max-time is over", "yes"),
    ("129, 130, 143", "stopped by SIGHUP, SIGINT, SIGTERM", "yes"),
)
"""Status, meaning, and whether the same command goes on, as ``docs/reference/exit-status.md`` has them."""

MORE = "batchllm help COMMAND has all about a command, batchllm help exit-status the exit statuses."


def write_examples(formatter: Any, name: str) -> None:
    """Writes the examples of a command, if it has some; they are not wrapped, so that they can be copied."""
    if name in EXAMPLES:
        with formatter.section("Examples"):
            for line in EXAMPLES[name]:
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")


def short_help(ctx: Any) -> str:
    """Returns the short help of a command that runs a job: its examples, and the options that people use."""
    command, formatter = ctx.command, ctx.make_formatter()
    command.format_usage(ctx, formatter)
    command.format_help_text(ctx, formatter)
    parameters = {parameter.name: parameter for parameter in command.get_params(ctx)}
    common = [parameters[name] for name in COMMON if name in parameters]
    records = [parameter.get_help_record(ctx) for parameter in common]
    rows = [(names, re.split(r" {2}\(|[.;] ", text)[0].rstrip(".")) for names, text in records]
    with formatter.section("Options"):
        formatter.write_dl(rows, col_max=26)
    options = sum(parameter.param_type_name == "option" for parameter in parameters.values())
    formatter.write_paragraph()
    formatter.write_text(f"batchllm {command.name} --help has all {options} options, with their defaults.")
    return str(formatter.getvalue()).rstrip("\n")


def show_short_help(ctx: typer.Context, asked: bool) -> None:
    """Prints the short help and ends the program, if it was asked for."""
    if asked and not ctx.resilient_parsing:
        typer.echo(short_help(ctx))
        raise typer.Exit


def help(  # noqa: A001 - the name of the command
    ctx: typer.Context,
    topic: Annotated[
        str | None,
        typer.Argument(help="A command, or exit-status.", metavar="[TOPIC]", show_default=False),
    ] = None,
) -> None:
    """Show all about a command, or what the exit statuses mean."""
    root = ctx.parent
    assert root is not None, "help is a command of the program"
    group: Any = root.command
    if topic is None:
        typer.echo(group.get_help(root))
    elif topic == "exit-status":
        typer.echo(exit_status_text(root))
    elif (command := group.get_command(root, topic)) is not None:
        with command.make_context(topic, [], parent=root, resilient_parsing=True) as inner:
            typer.echo(command.get_help(inner))
    else:
        near = get_close_matches(topic, [*group.commands, "exit-status"], n=1)
        known = (
            f"did you mean {near[0]}?" if near else f"there are {', '.join(group.commands)} and exit-status"
        )
        raise UsageError(f"there is no help about {topic}; {known}")


def exit_status_text(ctx: Any) -> str:
    """Returns the table of exit statuses."""
    formatter = ctx.make_formatter()
    formatter.write_text("Exit status, and in parentheses whether the same command goes on:")
    formatter.write_paragraph()
    formatter.write_dl(
        [(status, f"{meaning}  ({on})" if on else meaning) for status, meaning, on in EXIT_STATUS]
    )
    formatter.write_paragraph()
    formatter.write_text("OUTPUT appears at 0 and 1 only.")
    return str(formatter.getvalue()).rstrip("\n")
