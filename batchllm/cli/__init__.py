"""The command line: one file a command; each gathers arguments, calls the library, prints and exits.

``main`` is the program with error handling: a ``JobError`` becomes one sentence and its exit status. Nothing
heavy is imported here, so that ``batchllm --help`` is instant.
"""

import gc
import logging
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated

import typer

from batchllm import __version__
from batchllm.cli.sections import SectionedGroup
from batchllm.cli.streams import guard_streams, leave_stdout
from batchllm.errors import Interrupted, JobError

INTERNAL_ERROR = 70
GC_THRESHOLD = 400_000
"""More objects than a start makes: to look for cycles among them took a fifth of it. A run sets its own."""
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

COMMANDS = {
    "summarize": "run",
    "classify": "run",
    "codegen": "run",
    "run": "run",
    "init": "init",
    "check": "check",
    "templates": "templates",
    "status": "status",
    "show": "show",
    "export": "export",
    "batches": "batches",
    "clean": "clean",
    "schedule": "schedule",
    "simulate": "simulate",
}
"""Each command and the module that it is in, in the order of the help."""


def command_line(words: Sequence[str]) -> typer.Typer:
    """The command that the words ask for, or all of them where they ask for none.

    Building the parameters of them all takes a twelfth of a run's start.
    """
    app = typer.Typer(
        name="batchllm",
        help="Send every row of a CSV or JSONL file through a language model, and get the file back with answers.",
        cls=SectionedGroup,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    app.callback()(_root)
    asked = [words[0]] if words and words[0] in COMMANDS else COMMANDS
    for name in asked:
        import_module(f"{__name__}.{COMMANDS[name]}").register(app, name)
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
    """Nothing to do before a command."""


def main() -> None:
    """Runs the command line and exits: an error is one sentence, its exit status, and never a traceback."""
    gc.set_threshold(GC_THRESHOLD)
    guard_streams()
    for number in STOPPING:
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup, and shells that start a background job
            signal.signal(number, _interrupted)
    try:
        command_line(sys.argv[1:])()
    except JobError as error:
        if _debugging():
            logging.getLogger("batchllm").exception("the job stopped")
        if not (getattr(error, "silent", False) and ("--quiet" in sys.argv or "-q" in sys.argv)):
            _say(f"batchllm: {error}")
        sys.exit(error.exit_status)
    except BrokenPipeError:
        # Whoever read standard output has gone; what was written to files is whole.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if _debugging():
            raise
        _say(f"batchllm: internal error: {type(error).__name__}: {error}; --debug shows where")
        sys.exit(INTERNAL_ERROR)
    finally:
        leave_stdout()
        gc.freeze()  # or the interpreter's last collection looks at every class of every library: a fifth of a second


def _interrupted(number: int, frame: object) -> None:
    """A signal at a time when no requests are on their way: there is nothing to wait for."""
    if not _debugging():
        # What it leaves half made (a thread, an event loop) complains when it goes, and nobody needs to know.
        sys.unraisablehook = _unheard
        warnings.simplefilter("ignore")
    raise Interrupted(number)


def _debugging() -> bool:
    return "--debug" in sys.argv


def _unheard(complaint: object) -> None:
    """Says nothing."""


def _say(text: str) -> None:
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except OSError:
        return
