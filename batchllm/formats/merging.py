"""Several files of rows written as one, in order: byte for byte where all of them are text of one format."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from batchllm.errors import InputError
from batchllm.formats.columns import Columns
from batchllm.formats.files import output_target
from batchllm.formats.format import Source
from batchllm.formats.json_text import json_bytes, parse_object
from batchllm.formats.registry import output_format
from batchllm.formats.scan import InputStatistics
from batchllm.formats.several import SeveralSource
from batchllm.formats.suffixes import format_suffix
from batchllm.formats.text import TextSource
from batchllm.records import Row


def write_merged(sources: Sequence[Source], statistics: Sequence[InputStatistics], path: Path) -> None:
    """Writes the rows of several files into one.

    Args:
        sources: The files, scanned, in order; their columns are equal, or they are JSONL.
        statistics: What the scan of each file found.
        path: Where the output appears, all at once. Its suffix decides the format.

    Raises:
        CannotWrite: The output cannot be created, or there is no room.
        StorageFailure: The disk reported an error.
        InputError: A file changed meanwhile.
    """
    suffix = format_suffix(path)
    with output_target(path) as target:
        if (texts := _alike(sources, suffix)) is not None:
            for data in _joined(texts):
                target.write(data)
        else:
            is_mixed = len({source.kind for source in sources}) > 1
            merged = (_MixedSource if is_mixed else SeveralSource)("the outputs", sources)
            merged.unite(statistics)
            columns = Columns(merged.columns, (), (), ())
            writer = output_format(path).opened_writer(target, merged, columns, suffix)
            for row in merged.rows():
                writer.add(row, {})
            writer.finish()
        target.finish()
        target.commit()


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


class _MixedSource(SeveralSource):
    """Files of several formats, as JSON objects whose members have one type in the rows of all files.

    CSV has text alone, and other formats have text for lists. Such text becomes what the rows with more types say that
    the column holds; an empty cell becomes null where they have null, and no empty text.
    """

    def unite(self, found: Sequence[InputStatistics]) -> None:
        """Unites the columns, and finds out what they hold; see ``SeveralSource``."""
        super().unite(found)
        kinds = {part.source.kind for part in self.parts}
        self._telling = "jsonl" if "jsonl" in kinds else next((kind for kind in kinds if kind != "csv"), "")
        self._seen: dict[str, set[type]] = {}
        self._has_empty: set[str] = set()
        for part in self.parts:
            if part.source.kind != self._telling:
                continue
            for row in part.source.rows():
                for name, value in row.values.items():
                    self._seen.setdefault(name, set()).add(_type_of(value))
                    if value == "":
                        self._has_empty.add(name)
            part.source.release()

    def json_object(self, row: Row, further: Mapping[str, Any], names: Sequence[str] | None = None) -> bytes:
        """Returns a row as its file has it, its text with the types of other files; see ``Source``."""
        written = super().json_object(row, further, names)
        if row.origin.part.source.kind == self._telling:
            return written
        values = parse_object(written)
        for name, value in values.items():
            if isinstance(value, str):
                values[name] = self._typed(name, value)
        return json_bytes(values)

    def _typed(self, name: str, text: str) -> Any:
        seen = self._seen.get(name, set())
        if not text:
            return None if type(None) in seen and name not in self._has_empty else text
        if str in seen or not seen:
            return text
        try:
            value = parse_object(b'{"value":%b}' % text.encode())["value"]
        except ValueError:
            return text
        return value if _type_of(value) in seen else text


def _type_of(value: Any) -> type:
    """Returns the type of a value; that of every number is ``float``."""
    return float if isinstance(value, int | float) and not isinstance(value, bool) else type(value)


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
