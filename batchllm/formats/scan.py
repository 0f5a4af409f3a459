"""The statistics of an input, and the even sample that is drawn in the same pass."""

import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from batchllm.records import Row

SAMPLE_ROWS = 100

Item = TypeVar("Item", Row, int)


@dataclass(frozen=True, slots=True)
class InputStatistics:
    """What the first pass over an input found.

    Attributes:
        rows: Number of rows, the header not counted.
        bytes: Size of the file.
        sha256: Hash of its bytes, in hexadecimal digits.
        columns: Names in order; of JSONL every key of any row, in the order in which they first occur.
        sample: At most 100 rows drawn evenly from the whole file with a fixed seed, in input order.
        bad_rows: Records that were left out because they cannot be rows (``--bad-rows skip``).
        parts: Of several files, the statistics of each, without samples.
    """

    rows: int
    bytes: int
    sha256: str
    columns: tuple[str, ...]
    sample: tuple[Row, ...]
    bad_rows: int = 0
    parts: "tuple[InputStatistics, ...]" = ()


def counted_sample(
    rows: Iterable[Row], sampled: Callable[[Row], Row] = lambda row: row
) -> tuple[int, tuple[Row, ...]]:
    """Returns how many rows there are, whose indexes are from 0 on, and an even sample of them.

    Args:
        rows: The rows.
        sampled: Makes of a row what the sample keeps of it.
    """
    reservoir: Reservoir[Row] = Reservoir()
    count = 0
    for row in rows:
        count += 1
        if row.index == reservoir.wanted:
            reservoir.take(sampled(row))
    return count, reservoir.items()


class Reservoir(Generic[Item]):
    """Draws an even sample from a stream of unknown length.

    Algorithm L of Li, "Reservoir-sampling algorithms of time complexity O(n(1 + log(N/n)))" (1994), draws how many
    items to skip instead of one number per item.

    Attributes:
        wanted: Index of the next item to hand to ``take``; the ones before it are skipped.
    """

    def __init__(self, size: int = SAMPLE_ROWS, seed: int = 0) -> None:
        self._size = size
        self._random = random.Random(seed)
        self._weight = 1.0
        self._items: list[Item] = []
        self._offered = 0
        self.wanted = 0

    def offer(self, item: Item) -> None:
        """Takes the next item of the stream, or skips it."""
        if self._offered == self.wanted:
            self.take(item)
        self._offered += 1

    def take(self, item: Item) -> None:
        """Keeps the item whose index is ``wanted``, in place of another once the sample is full."""
        if len(self._items) < self._size:
            self._items.append(item)
        else:
            self._items[self._random.randrange(self._size)] = item
        if len(self._items) < self._size:
            self.wanted += 1
            return
        self._weight *= math.exp(math.log(1.0 - self._random.random()) / self._size)
        skipped = math.log(1.0 - self._random.random()) / math.log1p(-self._weight)
        self.wanted += int(skipped) + 1

    def items(self) -> tuple[Item, ...]:
        """Returns the sample in the order of the stream: rows are sorted by their index, which comes first in them."""
        return tuple(sorted(self._items))
