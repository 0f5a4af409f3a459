"""The command line: each command gathers arguments, calls the library, prints and exits.

``main`` is the program with error handling: a ``JobError`` becomes one sentence and its exit status. Commands import
what is heavy when they run, so that ``batchllm --help`` is instant.
"""

# ruff: noqa: E402 - the pace of the garbage collection is set before the imports, of whose time it takes a tenth
import gc

gc.set_threshold(50_000, 20, 50)  # imports and runs make many long-lived objects and few cycles

import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Annotated

import typer

from batchllm import __version__
from batchllm.cli import inspect, jobs, prepare
from batchllm.cli.check import check_command
from batchllm.cli.evaluate import compare, evaluate
from batchllm.cli.help import help as help_command
from batchllm.cli.merge import merge
from batchllm.cli.parameters import SectionedCommand, SectionedGroup
from batchllm.cli.report import report
from batchllm.cli.run import HELP, RunCommand, run_command
from batchllm.cli.schedule import schedule
from batchllm.cli.simulate import simulate
from batchllm.cli.streams import guard_streams, leave_stdout, say
from batchllm.errors import INTERNAL_ERROR, STOPPING, Interrupted, JobError, kept_text
from batchllm.screen import Tone

PREFIX = "batchllm: "

COMMANDS: dict[str, list[Callable[..., None]]] = {
    "Run a job": [run_command(task) for task in HELP],
    "Prepare a job": [prepare.init, check_command(), prepare.templates, schedule, simulate],
    "Look at the answers": [evaluate, compare, report, merge],
    "Look at a job": [inspect.status, inspect.show, inspect.export, inspect.batches, jobs.jobs, jobs.clean],
    "Help": [help_command],
}
"""The commands by panel of the help; a command has the name of its function."""


def command_line() -> typer.Typer:
    """Builds the program of all commands."""
    app = typer.Typer(
        name="batchllm",
        help="Send every row of a file through a language model, and get the file back with answers.",
        cls=SectionedGroup,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    app.callback()(_root)
    for panel, commands in COMMANDS.items():
        for command in commands:
            passes_on = {"allow_extra_args": True, "ignore_unknown_options": True}
            app.command(
                command.__name__,
                cls=RunCommand if command.__name__ in HELP else SectionedCommand,
                rich_help_panel=panel,
                context_settings=passes_on if command is schedule else None,
            )(command)
    return app


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"batchllm {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Does nothing before a command."""


def main() -> None:
    """Runs the command line and exits: an error is one sentence, its exit status, and never a traceback."""
    guard_streams()
    for number in STOPPING:
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup, and shells that start a background job
            signal.signal(number, _interrupted)
    try:
        command_line()()
    except (JobError, Interrupted) as error:
        if _debugging():
            logging.getLogger("batchllm").exception("the job stopped")
        if not (getattr(error, "silent", False) and ("--quiet" in sys.argv or "-q" in sys.argv)):
            _say_error(error)
        sys.exit(error.exit_status)
    except BrokenPipeError:
        # The reader of standard output has gone; files are complete.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if _debugging():
            raise
        say(
            f"internal error: {type(error).__name__}: {error}; --debug shows where",
            lead=PREFIX,
            tone=Tone.FAILED,
        )
        sys.exit(INTERNAL_ERROR)
    finally:
        leave_stdout()
        gc.freeze()  # spares the collection at exit, which looks at every class of every library


def _say_error(error: JobError | Interrupted) -> None:
    """Says what ended the command, and how much of a run is kept."""
    if isinstance(error, Interrupted):
        stopped, _, rest = str(error).partition(". ")
        say(f" {rest}", lead=f"{stopped}.", tone=Tone.WAITING)
        return
    say(str(error), lead=PREFIX, tone=Tone.FAILED)
    if error.kept is not None and error.kept[0]:
        say(f"{kept_text(error.kept)}; batchllm export writes them.")


def _interrupted(number: int, frame: object) -> None:
    """Stops at once: no request is in flight yet, so there is nothing to wait for."""
    if not _debugging():
        # Half-made threads and event loops would complain when they are discarded.
        sys.unraisablehook = lambda unraisable: None
        warnings.simplefilter("ignore")
    raise Interrupted(number)


def _debugging() -> bool:
    return "--debug" in sys.argv
