"""Where the texts of rows are: in the rows, in documents that are the input, or in files that a column names."""

import glob
from collections.abc import Sequence
from pathlib import Path

from batchllm.errors import UsageError
from batchllm.formats import SUFFIXES, format_named
from batchllm.formats.documents import FILE
from batchllm.formats.suffixes import format_suffix
from batchllm.job.paths import is_output, is_pattern
from batchllm.stores import ObjectPath


def is_document(path: Path) -> bool:
    """Returns whether a file is a document, by its suffix."""
    return format_suffix(path) in _DOCUMENTS


def are_documents(inputs: Sequence[Path], input_format: str | None) -> bool:
    """Returns whether the inputs are documents, by their suffixes.

    A folder, or a pattern without a suffix, means the tables that are there, and documents where there is no table;
    outputs of jobs do not count.

    Raises:
        UsageError: Some are documents, and others tables.
    """
    if input_format is not None:
        return format_named(input_format).documents
    kinds = {kind for path in inputs if (kind := _kind_of(path)) is not None}
    if len(kinds) > 1:
        raise UsageError("documents and tables cannot be one input; name the files of one kind")
    return kinds == {True}


def _kind_of(path: Path) -> bool | None:
    """Whether an input means documents; ``None`` where that is not known."""
    if format_suffix(path) in SUFFIXES and not path.is_dir():
        return is_document(path)
    if isinstance(path, ObjectPath):
        return None
    try:
        found = map(Path, glob.glob(str(path), recursive=True)) if is_pattern(path) else path.iterdir()  # noqa: PTH207
        kinds = {
            is_document(each)
            for each in found
            if format_suffix(each) in SUFFIXES and not each.name.startswith(".") and not is_output(each)
        }
    except OSError:  # opening it says what is wrong
        return None
    return min(kinds, default=None)


_DOCUMENTS = frozenset(suffix for suffix in SUFFIXES if format_named(suffix[1:]).documents)


def text_from(named: str | None, inputs: Sequence[Path], input_format: str | None) -> str | None:
    """Returns the column that names the file with a row's text; ``None`` where rows have their texts.

    Args:
        named: The value of ``--text-from``.
        inputs: The inputs.
        input_format: Their format, ``None`` where each has its own.

    Raises:
        UsageError: The input cannot be read as documents.
    """
    if not are_documents(inputs, input_format):
        return named
    if not inputs:
        raise UsageError("a document is a file, and standard input is none; name the file")
    if named is not None:
        raise UsageError(
            f"--text-from: {inputs[0]} is a document, so its text is the row's; leave the option out"
        )
    return FILE
