"""``run``, ``arun`` and ``astream``."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from batchllm.api.job_call import JobCall, job_call
from batchllm.api.messages import python_words
from batchllm.api.progress import progress_of
from batchllm.api.running import Running
from batchllm.errors import UsageError
from batchllm.progress import Progress

if TYPE_CHECKING:
    from typing import Unpack

    from batchllm.job.keywords import Options
    from batchllm.runner import FinishedRow, Result

Task = Literal["run", "summarize", "classify", "codegen"]


def run(
    rows: Any,
    task: Task = "run",
    *,
    progress: bool | Progress | Callable[[int, int], Any] | None = None,
    on_row: Callable[[FinishedRow], Any] | None = None,
    wait: bool = False,
    keep: bool | str | Sequence[str] = True,
    **options: Unpack[Options],
) -> Result:
    """Sends every row through a model, and returns the rows with their answers.

    It works under a running event loop and in any thread: the job has a thread of its own, and this one waits. Ctrl-C
    stops the job in order: nothing new is sent, requests in flight get ``grace`` seconds, everything received is kept,
    and the same call goes on. A second Ctrl-C ends it at once.

    Args:
        rows: A file of rows or a list of files, a job file (``.toml``), a ``Job``, a pandas or polars frame, any table
            with an Arrow C stream, or a list or an iterator of dictionaries, which is read to its end first.
        task: ``summarize``, ``classify``, ``codegen``, or ``run`` with ``prompt=`` or ``template=``.
        progress: ``True`` shows a bar; a function is called with the rows done and all rows; an object has the methods
            of ``Progress``. Nothing is shown by default.
        on_row: Called in this thread with each row that is finished, those of earlier runs included and marked. What it
            raises stops the job in order and comes out of this call.
        wait: With ``via="batch"``: wait until every batch is ready, instead of raising ``NotReady``.
        keep: ``False`` removes journal and copies once every row has its answer. Names of columns are the option
            ``--keep``: only these columns of the rows are in the result.
        options: The options of the command line by name: ``provider="groq"``, ``labels=["a", "b"]``, ``max_cost=5``.
            ``schema`` takes a dictionary or a pydantic model too, ``labels`` a mapping of labels to descriptions,
            ``tools`` a list, ``prices`` a mapping, and ``api_key`` a key or a function that returns one.
            ``BATCHLLM_*`` variables count as they do for the command.

    Returns:
        The finished run, with ``frame()`` and ``summary``. The same call again pays only for what is missing. Of rows
        in memory, the columns that prompts read, the requests and the answers are kept in the user's state folder,
        unless ``output=`` or ``journal=`` names a place; ``batchllm jobs`` lists them, ``batchllm.clean`` removes them.

    Raises:
        JobError: The job stopped; everything received is in its journal.
        Interrupted: Ctrl-C stopped it; it is a ``KeyboardInterrupt`` too.
    """
    with python_words():
        _refuse_coroutine(on_row)
        call = job_call(rows, task, options, keep=keep)
        return _running(call, progress, on_row, wait=wait).wait()


async def arun(
    rows: Any,
    task: Task = "run",
    *,
    progress: bool | Progress | Callable[[int, int], Any] | None = None,
    on_row: Callable[[FinishedRow], Any] | None = None,
    wait: bool = False,
    keep: bool | str | Sequence[str] = True,
    **options: Unpack[Options],
) -> Result:
    """Does what ``run`` does, for programs with an event loop.

    ``on_row`` and ``progress`` are called in the event loop; ``on_row`` may be a coroutine function. Cancelling the
    task that awaits stops the job as Ctrl-C stops ``run``: the first cancellation waits for its end, a further one
    leaves it to end by itself within the grace period.

    Args:
        rows, task, progress, on_row, wait, keep, options: See ``run``.

    Returns:
        The finished run.

    Raises:
        JobError: The job stopped; everything received is in its journal.
    """
    with python_words():
        call = job_call(rows, task, options, keep=keep)
        running = _running(call, progress, on_row, wait=wait)
        reports = running.reports()
        try:
            async for report in reports:
                done = report()
                if inspect.isawaitable(done):
                    await done
        finally:
            await reports.aclose()
        return running.outcome()


async def astream(
    rows: Any,
    task: Task = "run",
    *,
    ordered: bool = False,
    progress: bool | Progress | Callable[[int, int], Any] | None = None,
    wait: bool = False,
    keep: bool | str | Sequence[str] = True,
    **options: Unpack[Options],
) -> AsyncGenerator[FinishedRow, None]:
    """Yields the rows as they finish, those that earlier runs finished first.

    Leaving the loop, closing the iterator or cancelling the task stops the job as it stops ``arun``.

    Args:
        rows, task, progress, wait, keep, options: See ``run``.
        ordered: Yield the rows in input order instead.

    Raises:
        JobError: The job stopped; everything received is in its journal.
    """
    with python_words():
        call = job_call(rows, task, options, keep=keep)
        finished: list[FinishedRow] = []
        running = _running(call, progress, finished.append, wait=wait)
        reports = running.reports()
        held: dict[int, FinishedRow] = {}
        following = 0
        try:
            async for report in reports:
                report()
                for row in finished:
                    held[row.index] = row
                finished.clear()
                while held and (not ordered or following in held):
                    index = following if ordered else next(iter(held))
                    following += 1
                    yield held.pop(index)
            for index in sorted(held):  # a trial has gaps
                yield held.pop(index)
        finally:
            await reports.aclose()
        running.outcome()


def _running(
    call: JobCall,
    progress: Any,
    on_row: Callable[[FinishedRow], Any] | None,
    *,
    wait: bool,
) -> Running:
    shown = progress_of(progress)
    if on_row is not None and not callable(on_row):
        raise UsageError(f"on_row= takes a function of a finished row, not {on_row!r}")

    def work(running: Running) -> Result:
        def deliver(row: FinishedRow) -> None:
            assert on_row is not None, "rows are delivered to it"
            running.report(partial(on_row, row))

        return call.run(
            progress=None if shown is None else _Reported(running, shown),
            wait=wait,
            stops=running.switch,
            deliver=None if on_row is None else deliver,
            has_room=running.has_room,
        )

    return Running(work)


class _Reported:
    """Progress of the job's thread that is shown in the caller's."""

    def __init__(self, running: Running, shown: Progress) -> None:
        self._report = running.report
        self._shown = shown

    def start(self, total: int, done: int) -> None:
        self._report(partial(self._shown.start, total, done))

    def show(self, done: int, failed: int, tokens: int | None, note: str, waits: str = "") -> None:
        self._report(partial(self._shown.show, done, failed, tokens, note, waits))

    def tell(self, line: str) -> None:
        self._report(partial(self._shown.tell, line))

    def close(self) -> None:
        self._report(self._shown.close)


def _refuse_coroutine(on_row: Callable[[Any], Awaitable[Any] | Any] | None) -> None:
    if inspect.iscoroutinefunction(on_row):
        raise UsageError("on_row= of run is a plain function; arun takes coroutine functions too")
