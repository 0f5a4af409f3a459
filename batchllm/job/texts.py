"""Where the texts of rows are: in the rows, in documents that are the input, or in files that a column names."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from batchllm.errors import UsageError
from batchllm.formats import SUFFIXES, format_named
from batchllm.formats.documents import FILE
from batchllm.formats.suffixes import format_suffix

if TYPE_CHECKING:
    from batchllm.job.record import Job


def are_documents(inputs: Sequence[Path], input_format: str | None) -> bool:
    """Returns whether the inputs are documents, by their suffixes; of a folder, by those of the files in it.

    Raises:
        UsageError: Some are documents, and others tables.
    """
    if input_format is not None:
        return format_named(input_format).documents
    kinds = {is_document for path in inputs for is_document in _kinds_in(path)}
    if len(kinds) > 1:
        raise UsageError("documents and tables cannot be one input; name the files of one kind")
    return kinds == {True}


def _kinds_in(path: Path) -> Iterator[bool]:
    try:
        paths = path.iterdir() if path.is_dir() else iter((path,))
        suffixes = {format_suffix(each) for each in paths if not each.name.startswith(".")}
    except OSError:  # opening it says what is wrong
        return
    for suffix in suffixes & set(SUFFIXES):
        yield format_named(suffix[1:]).documents


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


def check_texts(job: "Job") -> None:
    """Refuses what does not go together with texts in files; raises ``UsageError``."""
    if job.text_from is None:
        return
    is_document = are_documents(job.inputs, job.input_format)
    called = "a document as input" if is_document else "--text-from"
    if not is_document and job.media_root is None:
        raise UsageError("--text-from reads files, and --media-root DIR says where they may be; add it")
    if job.column is not None:
        raise UsageError(
            f"--column names a text in the rows, and with {called} the text is in a file; leave one out"
        )
    if job.conversation is not None:
        raise UsageError(f"--conversation does not go together with {called}")
    if job.per_row:
        raise UsageError(f"{called}: rows that bring their own requests have their texts in them")
