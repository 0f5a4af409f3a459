"""The errors that end a job, each with its exit status, and words for their messages.

::

    JobError                     the job stops; never a row's own trouble
    ├── UsageError         2     wrong use or configuration, or refused before any success: nothing paid
    │                            (JobChanged: rows that have an answer would be paid again)
    ├── BudgetStop         3     a budget or the early stop
    ├── InputError        65     the input, or the journal, cannot be read
    ├── Unavailable       69     the endpoint is unavailable, or out of quota
    ├── CannotWrite       73     output or journal cannot be created or there is no room
    ├── StorageFailure    74     the disk reported an I/O error
    └── NotNow            75     another run has this job, or (NotReady) a batch is not ready or --max-time is over

    Interrupted      128 + n     a signal; no Exception, so that no program swallows it
    └── KeyboardInterrupted      Ctrl-C in a program or a notebook; a KeyboardInterrupt too

A row's failure is data (``records.Answer.error``), never one of these. After 3, 69, 73, 74, 75 and the signals
the same command resumes the job.
"""

import signal
from collections.abc import Iterable
from decimal import Decimal
from difflib import get_close_matches
from enum import IntEnum

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that stop a run."""
_SHOWN = 30


class ExitStatus(IntEnum):
    """Exit status of the process; the numbers follow ``sysexits.h`` where it has one."""

    OK = 0
    SOME_FAILED = 1
    USAGE = 2
    BUDGET = 3
    BAD_INPUT = 65
    UNAVAILABLE = 69
    CANNOT_WRITE = 73
    IO_ERROR = 74
    NOT_NOW = 75
    SIGHUP = 129
    SIGINT = 130
    SIGTERM = 143


INTERNAL_ERROR = 70
"""Exit status of an error that is none of a job: a fault of ours."""


class JobError(Exception):
    """A job cannot go on. The message is one sentence that says what happened, where, and what to do.

    Attributes:
        kept: Finished rows in the journal, and rows of the job, if a run had begun.
    """

    exit_status = ExitStatus.SOME_FAILED
    kept: tuple[int, int] | None = None


class UsageError(JobError):
    """Wrong use or configuration, found before anything was paid."""

    exit_status = ExitStatus.USAGE


class JobChanged(UsageError):
    """The job was changed, and rows that have an answer would be paid again.

    Attributes:
        changes: What changed: option, value before, value after (``job.changes.Change``).
        rows: The rows that would be paid again.
        cost_low, cost_high: What that would cost, in US dollars; ``None`` is unknown.
    """

    def __init__(
        self,
        message: str,
        *,
        changes: tuple[tuple[str, str, str], ...],
        rows: int,
        cost_low: Decimal | None,
        cost_high: Decimal | None,
    ) -> None:
        super().__init__(message)
        self.changes = changes
        self.rows = rows
        self.cost_low = cost_low
        self.cost_high = cost_high


class BudgetStop(JobError):
    """The budget has no room for the next request, or the first answers are all unusable."""

    exit_status = ExitStatus.BUDGET


class InputError(JobError):
    """The input or the journal cannot be read."""

    exit_status = ExitStatus.BAD_INPUT

    def __init__(self, path: object, reason: str, *, line: int | None = None) -> None:
        self.path = str(path)
        self.reason = reason
        self.line = line
        super().__init__(
            f"{self.path}, line {line}: {reason}" if line is not None else f"{self.path}: {reason}"
        )


class Unavailable(JobError):
    """The endpoint cannot be reached, stays down, or has no quota left; the same command goes on later."""

    exit_status = ExitStatus.UNAVAILABLE


class CannotWrite(JobError):
    """Output, journal or their folder cannot be created, or the disk is full."""

    exit_status = ExitStatus.CANNOT_WRITE


class StorageFailure(JobError):
    """The disk reported an error; what was durable before it stays so."""

    exit_status = ExitStatus.IO_ERROR


class NotNow(JobError):
    """Another run has this job, or it is not ready; try the same command later."""

    exit_status = ExitStatus.NOT_NOW


class NotReady(NotNow):
    """Batches are in progress, or ``--max-time`` is over; the same command goes on. Silent with ``--quiet``."""

    silent = True


class Interrupted(BaseException):
    """A signal asked the run to stop; everything received was kept.

    It is no ``Exception``, so that ``except Exception`` in a program does not swallow it.

    Attributes:
        kept: Finished rows in the journal, and rows of the job, once these are known.
    """

    def __init__(self, signal_number: int) -> None:
        self.signal_number = signal_number
        self.exit_status = ExitStatus(128 + signal_number)
        self.kept: tuple[int, int] | None = None
        super().__init__(signal_number)

    def __str__(self) -> str:
        number = signal.Signals(self.signal_number)
        stopped = "Stopped" if number == signal.SIGINT else f"Stopped by {number.name}"
        if self.kept is None:
            return f"{stopped}. Run the same command to go on."
        return f"{stopped}. {kept_text(self.kept)}; run the same command to go on, or batchllm export to write them."


class KeyboardInterrupted(Interrupted, KeyboardInterrupt):
    """Ctrl-C stopped a call of the library; a program that handles ``KeyboardInterrupt`` handles it too."""

    def __init__(self) -> None:
        super().__init__(signal.SIGINT)

    def __str__(self) -> str:
        rows = "" if self.kept is None else f"{kept_text(self.kept)}; "
        return f"stopped by Ctrl-C; {rows}the same call goes on where this one stopped"


def kept_text(kept: tuple[int, int]) -> str:
    """Says how many rows of a stopped job are kept: ``160 of 5,000 rows are kept``."""
    finished, rows = kept
    return f"{finished:,} of {rows:,} {'row is' if rows == 1 else 'rows are'} kept"


def did_you_mean(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Returns `` (did you mean temperature?)`` with its leading space, or nothing if no known name is near.

    Args:
        word: What was written.
        known: The names that there are.
        cutoff: How near a name has to be, from 0 to 1 (``difflib``).
    """
    by_fold = {name.casefold(): name for name in known}
    found = get_close_matches(word.casefold(), by_fold, n=1, cutoff=cutoff)
    return f" (did you mean {by_fold[found[0]]}?)" if found else ""


def refuse_unknown(table: Iterable[str], known: Iterable[str], where: str) -> None:
    """Refuses a table of a file that has a key which nobody reads.

    Args:
        table: The table, or its keys.
        known: The keys that there are.
        where: What the message calls the table.

    Raises:
        UsageError: There is such a key.
    """
    for key in table:
        if key not in known:
            raise UsageError(
                f"{where} has the unknown key {key}{did_you_mean(key, known)}; the keys are {listed(known)}"
            )


def listed(names: Iterable[str]) -> str:
    """Returns names for a sentence, at most 30 of them."""
    every = list(names)
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more
