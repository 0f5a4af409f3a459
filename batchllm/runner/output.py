"""Writes the output from source and journal; it can be written again at any time."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from batchllm.budget.costs import CostTotals, RowCosts
from batchllm.errors import CannotWrite
from batchllm.formats import Columns, Outcome, is_narrow, with_fitting_kinds, write_output
from batchllm.formats.output_file import remove_leftovers
from batchllm.formats.suffixes import format_suffix
from batchllm.journal import Journal, JournalReader
from batchllm.plan.outcomes import outcome_reader, outcomes
from batchllm.prepare.existing_output import existing_digest, exported_note
from batchllm.prepare.outputs import OutputFile, is_folder, output_files
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.printable import one_line
from batchllm.records import Chosen
from batchllm.runner.skipped import write_skipped_files
from batchllm.runner.trial import OUTPUT, OutputDestination

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
        as_text: Added columns that are text because a value of one did not fit its kind.
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
    as_text: list[str] = field(default_factory=list)

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


Announce = Callable[[OutputFile, str, OutputCounts], bool | None]
"""Told of a file, its SHA-256 and the counts so far; ``False`` leaves the file that is there in its place."""


class OutputWriter:
    """Writes the finished rows, each beside its outcome.

    Args:
        prepared: The job and its input.
        journal: Opens a view of the journal.
        path: The file or folder to write; ``None`` is standard output.
        key: The journal's key for what is known of it.
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
        key: str = OUTPUT,
        chosen: Chosen = None,
        partial: bool = False,
    ) -> None:
        self._prepared = prepared
        self._journal = journal
        self._path = path
        self._key = key
        self._chosen = chosen
        self._partial = partial or chosen is not None
        self.counts = OutputCounts()

    def write(self, announce: Announce = lambda file, sha256, counts: None) -> int:
        """Writes the output; returns the number of rows.

        Args:
            announce: Called with each file, its SHA-256 and the counts so far, before the file is put in place.

        Raises:
            InputError: The input changed since it was scanned.
            CannotWrite, StorageFailure: The output cannot be written.
        """
        return with_fitting_kinds(self._prepared.columns, lambda columns: self._written(columns, announce))

    def _written(self, columns: Columns, announce: Announce) -> int:
        self.counts = OutputCounts()
        journal, prepared = self._journal(), replace(self._prepared, columns=columns)
        costs = RowCosts(prepared, journal)
        self.counts.costs = costs.totals
        usual = self._prepared.columns.kinds
        self.counts.as_text = [name for name, kind in columns.kinds.items() if kind != usual[name]]
        files = output_files(prepared, self._path, self._key, self._chosen)
        in_folder = is_folder(prepared, self._path)
        if in_folder:
            _make(self._path)
            remove_leftovers(*(file.path for file in files if file.path is not None))
        with closing(journal.outcomes()) as entries:
            found = self._counted(outcomes(entries, outcome_reader(prepared, journal), self._chosen, costs))
            for file, own in zip(files, split_rows(found, files) if in_folder else [found], strict=True):
                write_output(
                    file.source,
                    own,
                    path=file.path,
                    columns=file.columns,
                    output_format=file.kind,
                    partial=self._partial,
                    expected_sha256=file.sha256,
                    encoding=prepared.job.output_encoding,
                    escape_formulas=prepared.job.escape_formulas,
                    announce=lambda sha256, file=file: announce(file, sha256, self.counts),  # type: ignore[misc]
                    tidies=not in_folder,
                )
        return self.counts.rows

    def _counted(self, found: Iterable[Outcome]) -> Iterator[Outcome]:
        for outcome in found:
            self.counts.count(outcome)
            yield outcome


def _make(folder: Path | None) -> None:
    assert folder is not None, "standard output is no folder"
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise CannotWrite(f"{folder}: the folder cannot be made: {error.strerror}") from error


def split_rows(found: Iterator[Outcome], files: Sequence[OutputFile]) -> Iterator[Iterator[Outcome]]:
    """Yields the outcomes of each file, numbered by the rows of its source; each has to be read before the next.

    Args:
        found: The outcomes of all rows, in order.
        files: The files, in order.
    """
    waiting: list[Outcome] = []

    def of_file(file: OutputFile) -> Iterator[Outcome]:
        for outcome in chain(waiting[:], found):
            waiting[:] = [outcome]
            if outcome.row_index >= file.end:
                return
            waiting.clear()
            yield outcome._replace(row_index=outcome.row_index - file.begin) if file.begin else outcome

    for file in files:
        yield of_file(file)


def read_options(prepared: PreparedJob, path: Path | None) -> dict[str, str]:
    """Returns the options of ``open_source`` that the output is read with."""
    if path is None or is_folder(prepared, path):
        return {}
    own = prepared.output_format == prepared.source.kind
    kept = prepared.source.kept_options(format_suffix(path)) if own else {}
    encoding = prepared.job.output_encoding
    if encoding is None and is_narrow(kept.get("encoding", "utf-8")):
        encoding = "utf-8"
    return kept if encoding is None else {**kept, "encoding": encoding}


def view_of(prepared: PreparedJob, chosen: Chosen, prices: list[Any]) -> str:
    """Returns what the bytes of an output depend on beside the answers."""
    columns = [list(prepared.columns.order), list(map(list, prepared.columns.fields))]
    if prepared.columns.input != prepared.statistics.columns:
        columns.append(list(prepared.columns.input))
    of_input = [prepared.statistics.sha256, prepared.source.reading()]
    style = [prepared.output_format, prepared.job.output_encoding, prepared.job.escape_formulas]
    shape = prepared.job.fingerprint()
    return json.dumps([columns, shape, style, of_input, str(chosen), prices])


def write_if_changed(
    prepared: PreparedJob,
    journal: Journal,
    *,
    destination: OutputDestination,
    chosen: Chosen,
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
    view = view_of(prepared, chosen, prices)
    last: dict[str, Any] = journal.get(destination.key) or {}
    if output is not None:
        write_skipped_files(prepared, journal, destination)
    files = output_files(prepared, output, destination.key, chosen)
    existing = {file.key: existing_digest(file.path) for file in files}
    known = {file.key: journal.get(file.key) or {} for file in files}
    # An earlier run that stopped may have brought answers after the output was written.
    is_current = (view, journal.next_attempt) == (last.get("view"), last.get("attempt")) and all(
        existing[key] is not None and existing[key] == known[key].get("sha256") for key in existing
    )
    if output is not None and not changed and is_current:
        return OutputCounts.from_json(last["counts"])
    in_folder = is_folder(prepared, output)

    def facts(counts: OutputCounts) -> dict[str, Any]:
        state = {"attempt": journal.next_attempt, "complete": chosen is None}
        return {"view": view, "counts": counts.to_json(), **state}

    def announce(file: OutputFile, sha256: str, counts: OutputCounts) -> bool:
        if in_folder and sha256 == existing[file.key] == known[file.key].get("sha256"):
            return False
        if file.path is not None:
            more = {} if in_folder else facts(counts)
            journal.put_now(file.key, {"sha256": sha256, "replaces": existing[file.key], **more})
        return True

    writer = OutputWriter(prepared, journal.reader, path=output, key=destination.key, chosen=chosen)
    writer.write(announce)
    if in_folder:
        names = [file.path.name for file in files if file.path is not None]
        journal.put_now(destination.key, {"sha256": None, "files": names, **facts(writer.counts)})
    with suppress(OSError):  # a note that stays names bytes that this output has replaced
        exported_note(prepared.paths.journal).unlink()
    return writer.counts
