"""What one pass over the whole input found, and the fair sample taken on the way."""

import math
import random
from dataclasses import dataclass
from typing import Generic, TypeVar

from batchllm.records import Row

SAMPLE_ROWS = 100

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class InputStatistics:
    """What ``check`` found out about a file.

    Attributes:
        rows: Records, the header not counted.
        bytes: Size of the file.
        sha256: Hash of its bytes, in hexadecimal digits.
        columns: Names in order; for JSONL every key of any row, in the order of first sight.
        sample: About 100 rows drawn evenly from the whole file with a fixed seed, in input order.
    """

    rows: int
    bytes: int
    sha256: str
    columns: tuple[str, ...]
    sample: tuple[Row, ...]


class Reservoir(Generic[Item]):
    """An even sample of a stream of unknown length, at next to no cost for the items left out.

    Li, "Reservoir-sampling algorithms of time complexity O(n(1 + log(N/n)))" (1994), algorithm L: it draws
    how many items to pass over instead of one number per item.

    Attributes:
        wanted: Index of the next item to hand to ``take``; the ones before it can be passed over.
    """

    def __init__(self, size: int = SAMPLE_ROWS, seed: int = 0) -> None:
        self._size = size
        self._random = random.Random(seed)
        self._weight = 1.0
        self._items: list[Item] = []
        self.wanted = 0

    def take(self, item: Item) -> None:
        """Keep the item whose index is ``wanted``, in place of another once the reservoir is full."""
        if len(self._items) < self._size:
            self._items.append(item)
        else:
            self._items[self._random.randrange(self._size)] = item
        if len(self._items) < self._size:
            self.wanted += 1
            return
        self._weight *= math.exp(math.log(1.0 - self._random.random()) / self._size)
        passed_over = math.log(1.0 - self._random.random()) / math.log1p(-self._weight)
        self.wanted += int(passed_over) + 1

    def items(self) -> list[Item]:
        """What was kept, in no order."""
        return self._items
