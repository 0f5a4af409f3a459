"""Several files of rows written as one, in order: byte for byte where all of them are text of one format."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from batchllm.errors import InputError
from batchllm.formats.arrow_schema import united_schema
from batchllm.formats.columns import Columns
from batchllm.formats.files import output_target
from batchllm.formats.format import Source
from batchllm.formats.input_file import LocalFile
from batchllm.formats.output import OutputStatistics
from batchllm.formats.registry import output_format
from batchllm.formats.scan import InputStatistics
from batchllm.formats.suffixes import format_suffix
from batchllm.formats.text import TextSource
from batchllm.records import Row


class OneAfterTheOther(Source):
    """The rows of several sources, one source after the other. A row's origin is its source and its own row.

    Args:
        sources: The sources, scanned.
    """

    kind = "several"

    def __init__(self, sources: Sequence[Source]) -> None:
        super().__init__(LocalFile(Path(), "the outputs"))
        self._sources = sources
        self.columns = tuple(dict.fromkeys(name for source in sources for name in source.columns))

    def scan(self) -> InputStatistics:
        """Is not needed: the sources are scanned."""
        raise NotImplementedError

    def rows(self, start: int = 0) -> Iterator[Row]:
        """Streams all rows; see ``Source``."""
        index = 0
        for source in self._sources:
            for row in source.rows():
                if index >= start:
                    yield row._replace(index=index, origin=(source, row))
                index += 1

    def header(self, names: Sequence[str]) -> list[str]:
        """Returns the names as the first source writes them."""
        return self._sources[0].header(names) if names == self._sources[0].columns else list(names)

    def cells(self, row: Row, names: Sequence[str]) -> list[str]:
        """Returns the cells as the row's own source has them."""
        source, own = row.origin
        found = dict(zip(source.columns, source.cells(own, source.columns), strict=True))
        return [found.get(name, "") for name in names]

    def typed_cells(self, row: Row, names: Sequence[str]) -> Sequence[Any]:
        """Returns the typed cells as the row's own source has them."""
        source, own = row.origin
        found = dict(zip(source.columns, source.typed_cells(own, source.columns), strict=True))
        return [found.get(name) for name in names]

    def arrow_schema(self) -> Any:
        """Returns the schema that holds the columns of all sources; see ``Source``."""
        schemas = [source.arrow_schema() for source in self._sources]
        return united_schema(self.columns, [source.columns for source in self._sources], schemas)

    def arrow_origin(self, row: Row) -> Any:
        """Returns where a row is in its own source; see ``Source``."""
        source, own = row.origin
        return source.arrow_origin(own)

    def json_object(self, row: Row, further: Mapping[str, Any], names: Sequence[str] | None = None) -> bytes:
        """Returns the row as its own source writes it."""
        source, own = row.origin
        return bytes(source.json_object(own, further))


def write_merged(sources: Sequence[Source], path: Path) -> OutputStatistics:
    """Writes the rows of several files into one.

    Args:
        sources: The files, scanned, in order; their columns are equal, or they are JSONL.
        path: Where the output appears, all at once. Its suffix decides the format.

    Raises:
        CannotWrite: The output cannot be created, or there is no room.
        StorageFailure: The disk reported an error.
        InputError: A file changed meanwhile.
    """
    suffix, rows = format_suffix(path), 0
    with output_target(path) as target:
        if (texts := _alike(sources, suffix)) is not None:
            for data in _joined(texts):
                target.write(data)
        else:
            merged = OneAfterTheOther(sources)
            columns = Columns(merged.columns, (), (), ())
            writer = output_format(path).opened_writer(target, merged, columns, suffix)
            for row in merged.rows():
                writer.add(row, {})
                rows += 1
            writer.finish()
        target.finish()
        target.commit()
    return OutputStatistics(target.sha256(), target.size_bytes, rows)


def _alike(sources: Sequence[Source], suffix: str) -> list[TextSource] | None:
    """Returns the sources if they are text that is written alike, and as the output is to be; else ``None``."""
    texts = [source for source in sources if isinstance(source, TextSource)]
    if len(texts) < len(sources) or any(format_suffix(source.file.path) != suffix for source in texts):
        return None
    first = texts[0]
    alike = all(
        source.beginning() is not None
        and (source.layout.encoding, source.layout.bom) == (first.layout.encoding, first.layout.bom)
        and source.beginning().rstrip(b"\r\n") == (first.beginning() or b"").rstrip(b"\r\n")  # type: ignore[union-attr]
        for source in texts
    )
    return texts if alike else None


def _joined(texts: Sequence[TextSource]) -> Iterator[bytes]:
    """Yields the beginning of the first file, and the records of all."""
    newline = texts[0].layout.newline.encode(texts[0].layout.encoding)
    beginning = texts[0].beginning() or b""
    yield beginning
    has_end = beginning == texts[0].layout.bom or beginning.endswith(newline)
    for source in texts:
        left = len(source.beginning() or b"")
        tail = b""
        for chunk in source.file.chunks():
            data, left = chunk[left:], max(0, left - len(chunk))
            if data and not has_end:
                yield newline
            if data:
                has_end, tail = True, (tail + data)[-len(newline) :]
                yield data
        if tail:
            has_end = tail == newline


def check_columns(sources: Sequence[Source]) -> None:
    """Makes sure that files have the same columns; of JSONL each row may have its own.

    Raises:
        InputError: They have not.
    """
    first = sources[0]
    for source in sources[1:]:
        if source.kind == first.kind == "jsonl" or source.columns == first.columns:
            continue
        own = [name for name in source.columns if name not in first.columns]
        missing = [name for name in first.columns if name not in source.columns]
        if source.kind != first.kind and "jsonl" in (source.kind, first.kind) and not (own or missing):
            continue
        more = f"it has {', '.join(map(repr, own))} more" if own else ""
        fewer = f"it lacks {', '.join(map(repr, missing))}" if missing else ""
        reason = " and ".join(filter(None, (more, fewer))) or "they are in another order"
        raise InputError(source.name, f"its columns are not those of {first.name}: {reason}")
