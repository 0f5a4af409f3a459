"""The folder of parts as the driver of a job sees it: which parts are left, whose files are there, and their sums."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from batchllm.budget.costs import plus
from batchllm.budget.estimate import forecast_job
from batchllm.cluster.losses import DeadAttempt
from batchllm.cluster.parts import Parts
from batchllm.cluster.plan import Shard
from batchllm.cluster.progress import begun_rows
from batchllm.cluster.summaries import (
    Done,
    JobState,
    asked_again,
    done_of,
    finished_by,
    rows_of_parts,
    summed,
    total,
)
from batchllm.cluster.work import SKIPPED_NOTES, WorkFolder, attempts_at, part_name
from batchllm.errors import StorageFailure, UsageError
from batchllm.formats.files import output_target
from batchllm.job import Job
from batchllm.prepare.existing_output import check_output
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.runner import Confirm, Result
from batchllm.runner.skipped import skipped_files, write_skipped_files
from batchllm.runner.summary import rate_text
from batchllm.runner.trial import OutputDestination
from batchllm.stores import located


@dataclass(eq=False)
class PartsOutput:
    """Follows the parts of a job.

    Args:
        job: The job.
        parts: What its parts are like.
        work: The work folder of the job.
        run: The name of the run.
        bad_rows: Records of the input that are left out.

    Attributes:
        parts: What the parts are like; more columns may become text.
    """

    job: Job
    parts: Parts
    work: WorkFolder
    run: str
    bad_rows: int = field(kw_only=True)

    def __post_init__(self) -> None:
        self._old: list[str] = []

    def left(self, state: JobState) -> list[Shard]:
        """Returns the shards whose parts are to be written; a column that is text in one of them is so in all."""
        as_text = [note["as_text"] for note in _notes(state) if note["view"] == self.parts.view]
        self.parts = replace(self.parts, as_text=self.parts.as_text.union(*as_text))
        sizes = self.parts.sizes()
        return [
            shard
            for shard in state.plan.shards
            if not self._is_finished(
                shard, state.done.get(shard.number), sizes.get(self.parts.path_of(shard).name)
            )
        ]

    def outdated(self, state: JobState) -> list[Shard]:
        """Returns the shards whose parts lack what was learned while others were written: a column is text."""
        known = self.parts.as_text
        left = self.left(state)
        return left if self.parts.as_text != known else []

    def is_finished(self, shard: Shard) -> bool:
        """Whether the part of a shard is there, with every answer of the shard."""
        return self._is_finished(shard, done_of(self.work, shard), self.parts.size_of(shard))

    def _is_finished(self, shard: Shard, done: Done | None, size_bytes: int | None) -> bool:
        if done is None or asked_again(done, self.job, self.run):
            return False
        return self.parts.is_written(self.work, shard, done, size_bytes)

    def made(self) -> AbstractContextManager[None]:
        """Makes the folder for the ``with`` block; one that stays empty is removed again."""
        return self.parts.made(self.run)

    def check(self, state: JobState, prepared: PreparedJob, *, is_new: bool) -> None:
        """Refuses a folder with files that this job did not write, before anything is paid.

        Raises:
            UsageError: There are such files: a reader would take them for rows of the job, or they would be lost.
            CannotWrite: No file can be written there.
        """
        parts, force = self.parts, prepared.job.force
        found = parts.sizes()
        notes = _notes(state)
        foreign = self._foreign(found, notes)
        if foreign:
            for shard in state.plan.shards:
                numbers = range(1, attempts_at(self.work, shard) + 1)
                found_notes = (self.work.get_json(part_name(shard, number)) for number in numbers)
                notes += [note for note in found_notes if note is not None]
            foreign = self._foreign(found, notes)
        names = {parts.path_of(shard).name for shard in state.plan.shards}
        lost = [name for name in foreign if not (force and name in names)]
        if lost:
            if self.job.restart:
                raise UsageError(
                    f"{parts.folder} has files already, and --restart begins the job anew; name another folder with -o"
                )
            raise UsageError(
                f"{parts.folder} has files that this job did not write, or that were edited since "
                f"({', '.join(lost[:3])}); move them away, or name another folder with -o"
            )
        self._old = [name for name in found if name not in names]
        output_target(parts.path_of_part(1)).check()
        for file in skipped_files(prepared, self._destination()):
            if file.bad_rows:
                check_output(file.path, written=self.get(file.key), force=force)

    def _foreign(self, found: Mapping[str, int], notes: Iterable[Mapping[str, Any]]) -> list[str]:
        own = {(note["path"], note["bytes"]) for note in notes}
        return sorted(
            name for name, size in found.items() if (str(self.parts.folder / name), size) not in own
        )

    def begin(self, state: JobState, prepared: PreparedJob, left: Sequence[Shard], confirm: Confirm) -> None:
        """Asks whether rows are to be sent, and writes the records that are left out, beside the folder.

        Args:
            state: What the job has finished.
            prepared: The job and its input.
            left: The shards whose parts are to be written; most rows may have been answered.
            confirm: Called with the forecast.
        """
        found = [each["summary"] for each in state.done.values()]
        failed = sum(each["failed"] for each in found)
        begun = begun_rows(self.work, state.unfinished)
        missing = sum(shard.rows for shard in state.unfinished) - begun
        again = failed if self.job.retry_failed and left else 0
        forecast = replace(
            forecast_job(prepared, rows=state.plan.rows, left=missing + again),
            answered=sum(each["answered"] for each in found) + begun,
            skipped=sum(each["skipped"] for each in found),
            failed=failed - again,
        )
        confirm(forecast)
        write_skipped_files(prepared, self, self._destination())

    def _destination(self) -> OutputDestination:
        return OutputDestination(located(f"{str(self.parts.folder).rstrip('/')}{self.parts.suffix}"))

    def get(self, key: str) -> Any:
        """Returns what the work folder notes of a file with records that are left out."""
        return (self.work.get_json(SKIPPED_NOTES) or {}).get(key)

    def put_now(self, key: str, value: Any) -> None:
        """Notes it."""
        notes = self.work.get_json(SKIPPED_NOTES) or {}
        self.work.put_json(SKIPPED_NOTES, {**notes, key: value})

    def result(self, state: JobState, confirm: Confirm, seconds: Callable[[], float]) -> Result:
        """Returns the result of the run, when every part is there; removes old parts of other names.

        Args:
            state: What the job has finished.
            confirm: Not called again.
            seconds: Returns the duration of the run.

        Raises:
            StorageFailure: A part is not what its worker wrote.
        """
        if missing := self.left(state):
            raise StorageFailure(
                f"{self.parts.path_of(missing[0])} is not what its worker wrote; run the same command again"
            )
        for name in self._old:
            with suppress(OSError):
                (self.parts.folder / name).unlink()
        lost = [each["lost"] for each in state.done.values() if each["lost"] is not None]
        rows = tuple(sorted({row + 1 for each in lost for row in each["rows"]}))
        dead = [DeadAttempt(**one) for each in lost for one in each["dead"] if one["run"] == self.run]
        of_run = finished_by(self.run, state.done.values())
        summary = summed(
            rows_of_parts(
                [each["summary"] for each in state.done.values()], self.job, bad_rows=self.bad_rows
            ),
            of_run,
            dead,
            rows,
            seconds(),
        )
        cost = summary.cost
        summary = replace(
            summary,
            cached_tokens=total([each["cached_tokens"] for each in of_run]),
            saved_by_cache=total([each["saved_by_cache"] for each in of_run]),
            saved_by_journal=plus(summary.saved_by_journal, None if cost is None else -cost),
        )
        failures: dict[str, tuple[int, str]] = {}
        for each in state.done.values():
            for reason, (row, text) in each["failures"].items():
                failures.setdefault(reason, (row, text))
        return Result(
            output=self.job.output,
            summary=summary,
            possibly_billed_rows=rows,
            failures=failures,
            pace=rate_text(summary),
            job=self.job,
        )


def _notes(state: JobState) -> list[Mapping[str, Any]]:
    """Returns the notes on the parts of shards."""
    return [each["part"] for each in state.done.values() if "part" in each]
