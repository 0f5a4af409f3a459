"""Several files of rows written as one, in order: byte for byte where all of them are text of one format."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from batchllm.errors import InputError
from batchllm.formats.columns import Columns
from batchllm.formats.files import output_target
from batchllm.formats.format import Source
from batchllm.formats.registry import output_format
from batchllm.formats.scan import InputStatistics
from batchllm.formats.several import SeveralSource
from batchllm.formats.suffixes import format_suffix
from batchllm.formats.text import TextSource


def write_merged(sources: Sequence[Source], statistics: Sequence[InputStatistics], path: Path) -> None:
    """Writes the rows of several files into one.

    Args:
        sources: The files, scanned, in order; see ``check_alike``.
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
            merged = SeveralSource("the outputs", sources)
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


def check_alike(sources: Sequence[Source]) -> None:
    """Makes sure that files have one format and the same columns; of JSONL each row may have its own.

    Raises:
        InputError: They have not.
    """
    first = sources[0]
    for source in sources[1:]:
        if source.kind != first.kind:
            raise InputError(
                source.name,
                f"is {source.kind.upper()}, and {first.name} is {first.kind.upper()}; merge outputs of one format"
                " (batchllm export writes an output in another one)",
            )
        if source.kind == "jsonl" or source.columns == first.columns:
            continue
        own = [name for name in source.columns if name not in first.columns]
        missing = [name for name in first.columns if name not in source.columns]
        more = f"it has {', '.join(map(repr, own))} more" if own else ""
        fewer = f"it lacks {', '.join(map(repr, missing))}" if missing else ""
        reason = " and ".join(filter(None, (more, fewer))) or "they are in another order"
        raise InputError(source.name, f"its columns are not those of {first.name}: {reason}")
