"""Chooses the rows that a report shows: all of a small output, of a large one those that are worth a look."""

import heapq
import random
from dataclasses import dataclass, field

MOST_ROWS = 5_000
"""Rows on a page."""
_EACH = 900


class Reservoir:
    """An unbiased sample of row numbers in flat memory (Vitter's algorithm R), the same in every run.

    Args:
        size: The most rows that it keeps.

    Attributes:
        rows: The rows that are kept.
        seen: Rows that were offered.
    """

    def __init__(self, size: int = _EACH) -> None:
        self._size = size
        self._random = random.Random(0)
        self.rows: list[int] = []
        self.seen = 0

    def offer(self, index: int) -> None:
        """Takes a row, or does not."""
        self.seen += 1
        if len(self.rows) < self._size:
            self.rows.append(index)
            return
        place = int(self._random.random() * self.seen)
        if place < self._size:
            self.rows[place] = index


class LowestRows:
    """The rows with the lowest values.

    Args:
        size: The most rows that it keeps.
    """

    def __init__(self, size: int = _EACH) -> None:
        self._size = size
        self._kept: list[tuple[float, int]] = []

    def offer(self, index: int, value: float) -> None:
        """Takes a row if its value is among the lowest so far; 1 is not low."""
        if value >= 1:
            return
        if len(self._kept) < self._size:
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

    failed: Reservoir = field(default_factory=Reservoir)
    wrong: Reservoir = field(default_factory=Reservoir)
    differing: Reservoir = field(default_factory=Reservoir)
    least_agreed: LowestRows = field(default_factory=LowestRows)
    sample: Reservoir = field(default_factory=lambda: Reservoir(MOST_ROWS))
    rows: int = 0

    def see(self, index: int) -> None:
        """Counts a row."""
        self.rows += 1
        self.sample.offer(index)

    def chosen(self) -> frozenset[int]:
        """Returns all rows, where they are few; else those that are worth a look, and a sample to fill the page."""
        if self.rows <= MOST_ROWS:
            return frozenset(range(self.rows))
        found = {
            *self.failed.rows,
            *self.wrong.rows,
            *self.differing.rows,
            *self.least_agreed.rows(),
        }
        for index in self.sample.rows:
            if len(found) >= MOST_ROWS:
                break
            found.add(index)
        return frozenset(found)
