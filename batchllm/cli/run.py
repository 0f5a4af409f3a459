"""``batchllm summarize | classify | codegen | run``: one row, one request, one answer."""

import gc
import inspect
import logging
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from batchllm.cli.options import OPTIONS, Option, parameter_of
from batchllm.cli.sections import SectionedCommand
from batchllm.errors import UsageError

GC_THRESHOLDS = (50_000, 20, 50)
"""A run makes a few cycles a request and keeps many long-lived objects; looking for cycles at Python's usual pace
took a fifth of a run's CPU."""

HELP = {
    "summarize": "Summarize each row's text in bullet points.",
    "classify": "Give each row exactly one of a set of labels: sentiment, unless --labels says others.",
    "codegen": "Write code for each row's task.",
    "run": "Run a prompt, a template, a job file, or rows that carry their own messages.",
}

SWITCHES: tuple[Option, ...] = (
    Option("dry_run", bool, "Count, estimate and show; send nothing.", "Trying and money"),
    Option("json", bool, "With --dry-run: the estimate as one JSON object.", "Trying and money"),
    Option("curl", bool, "With --dry-run: the first request as a curl command.", "Trying and money"),
    Option("yes", bool, "Do not ask before an expensive run.", "Manners", ("--yes", "-y")),
    Option("wait", bool, "With --via batch: wait until every batch is ready.", "Manners"),
    Option("quiet", bool, "Print nothing on success.", "Manners", ("--quiet", "-q")),
    Option("verbose", bool, "Say more about what happens.", "Manners", ("--verbose", "-v")),
    Option("debug", bool, "Log every decision, and show tracebacks.", "Manners"),
)


def register(app: typer.Typer, name: str) -> None:
    """Adds one of the commands that run a job."""
    app.command(name, cls=SectionedCommand, help=HELP[name], rich_help_panel="Run a job")(_command(name))


def _command(task: str) -> Callable[..., None]:
    """A function whose signature is built from the table of options, for typer to read."""
    options = [option for option in OPTIONS if task in option.tasks]

    def command(**values: Any) -> None:
        switches = {switch.name: values.pop(switch.name) for switch in SWITCHES}
        _execute(task, values, switches)

    parameters = [_argument(task), *map(parameter_of, (*options, *SWITCHES))]
    if task == "run":
        parameters.insert(1, _second_argument())
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _argument(task: str) -> inspect.Parameter:
    text = "CSV or JSONL file of rows; '-' is standard input."
    if task == "run":
        text = "CSV or JSONL file of rows ('-' is standard input), or a job file (.toml)."
    annotation = Annotated[str, typer.Argument(help=text, metavar="INPUT", show_default=False)]
    return inspect.Parameter("input", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=annotation)


def _second_argument() -> inspect.Parameter:
    info = typer.Argument(
        help="Rows for a job file, instead of its own.", metavar="[ROWS]", show_default=False
    )
    annotation = Annotated[str | None, info]
    return inspect.Parameter(
        "rows", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=annotation, default=None
    )


def _execute(task: str, values: dict[str, Any], switches: dict[str, Any]) -> None:
    from batchllm.cli import terminal
    from batchllm.job import assemble
    from batchllm.runner import run_job

    _log_to_stderr(verbose=switches["verbose"], debug=switches["debug"])
    rows = values.pop("rows", None)
    if rows is not None:
        values["job_file"], values["input"] = values["input"], rows
    elif task == "run" and values["input"].lower().endswith(".toml"):
        values["job_file"], values["input"] = values.pop("input"), None
    flags = {name: value for name, value in values.items() if value is not None and value is not False}
    if not switches["dry_run"] and (switches["json"] or switches["curl"]):
        raise UsageError(f"{'--json' if switches['json'] else '--curl'} goes with --dry-run; add that")
    job = assemble(task, flags, os.environ, needs_key=not switches["dry_run"])
    if switches["dry_run"]:
        from batchllm.cli.dry_run import dry_run

        dry_run(job, as_json=switches["json"], as_curl=switches["curl"])
        return
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    quiet = switches["quiet"]
    result = run_job(
        job,
        progress=terminal.progress(job, quiet=quiet),
        confirm=terminal.Confirm(job, quiet=quiet, yes=switches["yes"]),
        wait=switches["wait"],
    )
    if not quiet or result.exit_status:
        terminal.show_result(job, result)
    sys.exit(result.exit_status)


def _log_to_stderr(*, verbose: bool, debug: bool) -> None:
    level = logging.DEBUG if debug else logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
    logging.getLogger("batchllm").setLevel(level)
