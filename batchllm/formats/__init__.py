"""File formats: rows are read out of a file, and written with their answers beside them.

``open_source`` opens a file, ``Source.scan`` reads it whole once (structure, encoding, columns, number of rows, hash)
and ``Source.rows`` streams it again as often as needed. What cannot be read as what it claims to be, or can
be read in two ways, is an ``InputError`` with the line, the reason and what to do. ``write_output`` keeps every cell of
the input as it was, and puts the output in place in one rename.

A new format is a module like ``csv`` or ``jsonl`` and a line in ``registry.FORMATS``.
"""

from batchllm.formats.columns import (
    ADDABLE,
    STANDARD,
    Columns,
    Outcome,
    kept_columns,
    plan_columns,
    written_name,
)
from batchllm.formats.encodings import is_narrow, text_codec
from batchllm.formats.format import Source
from batchllm.formats.input_file import spool
from batchllm.formats.json_text import WrittenNumber
from batchllm.formats.output import OutputStatistics, with_fitting_kinds, write_output, write_skipped
from batchllm.formats.output_file import AtomicFile, storage_error
from batchllm.formats.registry import (
    INPUT_FORMATS,
    SUFFIXES,
    WRITTEN_SUFFIXES,
    format_named,
    format_of,
    open_source,
    output_format,
    output_kind,
)
from batchllm.formats.scan import InputStatistics
from batchllm.formats.text import BAD_ROWS

__all__ = [
    "ADDABLE",
    "BAD_ROWS",
    "INPUT_FORMATS",
    "STANDARD",
    "SUFFIXES",
    "WRITTEN_SUFFIXES",
    "AtomicFile",
    "Columns",
    "InputStatistics",
    "Outcome",
    "OutputStatistics",
    "Source",
    "WrittenNumber",
    "format_named",
    "format_of",
    "is_narrow",
    "kept_columns",
    "open_source",
    "output_format",
    "output_kind",
    "plan_columns",
    "spool",
    "storage_error",
    "text_codec",
    "with_fitting_kinds",
    "write_output",
    "write_skipped",
    "written_name",
]
