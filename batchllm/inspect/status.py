"""``status``: how far a job is."""

import os
import socket
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from batchllm.budget.estimate import MEAN_REQUEST, SEEN_PACE, Forecast, forecast_left
from batchllm.budget.learned import LEARNED, Learned
from batchllm.inspect.open_job import open_job
from batchllm.journal import JournalReader, RowCounts
from batchllm.journal.bill import repeated_rows
from batchllm.prepare.saved_job import restored


@dataclass(frozen=True, slots=True)
class Status:
    """How far a job is.

    Attributes:
        output: Where its output is, or will be; ``None`` is standard output.
        rows: Rows of the input; ``None`` where no run came that far.
        counts: Rows by how far they are.
        running: A run is at it now.
        finished: The last run ended with every row at its end.
        attempts: Requests sent by all runs.
        possibly_billed: How many of them may have been paid without an answer.
        forecast: What the rows that have no end yet will take.
    """

    output: str | None
    rows: int | None
    counts: RowCounts
    running: bool
    finished: bool
    attempts: int
    possibly_billed: int
    forecast: Forecast

    def figures(self) -> dict[str, Any]:
        """The same as JSON has it."""
        figures = {**asdict(replace(self, forecast=Forecast(rows=self.rows))), "left": self.left}
        del figures["forecast"]
        return {**figures, **self.forecast.figures()}

    @property
    def left(self) -> int | None:
        """Rows that have no end yet."""
        return rows_left(self.rows, self.counts)

    def words(self) -> str:
        """The same in a few lines."""
        state = "running now" if self.running else "finished" if self.finished else "not finished"
        counts = self.counts
        of = "" if self.rows is None else f" of {self.rows:,}"
        batched = f", {counts.pending:,} of them in batches" if counts.pending else ""
        lines = [
            f"{self.output or 'standard output'}: {state}",
            f"{counts.answered:,}{of} rows answered, {counts.failed + counts.unsendable:,} failed, "
            f"{counts.skipped:,} empty, {self.left if self.left is not None else counts.open:,} to go{batched}",
            f"{self.attempts:,} requests sent, {self.possibly_billed:,} of them possibly billed without an answer",
        ]
        return "\n".join(lines)


def rows_left(rows: int | None, counts: RowCounts) -> int | None:
    """Rows that have no end yet; ``None`` where the rows are not known."""
    ended = counts.answered + counts.failed + counts.skipped + counts.unsendable
    return None if rows is None else max(0, rows - ended)


def job_status(output: Path) -> Status:
    """How far a job is, also while it runs.

    Raises:
        InputError: There is no journal, or it is damaged.
    """
    with open_job(output) as (reader, places):
        attempts, possibly_billed = reader.count_attempts()
        running = _is_running(reader)
        rows, counts = reader.get("rows"), reader.counts()
        forecast = forecast_left(
            restored(reader.get("job")),
            rows=rows,
            left=rows_left(rows, counts),
            learned=Learned(reader.get(LEARNED)),
            mean_request=reader.get(MEAN_REQUEST),
            seen=reader.get(SEEN_PACE),
        )
        return Status(
            str(places.output) if places.output else None,
            rows,
            counts,
            running,
            reader.finished and not running,
            attempts,
            possibly_billed,
            replace(
                forecast,
                answered=counts.answered + counts.failed,
                duplicates=sum(mark.equal or mark.shares_request for mark in repeated_rows(reader)),
                skipped=counts.skipped,
            ),
        )


def _is_running(reader: JournalReader) -> bool:
    """Whether the last run is alive, by its pid; only for people to read, since the lock alone decides."""
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
