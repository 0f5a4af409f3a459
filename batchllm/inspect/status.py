"""``status``: says how far a job is, also while it runs."""

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from batchllm.budget.estimate import MEAN_REQUEST, SEEN_PACE, forecast_left
from batchllm.budget.forecast import Forecast
from batchllm.budget.usage import LEARNED, UsageEstimator
from batchllm.counters import EndpointFigures
from batchllm.inspect.job import open_job
from batchllm.journal import JournalReader, RowCounts, State
from batchllm.journal.bill import repeated_rows
from batchllm.printable import counted, printable
from batchllm.runner.display import ENDPOINTS


@dataclass(frozen=True, slots=True)
class Status:
    """How far a job is.

    Attributes:
        output: The path of its output; ``None`` is standard output.
        rows: Rows of the input; ``None`` if no run has counted them.
        counts: Rows by state.
        running: A run is alive.
        finished: A run finished every row.
        trial_finished: A trial (``-n``, ``--sample``) is finished, and nothing but that.
        requests: Requests by state; rows may have several.
        attempts: Requests sent by all runs, each attempt counted.
        possibly_billed: Those of them that may be billed though no answer came.
        endpoints: What each endpoint did in the last run, where there are several.
        forecast: What the unfinished rows will take.
    """

    output: str | None
    rows: int | None
    counts: RowCounts
    running: bool
    finished: bool
    trial_finished: bool
    requests: Mapping[str, int]
    attempts: int
    possibly_billed: int
    endpoints: Sequence[EndpointFigures]
    forecast: Forecast

    def to_json(self) -> dict[str, Any]:
        """Returns the numbers for ``--json``."""
        values = {**asdict(replace(self, forecast=Forecast(rows=self.rows))), "rows_left": self.left}
        del values["forecast"]
        return {**values, **self.forecast.to_json()}

    @property
    def left(self) -> int | None:
        """Unfinished rows."""
        return rows_left(self.rows, self.counts)

    def to_text(self) -> str:
        """Returns the status in a few lines."""
        states = (
            (self.running, "running now"),
            (self.finished, "finished"),
            (self.trial_finished, "trial finished"),
            (True, "not finished"),
        )
        state = next(word for holds, word in states if holds)
        counts = self.counts
        of = "" if self.rows is None else f"{counts.answered:,} of "
        rows = counted(counts.answered if self.rows is None else self.rows, "row")
        batched = f", {counts.pending:,} of them in batches" if counts.pending else ""
        lines = [
            f"{printable(str(self.output or 'standard output'), keep='')}: {state}",
            f"{of}{rows} answered, {counts.failed + counts.unsendable:,} failed, "
            f"{counts.skipped:,} empty, {self.left if self.left is not None else counts.open:,} to go{batched}",
            f"{counted(self.requests['answered'], 'request')} answered, {self.requests['failed']:,} failed, "
            f"{self.requests['pending']:,} in batches, {self.requests['open'] + self.requests['unanswered']:,} to go",
            f"{counted(self.attempts, 'request')} sent, {self.possibly_billed:,} of them possibly billed "
            "without an answer",
        ]
        if self.endpoints:
            lines.append("the last run:")  # which may have sent nothing, since all was answered
        return "\n".join([*lines, *(f"  {each.to_text()}" for each in self.endpoints)])


def rows_left(rows: int | None, counts: RowCounts) -> int | None:
    """Counts unfinished rows; returns ``None`` if the rows are not known."""
    ended = counts.answered + counts.failed + counts.skipped + counts.unsendable
    return None if rows is None else max(0, rows - ended)


def job_status(output: Path) -> Status:
    """Reads how far a job is.

    Raises:
        InputError: The journal does not exist, or is damaged.
    """
    with open_job(output) as (reader, paths, job):
        attempts, possibly_billed = reader.count_attempts()
        running, found = is_running(reader), reader.count_requests()
        rows, counts = reader.get("rows"), reader.counts()
        forecast = forecast_left(
            job,
            rows=rows,
            left=rows_left(rows, counts),
            learned=UsageEstimator(reader.get(LEARNED)),
            mean_request=reader.get(MEAN_REQUEST),
            seen=reader.get(SEEN_PACE),
        )
        return Status(
            str(paths.output) if paths.output else None,
            rows,
            counts,
            running,
            reader.finished and not running,
            reader.trial_finished and not (running or reader.finished),
            {state.name.lower(): found.get(state, 0) for state in State},
            attempts,
            possibly_billed,
            [EndpointFigures(**each) for each in reader.get(ENDPOINTS) or ()],
            replace(
                forecast,
                answered=counts.answered,
                failed=counts.failed + counts.unsendable,
                pending=counts.pending,
                duplicate_rows=sum(mark.equal or mark.shares_request for mark in repeated_rows(reader)),
                skipped=counts.skipped,
            ),
        )


def is_running(reader: JournalReader) -> bool:
    """Whether the last run is alive, by its pid; only for display, since the lock alone decides."""
    last = reader.runs()[-1:]
    if not last or last[0]["ended_at"] is not None or last[0]["host"] != socket.gethostname():
        return False
    try:
        os.kill(last[0]["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
