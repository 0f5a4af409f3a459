"""Chooses the rows that a report shows: all of a small output, of a large one those that are worth a look."""

import heapq
from dataclasses import dataclass, field
from itertools import islice

from batchllm.formats.scan import Reservoir

MOST_ROWS = 5_000
"""Rows on a page."""
_EACH = 900


class LowestRows:
    """The rows with the lowest values; a few of them."""

    def __init__(self) -> None:
        self._kept: list[tuple[float, int]] = []

    def offer(self, index: int, value: float) -> None:
        """Takes a row if its value is among the lowest so far; 1 is not low."""
        if value >= 1:
            return
        if len(self._kept) < _EACH:
            heapq.heappush(self._kept, (-value, -index))
        else:
            heapq.heappushpop(self._kept, (-value, -index))

    def rows(self) -> frozenset[int]:
        """Returns the rows that were kept."""
        return frozenset(-index for _, index in self._kept)


@dataclass(slots=True)
class RowPicks:
    """The rows to show.

    Attributes:
        failed: Rows without an answer.
        wrong: Rows whose answer is not the known one.
        differing: Rows on which outputs differ.
        least_agreed: Rows on whose answer the samples agree least.
        sample: Rows of any kind.
        rows: How many rows there are.
    """

    failed: Reservoir[int] = field(default_factory=lambda: Reservoir(_EACH))
    wrong: Reservoir[int] = field(default_factory=lambda: Reservoir(_EACH))
    differing: Reservoir[int] = field(default_factory=lambda: Reservoir(_EACH))
    least_agreed: LowestRows = field(default_factory=LowestRows)
    sample: Reservoir[int] = field(default_factory=lambda: Reservoir(MOST_ROWS))
    rows: int = 0

    def see(self, index: int) -> None:
        """Counts a row."""
        self.rows += 1
        self.sample.offer(index)

    def chosen(self) -> frozenset[int]:
        """Returns all rows, where they are few; else those that are worth a look, and a sample to fill the page."""
        if self.rows <= MOST_ROWS:
            return frozenset(range(self.rows))
        worth_a_look = (self.failed, self.wrong, self.differing)
        found = self.least_agreed.rows().union(*(each.items() for each in worth_a_look))
        others = (index for index in self.sample.items() if index not in found)
        return found.union(islice(others, max(0, MOST_ROWS - len(found))))
