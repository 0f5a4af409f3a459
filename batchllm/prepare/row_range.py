"""A range of the rows of an input as the input of a run: a shard."""

import hashlib
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from batchllm.errors import InputError
from batchllm.formats import Columns, InputStatistics, Source
from batchllm.formats.kinds import Kind
from batchllm.records import Row


@dataclass(frozen=True, slots=True)
class RowRange:
    """Contiguous rows of an input.

    Attributes:
        first_row: The first one, from 0.
        rows: How many.
        input_sha256: The hash that the input must have, in hexadecimal; ``None`` for any.
        sha256: The hash that the rows must have (``digest_of``); ``None`` for any.
        has_worked: Other rows of the job have been answered, so a refusal of all of these is about them, and not about
            key, model or URL.
        input_kinds: The kinds of the input's columns as all its rows decide them; ``None``: these rows do.
        as_text: Added columns that are text, whatever their kind.
    """

    first_row: int
    rows: int
    input_sha256: str | None = None
    sha256: str | None = None
    has_worked: bool = False
    input_kinds: Mapping[str, Kind] | None = None
    as_text: frozenset[str] = frozenset()

    def columns(self, columns: Columns) -> Columns:
        """Returns the columns of an output with the kinds that these rows share with others."""
        kinds = {**columns.kinds, **dict.fromkeys(self.as_text, str)}
        return replace(columns, input_kinds=self.input_kinds, kinds=kinds)

    def restrict(self, source: Source, statistics: InputStatistics) -> InputStatistics:
        """Restricts a source to these rows; what the scan found of columns and texts stays that of the whole input.

        Args:
            source: The input, scanned.
            statistics: What the scan found.

        Returns:
            The statistics of the rows.

        Raises:
            InputError: It is not the input that the hashes are of.
        """
        same = self.input_sha256 in (None, statistics.sha256)
        source.restrict(range(self.first_row, self.first_row + self.rows), statistics.sha256)
        if not same or (self.sha256 is not None and digest_of(source, source.rows()) != self.sha256):
            raise InputError(
                source.name,
                f"on {platform.node()} it is not the input of the plan; copy it there, or share it",
            )
        return replace(statistics, rows=self.rows, bad_rows=0)


def digest_of(source: Source, rows: Iterable[Row]) -> str:
    """Returns the hash of rows: of their columns and values, in hexadecimal."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(source.json_object(row, {}) + b"\n")
    return digest.hexdigest()
