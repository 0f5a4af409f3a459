"""Source and journal become the output: a view that can be made again at any time."""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from batchllm.answer import Reader
from batchllm.errors import JobError
from batchllm.journal import Entry, JournalReader, State
from batchllm.records import Answer
from batchllm.runner.costs import Costs, Totals
from batchllm.runner.stage import Stage
from batchllm.sink import Outcome, Output, Written

SAMPLES = 3
STEP_ROWS = 64
"""Rows whose records are made in one step: some milliseconds."""
ENDS = (State.ANSWERED, State.FAILED, State.UNANSWERED)


@dataclass(slots=True)
class Figures:
    """What an export counted, row by row."""

    rows: int = 0
    answered: int = 0
    skipped: int = 0
    failed: int = 0
    failed_by_reason: Counter[str] = field(default_factory=Counter)
    finish_reasons: Counter[str] = field(default_factory=Counter)
    samples: list[dict[str, Any]] = field(default_factory=list)
    money: Totals = field(default_factory=lambda: Totals(None))

    def count(self, outcome: Outcome) -> None:
        """Counts a row."""
        self.rows += 1
        answer = outcome.answer
        if answer is None:
            self.skipped += 1
        elif answer.error is not None:
            self.failed += 1
            self.failed_by_reason[answer.reason or "unknown"] += 1
            if answer.finish_reason is not None:
                self.finish_reasons[answer.finish_reason] += 1
        else:
            self.answered += 1
            self.finish_reasons[answer.finish_reason or "none"] += 1
            if len(self.samples) < SAMPLES:
                self.samples.append(dict(answer.columns))

    def as_json(self) -> dict[str, Any]:
        """What the journal keeps."""
        return {**{name: getattr(self, name) for name in Figures.__slots__}, "money": self.money.as_json()}

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> "Figures":
        """What ``as_json`` gave."""
        return cls(**{**kept, "money": Totals.from_json(kept["money"])})


class Export:
    """The rows that have their end beside what they got, on their way to the output.

    Args:
        stage: The job and its input.
        journal: Gives a view of what the rows got, as it is by then.
        path: Where to; ``None`` is standard output.
        chosen: The only rows to write, ``None`` for all.
        partial: Rows without an end are left out; otherwise there are none.

    Attributes:
        figures: What was counted of the rows so far.
    """

    def __init__(
        self,
        stage: Stage,
        journal: Callable[[], JournalReader],
        *,
        path: Path | None,
        chosen: "range | frozenset[int] | None" = None,
        partial: bool = False,
    ) -> None:
        self._stage = stage
        self._journal = journal
        self._path = path
        self._chosen = chosen
        self._partial = partial or chosen is not None
        self._begin()

    def _begin(self) -> None:
        self.figures = Figures()
        self._prepared = 0
        self._costs: Costs | None = None
        self._reader_of = readers(self._stage)
        self._output = Output(
            self._stage.source,
            path=self._path,
            columns=self._stage.columns,
            output_format=self._stage.output_format,
            partial=self._partial,
        )

    def prepare(self) -> Generator[None]:
        """Makes records of the rows before the first one that has no end yet, in memory, some with every step.

        For a job whose rows this run alone has brought to their ends, once all of them are on their way.
        """
        try:
            journal = self._journal()
            stop = sum(kind.rows for kind in journal.ended(ENDS, notes=True))
            costs = self._priced(journal)
            while self._prepared < stop:
                with closing(journal.outcomes(self._prepared)) as entries:
                    some = list(islice(entries, min(STEP_ROWS, stop - self._prepared)))
                self._output.prepare(self._outcomes(some, costs))
                self._prepared = some[-1].row_index + 1
                yield
        except JobError:
            self._begin()  # whoever writes meets it again, when it can be told

    def write(self, announce: Callable[[str, Figures], None] = lambda sha256, figures: None) -> Written:
        """Writes them, those that were prepared first.

        Args:
            announce: Told the hash of the whole output, and what is in it, before it is put in place.

        Raises:
            InputError: The input changed since the job planned it.
            CannotWrite, StorageFailure: The output cannot be written.
        """
        journal = self._journal()
        costs = self._priced(journal)
        with closing(journal.outcomes(self._prepared)) as entries:
            return self._output.write(
                self._outcomes(entries, costs),
                expected_sha256=self._stage.census.sha256,
                announce=lambda sha256: announce(sha256, self.figures),
            )

    def _priced(self, journal: JournalReader) -> Costs:
        """What rows cost, from the first one on that is not prepared."""
        if self._costs is None:
            self._costs = Costs(self._stage, journal)
            self.figures.money = self._costs.totals
        else:
            self._costs.look_again(self._prepared)
        return self._costs

    def _outcomes(self, entries: Iterable[Entry], costs: Costs) -> Iterator[Outcome]:
        for outcome in outcomes(entries, self._reader_of, self._chosen, costs):
            self.figures.count(outcome)
            yield outcome


def readers(stage: Stage) -> Callable[[int], Reader]:
    """What reads a row's answer, by the row's index; asked in growing order only."""
    if not stage.job.per_row:
        return lambda row_index: stage.reader
    rows = stage.source.rows()
    return lambda row_index: stage.builder.reader(next(row for row in rows if row.index == row_index))


def outcomes(
    entries: Iterable[Entry],
    reader_of: Callable[[int], Reader],
    chosen: "range | frozenset[int] | None" = None,
    costs: Costs | None = None,
) -> Iterator[Outcome]:
    """What each row that has its end got; rows that are still on their way are left out."""
    for entry in entries:
        if entry.state is State.OPEN or (chosen is not None and entry.row_index not in chosen):
            continue
        answer = answer_of(entry, reader_of(entry.row_index))
        cost = (
            None
            if costs is None
            else costs.of(entry.row_index, answer, entry.state, entry.status, entry.attempt_id)
        )
        yield Outcome(entry.row_index, answer, entry.attempts, entry.latency_s, cost)


def answer_of(entry: Entry, reader: Reader) -> Answer | None:
    """What a row got, or ``None`` where its text was empty."""
    if entry.note == "skipped":
        return None
    if entry.note is not None:
        reason, _, error = entry.note.partition("\n")
        return Answer(error=error, reason=reason)
    if entry.status is not None:
        return reader.read(entry.status, entry.body)
    return Answer(error=entry.message or "never sent", reason=entry.failure or "too_large")


def view_of(stage: Stage) -> dict[str, Any]:
    """What shapes the output beside the answers: where it is equal, an output need not be written again."""
    return {
        "columns": [list(stage.columns.order), list(map(list, stage.columns.fields))],
        "format": stage.output_format,
        "source": stage.census.sha256,
    }
