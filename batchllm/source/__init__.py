"""Rows out of a file: CSV and JSONL, streamed, exact, and checked whole before anything is paid.

A file is read once by ``check`` (structure, encoding, columns, count, hash) and again by every ``rows``.
Nothing is guessed: what cannot be read as what it claims to be is an ``InputError`` with the line, the
reason and what to do.
"""

from pathlib import Path

from batchllm.source.delimited import CsvSource
from batchllm.source.format import Format, detect
from batchllm.source.jsonl import JsonlSource, WrittenNumber
from batchllm.source.reading import Source
from batchllm.source.spool import spool
from batchllm.source.statistics import InputStatistics

__all__ = ["Format", "InputStatistics", "Source", "WrittenNumber", "open_source", "spool"]


def open_source(
    path: Path,
    *,
    format: str | None = None,  # noqa: A002 - the word of the command line
    delimiter: str | None = None,
    encoding: str | None = None,
    name: str | None = None,
) -> Source:
    """Open a CSV or JSONL file.

    Args:
        path: A regular file; it is read more than once.
        format: ``csv``, ``tsv``, ``jsonl`` or ``ndjson``; by default the suffix decides, and for a path
            without one (spooled stdin) a first character ``{`` means JSONL.
        delimiter: One character, or ``tab``; by default found in the header.
        encoding: A codec of Python; by default UTF-8, or what a byte-order mark says.
        name: What messages call the file, where that is not the path (``stdin``).

    Raises:
        UsageError: An option makes no sense.
        InputError: The file cannot be opened, or its beginning cannot be read.
    """
    called = name or str(path)
    found = detect(path, called, kind=format, delimiter=delimiter, encoding=encoding)
    if found.kind == "csv":
        return CsvSource(path, found, called)
    return JsonlSource(path, found, called)
