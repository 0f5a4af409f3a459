"""Matches the rows of several outputs: by the columns that their prompts read, equal rows by their order."""

from collections import deque
from collections.abc import Iterator, Sequence

from batchllm.evaluate.answered import AnsweredRows, Values
from batchllm.evaluate.values import shown

Key = tuple[str, ...]


def matching_columns(outputs: Sequence[AnsweredRows]) -> tuple[str, ...]:
    """Returns the columns whose values tell rows apart; none where rows can only be matched by their order.

    These are the columns that every output has and some prompt reads. Where it is unknown what prompts read,
    they are the columns that all outputs have beside their answers.
    """
    shared = [name for name in outputs[0].own_columns if all(name in other.own_columns for other in outputs)]
    read = frozenset().union(*(output.prompt_columns or () for output in outputs))
    return tuple(name for name in shared if name in read) or tuple(shared)


class RowMatcher:
    """Reads outputs side by side; rows that are not in the same place wait for each other in memory.

    Args:
        outputs: Two or more outputs.
        columns: The columns that tell rows apart.

    Attributes:
        unmatched: For each output, the rows that another one lacks; right after ``matches`` has ended.
    """

    def __init__(self, outputs: Sequence[AnsweredRows], columns: Sequence[str]) -> None:
        self._outputs = outputs
        self._columns = columns
        self.unmatched = [0] * len(outputs)

    def matches(self) -> Iterator[tuple[int, tuple[Values, ...]]]:
        """Yields the rows that are in all outputs: the index in the first one, and the row of each."""
        waiting: list[dict[Key, deque[tuple[int, Values]]]] = [{} for _ in self._outputs]
        streams = [enumerate(output.read()) for output in self._outputs]
        running = True
        while running:
            running = False
            arrived: dict[Key, None] = {}
            for stream, held in zip(streams, waiting, strict=True):
                found = next(stream, None)
                if found is None:
                    continue
                running = True
                key = self._key(found)
                arrived[key] = None
                held.setdefault(key, deque()).append(found)
            for key in arrived:
                while all(key in held for held in waiting):
                    rows = [held[key].popleft() for held in waiting]
                    for held in waiting:
                        if not held[key]:
                            del held[key]
                    yield rows[0][0], tuple(row for _, row in rows)
        self.unmatched = [sum(map(len, held.values())) for held in waiting]

    def _key(self, found: tuple[int, Values]) -> Key:
        index, row = found
        return tuple(shown(row.get(name)) for name in self._columns) if self._columns else (str(index),)


def short_names(outputs: Sequence[AnsweredRows]) -> list[str]:
    """Returns a name for each output that tells it from the others: that of the file, or its whole path."""
    bare = [output.name.rstrip("/").rpartition("/")[2] for output in outputs]
    if len(set(bare)) == len(bare):
        return bare
    whole = [output.name for output in outputs]
    return whole if len(set(whole)) == len(whole) else [f"{n} ({i})" for i, n in enumerate(whole, 1)]
