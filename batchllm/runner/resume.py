"""Opens a job's journal and resumes the job where its last run stopped.

Everything that refuses a run comes before the journal is changed: a refused command changes nothing.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from batchllm import __version__
from batchllm.batch.waiting import session_since
from batchllm.errors import UsageError
from batchllm.journal import (
    PLAN,
    SKIPPED,
    TRIAL,
    Journal,
    JournalReader,
    RowCounts,
    State,
    bring_back,
    check_space,
    set_aside,
)
from batchllm.plan.outcomes import in_order
from batchllm.plan.replay import Replayer
from batchllm.plan.row_counts import row_state_of
from batchllm.prepare.existing_output import Known, check_output, known_files
from batchllm.prepare.first_preset import PRESETS, presets_of
from batchllm.prepare.outputs import output_files
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.prepare.saved_job import saved
from batchllm.prepare.shards import SHARD, ShardRows
from batchllm.records import Chosen
from batchllm.runner.consent import FINGERPRINT, GIVEN_UP, check_unchanged
from batchllm.runner.cut_off import check_retry, identity_of, is_same_pass, keep_limit
from batchllm.runner.cut_off_rows import CutOffRow, cut_off_rows
from batchllm.runner.skipped import skipped_files
from batchllm.runner.trial import destination_of

BYTES_PER_ROW = 4_000
"""Room that a row is expected to need in journal and output together, at most, beside its own bytes."""


class ResumedJob:
    """A job with its journal, before it is known whether the run goes on.

    Args:
        prepared: The job and its input.
        rows: Rows of the job.
        chosen: The only rows wanted, ``None`` for all.

    Attributes:
        journal: The job's journal.
        destination: Where the output goes.
        continued: Whether the last run's pass over the input is continued.
        plan_id: The number of the pass, once it has begun.

    Raises:
        UsageError: The output is another job's, or the job was changed and rows would be paid again.
        CannotWrite: A file cannot be written, or the disk is full.
        InputError: The journal is damaged, or is no journal.
    """

    def __init__(self, prepared: PreparedJob, *, rows: int, chosen: Chosen) -> None:
        self._prepared = prepared
        self._chosen = chosen
        job, paths = prepared.job, prepared.paths
        check_space(paths.journal.parent, prepared.statistics.bytes + rows * BYTES_PER_ROW)
        kept: dict[str, Any] = {}
        self._paid_again = 0
        self._aside: Path | None = None
        if job.restart:
            with known_files(paths.journal) as known:
                self.destination = destination_of(job, paths.output, chosen, known("output"))
                kept = self._check_output(known)
            self._aside = set_aside(paths.journal)
        elif paths.journal.exists():
            with JournalReader.open(paths.journal) as reader:
                self.destination = destination_of(job, paths.output, chosen, reader.get("output"))
                self._check_output(reader.get)
                self._check_shard(reader.get(SHARD), reader.get("rows"))
                self._paid_again = check_unchanged(prepared, reader, chosen=chosen)
                check_retry(prepared, is_same=is_same_pass(prepared, reader.get(PLAN)))
        else:
            self.destination = destination_of(job, paths.output, chosen, None)
            self._check_output(lambda key: None)
        try:
            self.journal = Journal.open(paths.journal, version=__version__)
        except BaseException:
            self._bring_back()
            raise
        for key, value in kept.items():
            self.journal.put_now(key, value)
        self.continued = is_same_pass(prepared, self.journal.get(PLAN))
        self.plan_id = 0

    def withdraw(self) -> None:
        """Leaves everything as it was, because the run does not go on after all."""
        self.journal.withdraw()
        self._bring_back()

    def _bring_back(self) -> None:
        if self._aside is not None:
            bring_back(self._prepared.paths.journal, self._aside)

    def _check_output(self, known: Known) -> dict[str, Any]:
        """Refuses an output that should not be written; returns what is known of the files, by the journal's keys."""
        destination, paths, job = self.destination, self._prepared.paths, self._prepared.job
        path = destination.path
        if path is None:
            return {}
        noted = paths.journal if path == paths.output else None
        files = {key: known(key) for key in ("output", destination.key)}
        for output in output_files(self._prepared, path, destination.key, self._chosen):
            files[output.key] = known(output.key)
            if output.path is not None and output.path.parent.exists():
                check_output(output.path, written=files[output.key], force=job.force, journal=noted)
        for file in skipped_files(self._prepared, destination):
            files[file.key] = known(file.key)
            if file.bad_rows and file.path.parent.exists():
                check_output(file.path, written=files[file.key], force=job.force)
        return {key: value for key, value in files.items() if value is not None}

    def _check_shard(self, known: "dict[str, Any] | None", rows: int | None) -> None:
        """Refuses to put another shard, or the whole input, where a shard is, and a shard where the whole is."""
        shard, output = self._prepared.shard, self.destination.path or "the journal"
        if rows is None or (known and known["number"], known and known["of"]) == (
            shard and shard.number,
            shard and shard.of,
        ):
            return
        whose = "the whole input" if known is None else str(ShardRows(**known))
        raise UsageError(
            f"{output} is that of {whose}; name another output with -o, or leave --shard as it was"
        )

    def counts(self) -> RowCounts:
        """Counts the wanted rows that earlier runs of this pass admitted, by state."""
        if not self.continued:
            return RowCounts(0, 0, 0, 0, 0, 0, 0)
        counts, received = self.counts_of_pass(), self._received()
        return replace(
            counts,
            answered=counts.answered + received[State.ANSWERED],
            failed=counts.failed + received[State.FAILED],
            open=counts.open - received.total(),
        )

    def _received(self) -> Counter[State]:
        """Counts the wanted rows whose last answer a dead run saved, and whose outcome it did not record."""
        prepared, reader = self._prepared, self.journal.reader()
        replayer = Replayer(prepared.flow, reader, in_order(prepared.source.rows), unread=True)
        found: Counter[State] = Counter()
        for row_index, root_id in reader.begun_rows():
            if self._chosen is None or row_index in self._chosen:
                result = replayer.replay_row(row_index, root_id).result
                if result is not None:
                    found[State.ANSWERED if result.error is None else State.FAILED] += 1
        return found

    def counts_of_pass(self) -> RowCounts:
        """Counts the wanted rows that this pass has admitted, by state."""
        reader = self.journal.reader()
        return reader.counts() if self._chosen is None else _counts_of(reader, self._chosen)

    def cut_off(self) -> list[CutOffRow]:
        """Returns the rows that are asked again because their answer was cut off (``--retry-cut-off``)."""
        if not self.continued or self._prepared.job.raised_max_tokens is None:
            return []
        since = session_since(self.journal) if self._prepared.job.via == "batch" else None
        return cut_off_rows(self._prepared, self.journal.reader(), chosen=self._chosen, since=since)

    def begin(self, cut_off: Sequence[CutOffRow] = ()) -> None:
        """Begins the pass, or continues it, once it is known that the run goes on.

        Args:
            cut_off: The rows of which requests are asked again though they have an answer.
        """
        prepared, journal, job = self._prepared, self.journal, self._prepared.job
        fingerprint = job.fingerprint()
        plan = journal.begin_plan(
            identity_of(prepared), dedupe=job.dedupe, job=json.dumps(fingerprint, sort_keys=True)
        )
        self.plan_id = plan.plan_id
        keep_limit(journal, job.raised_max_tokens)
        journal.ask_again(each.asked for each in cut_off)
        for each in cut_off:
            if job.retry_failed and each.state is State.FAILED:
                journal.reopen(each.asked.root_id)
        trial = self._chosen is not None
        if not trial or journal.get(FINGERPRINT) is None:
            journal.put(FINGERPRINT, fingerprint)
        if self._paid_again:
            journal.put(GIVEN_UP, (journal.get(GIVEN_UP) or 0) + self._paid_again)
        if not trial:
            journal.put(TRIAL, None)
        journal.put("job", saved(job))
        journal.put("source", prepared.statistics.sha256)
        journal.put("rows", prepared.statistics.rows)
        journal.put(PRESETS, presets_of(job, journal.get(PRESETS)))
        journal.put(SHARD, None if prepared.shard is None else asdict(prepared.shard))


def _counts_of(reader: JournalReader, chosen: "range | frozenset[int]") -> RowCounts:
    """Counts the states of some rows of the current pass."""
    states: Counter[State | None] = Counter()
    skipped = 0
    for row in reader.planned(min(chosen, default=0)):
        if row.row_index > max(chosen, default=-1):
            break
        if row.row_index in chosen:
            states[row_state_of(row)] += 1
            skipped += row.unsent_reason == SKIPPED
    return RowCounts(
        rows=states.total(),
        answered=states[State.ANSWERED],
        failed=states[State.FAILED],
        unanswered=states[State.UNANSWERED],
        open=states[State.OPEN],
        skipped=skipped,
        unsendable=states[None] - skipped,
        pending=states[State.PENDING],
    )
