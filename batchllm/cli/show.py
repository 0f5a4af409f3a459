"""``batchllm show``: one row's request, attempts, raw answer and times."""

from typing import Annotated

import typer

from batchllm.cli.arguments import OutputArgument


def register(app: typer.Typer, name: str) -> None:
    """Adds the command under its name."""
    app.command(name, rich_help_panel="Look at a job")(show)


def show(
    output: OutputArgument,
    row: Annotated[int, typer.Argument(help="Number of the row, from 1, the header not counted.", min=1)],
) -> None:
    """Print one row's exact request, every attempt, the raw answer and the times."""
    import sys

    from batchllm.inspect.show import show_row
    from batchllm.progress import visible

    on_terminal = sys.stdout.isatty()
    for line in show_row(output, row - 1):
        typer.echo(visible(line) if on_terminal else line)
