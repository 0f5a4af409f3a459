"""A look at a job through its journal alone: how far it is, one row in full, the output so far, the end."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from batchllm.errors import InputError, NotNow, UsageError
from batchllm.journal import AttemptRecord, Counts, JobLock, JournalReader, note, remove
from batchllm.journal.bill import marked_rows
from batchllm.records import ChatRequest, Failure, Response
from batchllm.runner.conversations import rebuilt
from batchllm.runner.export import Export
from batchllm.runner.forecast import MEAN_REQUEST, SEEN_PACE, Forecast, forecast_left
from batchllm.runner.learning import LEARNED, Learned
from batchllm.runner.places import Places, check_output, digest_of, places_of
from batchllm.runner.saved import restored
from batchllm.runner.stage import Stage, set_up


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
        maybe_paid: How many of them may have been paid without an answer.
        forecast: What the rows that have no end yet will take.
    """

    output: str | None
    rows: int | None
    counts: Counts
    running: bool
    finished: bool
    attempts: int
    maybe_paid: int
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
            f"{self.attempts:,} requests sent, {self.maybe_paid:,} of them perhaps paid without an answer",
        ]
        return "\n".join(lines)


def rows_left(rows: int | None, counts: Counts) -> int | None:
    """Rows that have no end yet; ``None`` where the rows are not known."""
    ended = counts.answered + counts.failed + counts.skipped + counts.unsendable
    return None if rows is None else max(0, rows - ended)


def job_status(output: Path) -> Status:
    """How far a job is, also while it runs.

    Raises:
        InputError: There is no journal, or it is damaged.
    """
    with _journal(output) as (reader, places):
        attempts, maybe_paid = reader.count_attempts()
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
            maybe_paid,
            replace(
                forecast,
                answered=counts.answered + counts.failed,
                duplicates=sum(mark.equal or mark.shared for mark in marked_rows(reader)),
                skipped=counts.skipped,
            ),
        )


def show_row(output: Path, row_index: int) -> Iterator[str]:
    """One row's exact request, every attempt, the raw answer and the times, line by line.

    Raises:
        InputError: There is no journal, no such row, or the journal is damaged.
    """
    with _journal(output) as (reader, places):
        attempts = reader.attempts_of(row_index)
        note = next(
            (entry.note for entry in reader.outcomes(row_index) if entry.row_index == row_index), None
        )
        yield f"row {row_index + 1} of {places.output or 'standard output'}"
        if note is not None:
            yield "never sent: " + note.replace("\n", ": ")
        try:
            yield from _request_lines(reader, restored(reader.get("job")), places, row_index)
        except InputError as error:
            yield f"the request cannot be shown: {error}"
        for number, attempt in enumerate(attempts, 1):
            yield from _attempt_lines(number, attempt)


def export_job(output: Path, *, to: Path | None = None, force: bool = False) -> int:
    """Writes the rows that have their end; returns how many.

    Args:
        output: The job's output, or its journal.
        to: Where to write instead; ``-`` is standard output.
        force: Overwrite a file that batchllm did not write.

    Raises:
        InputError: There is no journal, or the input changed.
        UsageError: There is a file that batchllm did not write.
    """
    with _journal(output) as (reader, places):
        job = restored(reader.get("job"))
        path = places.output if to is None else None if str(to) == "-" else to
        if path is not None:
            check_output(path, written=reader.get("output"), force=force)
        with set_up(job, places) as stage:
            _same_input(stage, reader)
            own = path is not None and path == places.output
            known = partial(_make_known, places) if own else lambda sha256, figures: None
            written = Export(stage, lambda: reader, path=path, partial=True).write(known)
        return written.rows


def _make_known(places: Places, sha256: str, figures: object) -> None:
    """Tells the journal of an output before it is there; a run that goes on looks at its output at its end."""
    output = places.output
    there = digest_of(output) if output is not None and output.exists() else None
    try:
        with JobLock(places.lock):
            note(places.journal, "output", {"sha256": sha256, "replaces": there})
    except NotNow:
        return


def clean_job(output: Path, *, force: bool = False) -> list[Path]:
    """Removes journal and lock of a finished job; returns what was removed.

    Raises:
        NotNow: A run is at it.
        UsageError: The job is not finished.
    """
    with _journal(output) as (reader, places):
        finished = reader.finished
    with JobLock(places.lock):
        if not finished and not force:
            raise UsageError(
                f"{output}: the job is not finished; finish it, or lose its answers with --force"
            )
        remove(places.journal)
        places.lock.unlink(missing_ok=True)
    return [places.journal, places.lock]


def journal_of(output: Path) -> Path:
    """The journal beside an output; the path itself where that is a journal."""
    beside = output.with_name(output.name + ".journal")
    return output if output.name.endswith(".journal") and not beside.exists() else beside


@contextmanager
def _journal(output: Path) -> Iterator[tuple[JournalReader, Places]]:
    """The journal of an output, or of its own path."""
    path = journal_of(output)
    with JournalReader.open(path) as reader:
        kept = reader.get("job")
        if kept is None:
            raise InputError(path, "no run of this job has begun; run it first")
        places = places_of(restored(kept))
        yield reader, Places(places.output, path, places.lock)


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


def _same_input(stage: Stage, reader: JournalReader) -> None:
    if stage.census.sha256 != reader.get("source"):
        raise InputError(stage.source.name, "changed since the job's last run; run the job again first")


def _request_lines(reader: JournalReader, job: Any, places: Places, row_index: int) -> Iterator[str]:
    with set_up(job, places) as stage:
        for row in stage.source.rows():
            if row.index == row_index:
                if job.conversation is None:
                    built = stage.builder.build(row)
                else:
                    built = rebuilt(stage.builder, reader, stage.source.rows, job.conversation, row)
                if isinstance(built, ChatRequest):
                    yield f"request ({built.key.hex()}): {built.body.decode('utf-8', 'replace')}"
                return
    raise InputError(stage.source.name, f"has no row {row_index + 1} any more")


def _attempt_lines(number: int, attempt: AttemptRecord) -> Iterator[str]:
    sent = "taken from another job" if attempt.sent_at is None else f"sent {_clock(attempt.sent_at)}"
    yield f"attempt {number} (run {attempt.run_id}): {sent}"
    if attempt.body is not None:
        yield f"  request: {attempt.body.decode('utf-8', 'replace')}"
    match attempt.outcome:
        case Response(status=status, headers=headers, body=body, latency_s=latency_s):
            yield f"  HTTP {status} after {latency_s:.3f} s, {json.dumps(dict(headers))}"
            yield f"  {body.decode('utf-8', 'replace')}"
        case Failure(kind=kind, message=message, paid=paid, latency_s=latency_s):
            yield f"  {kind}: {message}; after {latency_s:.3f} s; paid: {paid}"
        case None:
            yield "  nothing came back: in flight, or its run died; perhaps paid"


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
