"""Distributions of numbers in flat memory: exact sums, and percentiles to four significant digits."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

PERCENTILES = (50, 90, 95, 99)
_MOST_BINS = 30


@dataclass(frozen=True, slots=True)
class Bin:
    """A bar of a histogram.

    Attributes:
        start, end: The values in it; the end belongs to the next bar.
        count: How many there are.
    """

    start: float
    end: float
    count: int


class Distribution:
    """Counts finite numbers.

    A value is counted as the nearest number of four significant digits, so memory does not grow with the number of
    values. Count, sum, mean, least and greatest value are exact.

    Attributes:
        count: How many there are.
        total: Their sum.
        least, greatest: The extremes; 0 of none.
    """

    def __init__(self) -> None:
        self._counts: Counter[float] = Counter()
        self.count = 0
        self.total = 0.0
        self.least = math.inf
        self.greatest = -math.inf

    def add(self, value: float, times: int = 1) -> None:
        """Counts a value."""
        is_short = -10_000 < value < 10_000 and value == int(value)
        self._counts[float(value) if is_short else float(f"{value:.4g}")] += times
        self.count += times
        self.total += value * times
        if value < self.least:
            self.least = value
        if value > self.greatest:
            self.greatest = value

    @property
    def mean(self) -> float:
        """The mean; there is at least one value."""
        return self.total / self.count

    def percentile(self, percent: float) -> float:
        """Returns the least value that at least ``percent`` per cent of the values do not exceed (nearest rank)."""
        left = max(1, math.ceil(self.count * percent / 100))
        found = self.least
        for value, times in sorted(self._counts.items()):
            found, left = value, left - times
            if left <= 0:
                break
        return min(max(found, self.least), self.greatest)

    def count_of(self, value: float) -> int:
        """Returns how often a value of at most four digits occurs."""
        return self._counts[value]

    def to_json(self) -> dict[str, Any]:
        """Returns the figures by name; ``None`` stands for those of no values."""
        known = self.count > 0
        return {
            "count": self.count,
            "sum": self.total,
            "mean": self.mean if known else None,
            "min": self.least if known else None,
            **{f"p{percent}": self.percentile(percent) if known else None for percent in PERCENTILES},
            "max": self.greatest if known else None,
        }

    def bins(self) -> tuple[tuple[Bin, ...], int]:
        """Returns the bars of a histogram, and how many great values are left out of it.

        Where few values are far from all others, the bars end at the 99th percentile. Whole numbers get bars of whole
        numbers.
        """
        if not self.count:
            return (), 0
        least, top = self.least, self.percentile(99)
        if self.greatest - least <= 4 * (top - least):
            top = self.greatest
        width, bars = (top - least) / _MOST_BINS, _MOST_BINS
        whole = all(value.is_integer() for value in self._counts)
        if whole:
            width = max(1.0, math.ceil((top - least + 1) / _MOST_BINS))
            bars = int((top - least) / width) + 1
        elif width == 0:
            width, bars = abs(top) or 1.0, 1
        heights = [0] * bars
        left_out = 0
        for value, times in self._counts.items():
            if value > top and top < self.greatest:
                left_out += times
            else:
                heights[max(0, min(int((value - least) / width), bars - 1))] += times
        first = least - 0.5 if whole else least  # so that the bar of a whole number has it in its middle
        edges = [first + place * width for place in range(bars + 1)]
        return tuple(map(Bin, edges, edges[1:], heights)), left_out
