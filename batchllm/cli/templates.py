"""``batchllm templates``: the built-in templates, to use or to copy."""

from typing import Annotated

import typer


def register(app: typer.Typer, name: str) -> None:
    """Adds the command under its name, and ``show`` below it."""
    group = typer.Typer(help="List the built-in templates, or print one to copy and change.")
    group.callback(invoke_without_command=True)(list_templates)
    group.command("show")(show)
    app.add_typer(group, name=name, rich_help_panel="Prepare a job")


def list_templates(context: typer.Context) -> None:
    """List the built-in templates."""
    if context.invoked_subcommand is not None:
        return
    from batchllm import template

    for name in template.builtin_names():
        typer.echo(f"{name:<12} {template.load(name).description}")


def show(name: Annotated[str, typer.Argument(help="Name of a built-in template.")]) -> None:
    """Print a template, to copy and change."""
    from batchllm import template

    typer.echo(template.load(name).source, nl=False)
