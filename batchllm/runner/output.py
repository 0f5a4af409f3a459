"""Writes the output from source and journal; it can be written again at any time."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batchllm.budget.costs import CostTotals, RowCosts
from batchllm.formats import (
    Columns,
    Outcome,
    OutputStatistics,
    format_of,
    is_narrow,
    with_fitting_kinds,
    write_output,
)
from batchllm.formats.suffixes import format_suffix
from batchllm.journal import Journal, JournalReader
from batchllm.plan.outcomes import outcome_reader, outcomes
from batchllm.prepare.job_paths import existing_digest, exported_note
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.printable import one_line
from batchllm.runner.skipped import write_skipped_files
from batchllm.runner.trial import Destination

SAMPLES = 3


@dataclass(slots=True)
class OutputCounts:
    """Counts of the rows in an output.

    Attributes:
        rows: All rows.
        answered, skipped, failed: Rows with an answer, with an empty text, with an ``error``.
        failed_by_reason: The failed rows by reason.
        failures: The first failed row of each reason, from 0, and its error.
        finish_reasons: The answers, those of failed rows included, by what the endpoint said.
        labels: How often each label was given.
        with_confidence: Answers whose label has a probability.
        samples: The first answers.
        sample_rows: Their rows, from 0.
        costs: What the answers cost.
    """

    rows: int = 0
    answered: int = 0
    skipped: int = 0
    failed: int = 0
    failed_by_reason: Counter[str] = field(default_factory=Counter)
    failures: dict[str, tuple[int, str]] = field(default_factory=dict)
    finish_reasons: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    with_confidence: int = 0
    samples: list[dict[str, Any]] = field(default_factory=list)
    sample_rows: list[int] = field(default_factory=list)
    costs: CostTotals = field(default_factory=lambda: CostTotals(None))

    def count(self, outcome: Outcome) -> None:
        """Counts a row."""
        self.rows += 1
        answer = outcome.answer
        if answer is None:
            self.skipped += 1
        elif answer.error is not None:
            self.failed += 1
            reason = answer.reason or "unknown"
            self.failed_by_reason[reason] += 1
            self.failures.setdefault(reason, (outcome.row_index, one_line(answer.error)))
            if answer.finish_reason is not None:
                self.finish_reasons[answer.finish_reason] += 1
        else:
            self.answered += 1
            for label in answer.labels:
                self.labels[label] += 1
            self.with_confidence += answer.confidence is not None
            self.finish_reasons[answer.finish_reason or "none"] += 1
            if len(self.samples) < SAMPLES:
                self.samples.append(dict(answer.columns))
                self.sample_rows.append(outcome.row_index)

    def to_json(self) -> dict[str, Any]:
        """Returns the form that the journal keeps."""
        return {
            **{name: getattr(self, name) for name in OutputCounts.__slots__},
            "costs": self.costs.to_json(),
        }

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> "OutputCounts":
        """Restores what ``to_json`` returned."""
        return cls(**{**kept, "costs": CostTotals.from_json(kept["costs"])})


class OutputWriter:
    """Writes the finished rows, each beside its outcome.

    Args:
        prepared: The job and its input.
        journal: Opens a view of the journal.
        path: The file to write; ``None`` is standard output.
        chosen: The only rows to write, ``None`` for all.
        partial: Leave out unfinished rows; otherwise every row has to be finished.

    Attributes:
        counts: The rows written so far.
    """

    def __init__(
        self,
        prepared: PreparedJob,
        journal: Callable[[], JournalReader],
        *,
        path: Path | None,
        chosen: "range | frozenset[int] | None" = None,
        partial: bool = False,
    ) -> None:
        self._prepared = prepared
        self._journal = journal
        self._path = path
        self._chosen = chosen
        self._partial = partial or chosen is not None
        self.counts = OutputCounts()

    def write(
        self, announce: Callable[[str, OutputCounts], None] = lambda sha256, counts: None
    ) -> OutputStatistics:
        """Writes the output.

        Args:
            announce: Called with the output's SHA-256 and its counts before the output is put in place.

        Raises:
            InputError: The input changed since it was scanned.
            CannotWrite, StorageFailure: The output cannot be written.
        """
        return with_fitting_kinds(self._prepared.columns, lambda columns: self._written(columns, announce))

    def _written(self, columns: Columns, announce: Callable[[str, OutputCounts], None]) -> OutputStatistics:
        self.counts = OutputCounts()
        journal = self._journal()
        costs = RowCosts(self._prepared, journal)
        self.counts.costs = costs.totals
        with closing(journal.outcomes()) as entries:
            return write_output(
                self._prepared.source,
                self._counted(
                    outcomes(entries, outcome_reader(self._prepared, journal), self._chosen, costs)
                ),
                path=self._path,
                columns=columns,
                output_format=_format_at(self._path, self._prepared.output_format),
                partial=self._partial,
                expected_sha256=self._prepared.statistics.sha256,
                encoding=self._prepared.job.output_encoding,
                escape_formulas=self._prepared.job.escape_formulas,
                announce=lambda sha256: announce(sha256, self.counts),
            )

    def _counted(self, found: Iterable[Outcome]) -> Iterator[Outcome]:
        for outcome in found:
            self.counts.count(outcome)
            yield outcome


def _format_at(path: Path | None, usual: str) -> str:
    return usual if path is None else format_of(path).name


def read_options(prepared: PreparedJob, path: Path | None) -> dict[str, str]:
    """Returns the options of ``open_source`` that the output is read with."""
    if path is None:
        return {}
    own = prepared.output_format == prepared.source.kind
    kept = prepared.source.kept_options(format_suffix(path)) if own else {}
    encoding = prepared.job.output_encoding
    if encoding is None and is_narrow(kept.get("encoding", "utf-8")):
        encoding = "utf-8"
    return kept if encoding is None else {**kept, "encoding": encoding}


def write_if_changed(
    prepared: PreparedJob,
    journal: Journal,
    *,
    destination: Destination,
    chosen: "range | frozenset[int] | None",
    prices: list[Any],
    changed: bool,
) -> OutputCounts:
    """Writes the output of a finished run, unless the existing file is already up to date.

    The journal knows an output before it is in place, so a run that dies in between recognizes its own output.

    Args:
        prepared: The job and its input.
        journal: The job's journal; keeps what is known of the output.
        destination: Where the output goes.
        chosen: The only rows to write, ``None`` for all.
        prices: What costs depend on: ``Pricing.identity``.
        changed: The run has new answers.
    """
    output = destination.path
    columns = [list(prepared.columns.order), list(map(list, prepared.columns.fields))]
    if prepared.columns.input != prepared.statistics.columns:
        columns.append(list(prepared.columns.input))
    of_input = [prepared.statistics.sha256, prepared.source.reading()]
    style = [prepared.output_format, prepared.job.output_encoding, prepared.job.escape_formulas]
    shape = prepared.job.fingerprint()
    view = json.dumps([columns, shape, style, of_input, str(chosen), prices])
    last: dict[str, Any] = journal.get(destination.key) or {}
    if output is not None:
        write_skipped_files(prepared, journal, destination)
    existing = existing_digest(output)
    # An earlier run that stopped may have brought answers after the output was written.
    is_current = (view, existing, journal.next_attempt) == tuple(map(last.get, ("view", "sha256", "attempt")))
    if existing is not None and not changed and is_current:
        return OutputCounts.from_json(last["counts"])

    def announce(sha256: str, counts: OutputCounts) -> None:
        if output is not None:
            facts = {"sha256": sha256, "replaces": existing, "view": view, "counts": counts.to_json()}
            state = {"attempt": journal.next_attempt, "complete": chosen is None}
            journal.put_now(destination.key, {**facts, **state})

    writer = OutputWriter(prepared, journal.reader, path=output, chosen=chosen)
    writer.write(announce)
    with suppress(OSError):  # a note that stays names bytes that this output has replaced
        exported_note(prepared.paths.journal).unlink()
    return writer.counts
