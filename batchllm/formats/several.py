"""Several files as one input: their rows one file after the other, their columns united.

Each file is a source of its own, with its own format and dialect. The united columns are those of all files in order of
first appearance. A column that a file does not have is empty in its rows: an empty cell of CSV, an absent member of
JSON. A row's ``origin`` is the number of its file and the row of that file's own source.

One file is open at a time.
"""

import hashlib
import random
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from batchllm.errors import InputError, listed
from batchllm.formats.arrow_schema import united_schema
from batchllm.formats.format import Source, changed
from batchllm.formats.input_file import LocalFile
from batchllm.formats.json_text import json_bytes
from batchllm.formats.scan import SAMPLE_ROWS, InputStatistics
from batchllm.printable import counted
from batchllm.records import Row

_MOST_NOTES = 8
_CSV = {"encoding": "utf-8", "quote": '"'}


@dataclass(frozen=True, slots=True)
class InputPart:
    """One file of several.

    Attributes:
        number: Its position among them, from 0.
        source: Its rows.
        begin: The position of its first row in the whole input.
        rows: How many rows it has.
        bad_rows: Its records that were left out.
        sha256: Hash of its bytes, in hexadecimal digits.
        absent: The united columns that it does not have, with what stands for them in its rows.
    """

    number: int
    source: Source
    begin: int
    rows: int
    bad_rows: int
    sha256: str
    absent: Mapping[str, Any]


class _Origin(NamedTuple):
    part: InputPart
    row: Row


class SeveralSource(Source):
    """Several files; ``columns`` and ``parts`` are known after ``scan`` or ``unite``.

    Args:
        name: What messages call them together.
        sources: The files, in order; one at a time is held in memory, where a format has to.
        notes: What to say about their choice.
        fills: A row's values have the columns that its file does not have, empty.

    Attributes:
        parts: The files.
    """

    def __init__(
        self,
        name: str,
        sources: Iterable[Source],
        notes: tuple[str, ...] = (),
        *,
        fills: bool = True,
    ) -> None:
        super().__init__(LocalFile(Path(), name))
        self._sources: list[Source] = []
        for source in sources:
            source.release()
            self._sources.append(source)
        self.kind = self._common_kind()
        self.has_kinds = any(source.has_kinds for source in self._sources)
        self.notes = notes
        self._fills = fills
        self.parts: tuple[InputPart, ...] = ()
        self._begins: list[int] = []
        self._present: tuple[InputPart | None, Sequence[str], list[str]] = (None, (), [])

    def close(self) -> None:
        """Closes every file; see ``Source``."""
        for source in self._sources:
            source.close()

    def _common_kind(self) -> str:
        kinds = dict.fromkeys(source.kind for source in self._sources)
        return "jsonl" if len(kinds) > 1 and "jsonl" in kinds else next(iter(kinds))

    def scan(self) -> InputStatistics:
        """Reads every file once; see ``Source``."""
        sample = _Sample()
        found: list[InputStatistics] = []
        for source in self._sources:
            statistics = source.scan()
            source.release()
            sample.merge([(source, row) for row in statistics.sample], statistics.rows)
            found.append(replace(statistics, sample=()))
        self.unite(found)
        self.notes = (*self.notes, *self._notes_of_parts(), *self._notes_of_columns())
        of_source = {id(part.source): part for part in self.parts}
        drawn = sorted((self._row(of_source[id(source)], row) for source, row in sample.items), key=_by_index)
        return InputStatistics(
            sum(each.rows for each in found),
            sum(each.bytes for each in found),
            _hash_of([each.sha256 for each in found]),
            self.columns,
            tuple(drawn),
            sum(each.bad_rows for each in found),
            tuple(found),
        )

    def place_of(self, row: int) -> Any:
        """Returns the file of a row, and the place in it; see ``Source``."""
        part = self._part_of(row)
        return [part.number, part.source.place_of(row - part.begin)]

    def recall(self, statistics: InputStatistics, place: Any) -> None:
        """Takes what is known of each file; see ``Source``."""
        number, own = place
        if len(statistics.parts) != len(self._sources):
            raise InputError(
                self.name, f"there are {len(self._sources)} files, and not {len(statistics.parts)}"
            )
        for other, (source, found) in enumerate(zip(self._sources, statistics.parts, strict=True)):
            source.base = self.base
            source.recall(found, own if other == number else None)
        self.unite([replace(found, bad_rows=0) for found in statistics.parts])

    def unite(self, found: Sequence[InputStatistics]) -> None:
        """Unites the columns of files that are scanned.

        Args:
            found: What the scan of each file found.
        """
        self.columns = tuple(dict.fromkeys(name for each in found for name in each.columns))
        self._begins = [*accumulate((each.rows for each in found[:-1]), initial=0)]
        self.parts = tuple(
            InputPart(
                number, source, begin, it.rows, it.bad_rows, it.sha256, self._absent(source, it.columns)
            )
            for number, (source, it, begin) in enumerate(zip(self._sources, found, self._begins, strict=True))
        )
        self.layout = self._common_layout()

    def _absent(self, source: Source, own: Sequence[str]) -> Mapping[str, Any]:
        empty, known = "" if source.kind == "csv" else None, set(own)
        return dict.fromkeys((name for name in self.columns if name not in known), empty)

    def _common_layout(self) -> Any:
        """How all files are written, where they are written alike."""
        layouts = [part.source.layout for part in self.parts]
        alike = {layout and replace(layout, final_newline=True) for layout in layouts}
        return layouts[-1] if len(alike) == 1 else None

    def _notes_of_parts(self) -> list[str]:
        found = [f"{part.source.name}: {note}" for part in self.parts for note in part.source.notes]
        more = len(found) - _MOST_NOTES
        return [*found[:_MOST_NOTES], f"{counted(more, 'more note')} of this kind"] if more > 0 else found

    def _notes_of_columns(self) -> Iterator[str]:
        """Says which columns are missing where; those that the same files lack together."""
        without: dict[tuple[int, ...], list[str]] = {}
        for name in self.columns:
            if numbers := tuple(part.number for part in self.parts if name in part.absent):
                without.setdefault(numbers, []).append(name)
        for shown, (numbers, names) in enumerate(without.items()):
            if shown == _MOST_NOTES:
                yield f"{counted(len(without) - shown, 'more group')} of columns are missing in some files"
                return
            verb = "is" if len(names) == 1 else "are"
            where = listed([self.parts[number].source.name for number in numbers[:3]])
            more = f" and {counted(len(numbers) - 3, 'more file')}" if len(numbers) > 3 else ""
            yield f"{listed(names)} {verb} missing in {where}{more}"

    def rows(self, start: int = 0) -> Iterator[Row]:
        """Streams the rows of all files; see ``Source``."""
        self._digest = None
        digests = []
        for part in self.parts[self._part_of(start).number :]:
            begin = max(0, start - part.begin)
            count = 0
            for row in part.source.rows(begin):
                count += 1
                yield self._row(part, row)
            if begin + count != max(begin, part.rows):
                raise changed(part.source.name)
            digests.append(part.source.digest() if not begin else "")
            part.source.release()
        if start == 0:
            self._digest = _hash_of(digests)

    def _part_of(self, row: int) -> InputPart:
        return self.parts[max(0, bisect_right(self._begins, row) - 1)]

    def _row(self, part: InputPart, row: Row) -> Row:
        values = {**row.values, **part.absent} if part.absent and self._fills else row.values
        return Row(part.begin + row.index, row.line, values, _Origin(part, row))

    def sampled(self, row: Row) -> Row:
        """Returns a row without what its file would keep; see ``Source``."""
        part, own = _origin_of(row)
        return self._row(part, part.source.sampled(own))._replace(index=row.index)

    def reading(self) -> str:
        """Returns what rows depend on beside the bytes of the files; see ``Source``."""
        return _hash_of([part.source.reading() for part in self.parts])

    def file_of(self, row: Row) -> str:
        """Returns the file of a row; see ``Source``."""
        part, own = _origin_of(row)
        return part.source.file_of(own)

    def header(self, names: Sequence[str]) -> list[str]:
        """Returns the names of columns as the first file writes them, where all files have the same columns."""
        if any(part.source.columns != self.columns for part in self.parts):
            return list(names)
        return self.parts[0].source.header(names)

    def cells(self, row: Row, names: Sequence[str]) -> list[str]:
        """Returns cells as they stand in the row's file; see ``Source``."""
        part, own = _origin_of(row)
        if not part.absent and part.source.columns == names:
            return part.source.cells(own, names)
        present = self._names_in(part, names)
        found = dict(zip(present, part.source.cells(own, present), strict=True))
        return [found.get(name, "") for name in names]

    def typed_cells(self, row: Row, names: Sequence[str]) -> Sequence[Any]:
        """Returns values with their types; see ``Source``."""
        part, own = _origin_of(row)
        present = self._names_in(part, names)
        found = dict(zip(present, part.source.typed_cells(own, present), strict=True))
        return [found.get(name) for name in names]

    def arrow_schema(self) -> Any:
        """Returns the schema that holds the columns of all files; see ``Source``."""
        schemas = [part.source.arrow_schema() for part in self.parts]
        return united_schema(self.columns, [part.source.columns for part in self.parts], schemas)

    def arrow_origin(self, row: Row) -> Any:
        """Returns where a row is in its file; see ``Source``."""
        part, own = _origin_of(row)
        return part.source.arrow_origin(own)

    def json_object(self, row: Row, further: Mapping[str, Any], names: Sequence[str] | None = None) -> bytes:
        """Returns a row as its file has it, with further members; see ``Source``."""
        part, own = _origin_of(row)
        if names is None:
            return part.source.json_object(own, further)
        return part.source.json_object(own, further, self._names_in(part, names))

    def _names_in(self, part: InputPart, names: Sequence[str]) -> Sequence[str]:
        """Those of the names that a file has."""
        known_part, known_names, present = self._present
        if known_part is not part or known_names is not names:
            present = [name for name in names if name not in part.absent]
            self._present = (part, names, present)
        return present

    def size_of(self, row: Row) -> int | None:
        """Returns about how many bytes of its file a row takes; see ``Source``."""
        part, own = _origin_of(row)
        return part.source.size_of(own)

    def describe(self) -> str:
        """Returns how many files there are, how they are written, and the notes."""
        kinds = dict.fromkeys(source.kind for source in self._sources)
        count = counted(len(self._sources), "file")
        notes = (note for note in self.notes if note != count)
        return ", ".join((count, " and ".join(kinds), *notes))

    def kept_options(self, suffix: str) -> dict[str, str]:
        """Returns the options that all files have in common, else the usual ones; see ``Source``."""
        own = [part.source.kept_options(suffix) for part in self.parts if part.source.kind == self.kind]
        if own and len(own) == len(self.parts) and all(options == own[0] for options in own):
            return own[0]
        return {**_CSV, "delimiter": "\t" if suffix == ".tsv" else ","} if self.kind == "csv" else {}


def _origin_of(row: Row) -> _Origin:
    origin: _Origin = row.origin
    return origin


def _by_index(row: Row) -> int:
    return row.index


def _hash_of(texts: Sequence[str]) -> str:
    return hashlib.sha256(json_bytes(list(texts))).hexdigest()


class _Sample:
    """An even sample of rows, put together of even samples of files.

    Attributes:
        items: The rows drawn so far.
    """

    def __init__(self) -> None:
        self.items: list[tuple[Source, Row]] = []
        self._rows = 0
        self._random = random.Random(0)

    def merge(self, others: list[tuple[Source, Row]], rows: int) -> None:
        """Adds the sample of a file with so many rows."""
        every = range(self._rows + rows)
        drawn = self._random.sample(every, min(SAMPLE_ROWS, len(every)))
        before = sum(index < self._rows for index in drawn)
        self.items = [
            *self._random.sample(self.items, before),
            *self._random.sample(others, len(drawn) - before),
        ]
        self._rows += rows
