"""Source and journal become the output: a view that can be made again at any time."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batchllm.budget.costs import Costs, Totals
from batchllm.formats import SUFFIXES, Outcome, OutputStatistics, format_of, write_output
from batchllm.journal import JournalReader
from batchllm.plan.outcomes import outcomes, readers
from batchllm.prepare.prepared_job import PreparedJob

SAMPLES = 3


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
        prepared: The job and its input.
        journal: Gives a view of what the rows got, as it is by then.
        path: Where to; ``None`` is standard output.
        chosen: The only rows to write, ``None`` for all.
        partial: Rows without an end are left out; otherwise there are none.

    Attributes:
        figures: What was counted of the rows so far.
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
        self.figures = Figures()

    def write(
        self, announce: Callable[[str, Figures], None] = lambda sha256, figures: None
    ) -> OutputStatistics:
        """Writes them.

        Args:
            announce: Told the hash of the whole output, and what is in it, before it is put in place.

        Raises:
            InputError: The input changed since the job planned it.
            CannotWrite, StorageFailure: The output cannot be written.
        """
        journal = self._journal()
        costs = Costs(self._prepared, journal)
        self.figures.money = costs.totals
        with closing(journal.outcomes()) as entries:
            return write_output(
                self._prepared.source,
                self._counted(outcomes(entries, readers(self._prepared), self._chosen, costs)),
                path=self._path,
                columns=self._prepared.columns,
                output_format=_format_at(self._path, self._prepared.output_format),
                partial=self._partial,
                expected_sha256=self._prepared.statistics.sha256,
                announce=lambda sha256: announce(sha256, self.figures),
            )

    def _counted(self, found: Iterable[Outcome]) -> Iterator[Outcome]:
        for outcome in found:
            self.figures.count(outcome)
            yield outcome


def view_of(prepared: PreparedJob) -> dict[str, Any]:
    """What shapes the output beside the answers: where it is equal, an output need not be written again."""
    return {
        "columns": [list(prepared.columns.order), list(map(list, prepared.columns.fields))],
        "format": prepared.output_format,
        "source": prepared.statistics.sha256,
    }


def _format_at(path: Path | None, usual: str) -> str:
    return usual if path is None or path.suffix.lower() not in SUFFIXES else format_of(path).name


def read_options(prepared: PreparedJob, path: Path | None) -> dict[str, str]:
    """Returns the options of ``open_source`` that the output is read with."""
    if path is None or prepared.output_format != prepared.source.kind:
        return {}
    return prepared.source.kept_options(path.suffix.lower())
