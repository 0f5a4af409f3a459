"""``batchllm summarize | classify | codegen | run``: one row, one request, one answer."""

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from batchllm.cli.parameters import SectionedCommand, argument, with_parameters
from batchllm.errors import UsageError
from batchllm.formats import SUFFIXES
from batchllm.job.options import OPTIONS, SWITCHES, TABLE

if TYPE_CHECKING:
    from batchllm.job import Job

HELP = {
    "summarize": "Summarize each row's text in bullet points.",
    "classify": "Give each row exactly one of a set of labels: sentiment, unless --labels gives others.",
    "codegen": "Write code for each row's task.",
    "run": "Run a prompt, a template, a job file, or rows that carry their own messages.",
}
"""The commands that run a job."""


def run_command(task: str) -> Callable[..., None]:
    """Makes the command of a task from the table of options."""

    def command(**values: Any) -> None:
        switches = {name: values.pop(name) for name in SWITCHES}
        _run(task, values, switches)

    command.__doc__ = HELP[task]
    text = f"Files, patterns or folders of rows ({', '.join(SUFFIXES)}); '-' is standard input."
    if task == "run":
        text += " A job file (.toml) comes first, and what follows it goes before its own input."
    arguments = [argument("input", list[str] | None, text, "INPUT...", default=None)]
    return with_parameters(command, task, arguments, [option for option in TABLE if task in option.tasks])


class RunCommand(SectionedCommand):
    """A command that runs a job; ``--summary`` and ``--log-file`` get its end even if its options cannot be read."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses the arguments; a command without a parent is parsed to know what they mean, and not to run."""
        if ctx.parent is None or "--dry-run" in args:
            return super().parse_args(ctx, args)
        words = list(args)
        with _refusals_recorded(str(ctx.info_name), lambda: _flags_in(words)):
            return super().parse_args(ctx, args)


def _flags_in(words: list[str]) -> dict[str, Any]:
    """What the words of a command that cannot be parsed say about the run."""
    flags: dict[str, Any] = {}
    options = {flag: option for option in TABLE for flag in option.flags if not option.kind.repeated}
    for word, following in zip(words, [*words[1:], ""], strict=True):
        flag, equals, value = word.partition("=")
        option = options.get(flag)
        if option is not None and not option.switch and option.kind.python_type is not bool:
            flags.setdefault(option.name, value if equals else following)
    inputs = list(takewhile(lambda word: not word.startswith("-"), words))
    return _with_inputs(flags, inputs, takes_job_file=True)


def _with_inputs(flags: dict[str, Any], inputs: list[str], *, takes_job_file: bool) -> dict[str, Any]:
    if takes_job_file and inputs and inputs[0].lower().endswith(".toml"):
        flags = {**flags, "job_file": inputs[0]}
        inputs = inputs[1:]
    return {**flags, "input": inputs} if inputs else flags


def _run(task: str, values: dict[str, Any], switches: dict[str, bool]) -> None:
    flags = job_flags(task, values)
    with nullcontext() if switches["dry_run"] else _refusals_recorded(task, lambda: flags):
        from batchllm.cli.result import show_result
        from batchllm.cli.terminal import confirm
        from batchllm.endpoint import raise_open_files
        from batchllm.job import assemble
        from batchllm.progress import progress_for
        from batchllm.runner import run_job
        from batchllm.stopping import SignalStops

        _log_to_stderr(verbose=switches["verbose"], debug=switches["debug"])
        _check_switches(switches)
        job = assemble(task, flags, os.environ, needs_key=not switches["dry_run"])
        if switches["wait"] and job.via != "batch" and not _has_journal(job):
            raise UsageError("--wait waits for batches; add --via batch, or leave it out")
    if switches["dry_run"]:
        from batchllm.cli.dry_run import print_dry_run

        print_dry_run(
            job, as_json=switches["json"], as_curl=switches["curl"], every_option=switches["verbose"]
        )
        return
    quiet = switches["quiet"]
    raise_open_files()
    title = job.template.name if job.template else task
    if job.steps and job.job_file is not None:  # its template is that of the first step
        title = job.job_file.stem
    shown: dict[str, Any] = {
        "progress": progress_for(title, quiet=quiet),
        "confirm": partial(confirm, job, quiet=quiet, yes=switches["yes"]),
    }
    if job.engine is not None:
        from batchllm.cluster.driver import run_cluster

        result = run_cluster(job, **shown)
    else:
        result = run_job(job, **shown, wait=switches["wait"], stops=SignalStops())
    if not quiet or result.exit_status:
        show_result(job, result)
    sys.exit(result.exit_status)


@contextmanager
def _refusals_recorded(task: str, flags: Callable[[], Mapping[str, Any]]) -> Iterator[None]:
    """Records what ends the command inside the ``with`` block; help is no end of a run."""
    try:
        yield
    except BaseException as error:
        if getattr(error, "exit_code", None) != 0:
            from batchllm.runner.ending import record_refusal

            record_refusal(task, flags(), os.environ, error)
        raise


def job_flags(task: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the given options of a command, by name, for ``assemble``; its first argument may be a job file."""
    flags = {name: value for name, value in values.items() if value is not None and value is not False}
    flags |= {
        name: ",".join(value)
        for name, value in flags.items()
        if OPTIONS[name].kind.by_comma and not isinstance(value, str)
    }
    return _with_inputs(flags, list(flags.pop("input", ())), takes_job_file=task == "run")


def _check_switches(switches: dict[str, bool]) -> None:
    """Refuses switches that would have no effect."""
    if not switches["dry_run"] and (switches["json"] or switches["curl"]):
        raise UsageError(f"{'--json' if switches['json'] else '--curl'} goes with --dry-run; add that")
    if switches["json"] and switches["curl"]:
        raise UsageError("--json and --curl exclude each other; give one")


def _has_journal(job: "Job") -> bool:
    """Whether an earlier run of the job may have left batches under way."""
    from batchllm.prepare.job_paths import job_paths

    return job_paths(job).journal.exists()


def _log_to_stderr(*, verbose: bool, debug: bool) -> None:
    level = logging.DEBUG if debug else logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
    logging.getLogger("batchllm").setLevel(level)
