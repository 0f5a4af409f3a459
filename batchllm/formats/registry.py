"""The formats, and which one a file has."""

from pathlib import Path
from typing import Any

from batchllm.errors import InputError, UsageError
from batchllm.formats import csv, documents, excel, jsonl, parquet, sqlite
from batchllm.formats.compression import unpacked
from batchllm.formats.content import foreign_text, refuse_foreign
from batchllm.formats.encodings import BYTE_ORDER_MARKS, marked_codec
from batchllm.formats.files import input_file
from batchllm.formats.format import Format, Source
from batchllm.formats.input_file import InputFile
from batchllm.formats.suffixes import format_suffix
from batchllm.stores import ObjectPath

FORMATS: tuple[Format, ...] = (
    csv.FORMAT,
    jsonl.FORMAT,
    parquet.FORMAT,
    excel.FORMAT,
    sqlite.FORMAT,
    *documents.FORMATS,
)
"""Every format; the first one is that of content which nothing else tells."""

_BY_SUFFIX = {suffix: form for form in FORMATS for suffix in form.suffixes}
SUFFIXES = tuple(_BY_SUFFIX)
"""The suffixes of all formats: ``.csv`` …"""

INPUT_FORMATS = tuple(suffix.removeprefix(".") for suffix in SUFFIXES)
"""The values of ``--input-format``."""


WRITTEN_SUFFIXES = tuple(suffix for form in FORMATS for suffix in form.written_suffixes)
"""The suffixes that an output can have."""

_OTHER_WORKBOOKS = frozenset({".xlsb", ".numbers"})


def format_named(name: str) -> Format:
    """Returns the format that ``--input-format`` names (``csv``, ``tsv``, …).

    Raises:
        UsageError: There is none.
    """
    if f".{name}" not in _BY_SUFFIX:
        raise UsageError(f"there is no format {name!r}; the formats are {', '.join(INPUT_FORMATS)}")
    return _BY_SUFFIX[f".{name}"]


def format_of(path: Path, name: str | None = None) -> Format:
    """Returns the format of an input by its suffix.

    Args:
        path: The file.
        name: What messages call it, where that is not the path.

    Raises:
        UsageError: The suffix is that of no format.
    """
    suffix = format_suffix(path)
    form = _BY_SUFFIX.get(suffix)
    if form is None and path.is_dir():
        raise UsageError(f"{name or path}: is a folder; name a file in it")
    if form is None and suffix in _OTHER_WORKBOOKS:
        raise UsageError(f"{name or path}: workbooks of this kind are not read; save it as .xlsx")
    if form is None and suffix == ".json":
        raise UsageError(
            f"{name or path}: with one object a line it is JSONL, so add --input-format jsonl; of one array make "
            "JSONL first (jq -c '.[]' FILE > FILE.jsonl)"
        )
    if form is None:
        names = " or ".join(form.name for form in FORMATS)
        is_missing = not suffix and not isinstance(path, ObjectPath) and not path.exists()
        missing = "there is no such file or folder, and " if is_missing else ""
        raise UsageError(
            f"{name or path}: {missing}the suffix {suffix!r} names no format; add --input-format {names}"
        )
    form.check_libraries(name or path)
    return form


def output_format(path: Path) -> Format:
    """Returns the format of an output by its suffix.

    Raises:
        UsageError: The suffix is that of no format that can be written.
    """
    if format_suffix(path) not in WRITTEN_SUFFIXES:
        raise UsageError(
            f"{path}: the suffix of an output decides its format; use {', '.join(WRITTEN_SUFFIXES)}"
        )
    return format_of(path)


def output_kind(kind: str) -> str:
    """Returns the name of the format in which rows of a format are written, where no suffix says it."""
    form = format_named(kind)
    return form.name if form.output is None else _BY_SUFFIX[form.output].name


def open_source(
    path: Path | InputFile,
    *,
    format: str | None = None,  # noqa: A002 - the word of the command line
    name: str | None = None,
    **options: Any,
) -> Source:
    """Opens a file of rows.

    Args:
        path: A regular file, which may be compressed, or an input from elsewhere; it is read more than once.
        format: One of ``INPUT_FORMATS``; by default the suffix decides, and for a path without one (spooled
            standard input) the first bytes.
        name: What messages call the file, where that is not the path.
        options: What the format needs to know beyond the file itself, ``None`` to find it there: ``delimiter``
            of CSV (one character, or ``tab``), ``encoding`` of text (a codec of Python); see the format.

    Raises:
        UsageError: An option makes no sense.
        InputError: The file cannot be opened, or its beginning cannot be read.
    """
    found = path if isinstance(path, InputFile) else input_file(path, name or str(path))
    suffix = format_suffix(found.path)
    file = unpacked(found, suffix_decides=format is None and bool(found.path.suffix))
    try:
        return _opened(
            file, format, suffix, {name: value for name, value in options.items() if value is not None}
        )
    except InputError:
        file.check_whole()
        raise


def _opened(file: InputFile, named: str | None, suffix: str, given: dict[str, Any]) -> Source:
    head, tail, _ = file.ends()
    form = _format(file, named, head)
    if not form.documents:
        refuse_foreign(file.name, head, tail, form.magic)
    form.check_libraries(file.name)
    if named is not None and (suffix not in form.suffixes or named != form.name):
        suffix = f".{named}"
    for option in given:
        if option not in form.options:
            understood = " and ".join(other.title for other in FORMATS if option in other.options)
            raise UsageError(
                f"--{option.replace('_', '-')} is for {understood}, and {file.name} is {form.title};"
                " leave the option out"
            )
    if form.magic or form.documents:
        return form.source(file, suffix, **given)
    bom, codec = marked_codec(file.name, head, given.get("encoding"))
    foreign = foreign_text(head[len(bom) :].decode(codec, "ignore"), form.name)
    if foreign is not None:
        raise InputError(file.name, foreign)
    return form.source(file, suffix, **given)


def _format(file: InputFile, name: str | None, head: bytes) -> Format:
    if name is not None:
        return format_named(name)
    if format_suffix(file.path):
        return format_of(file.path, file.name)
    mark = next((mark for mark, _ in BYTE_ORDER_MARKS if head.startswith(mark)), b"")
    content = head[len(mark) :].replace(b"\0", b"").lstrip()
    known = (form for form in FORMATS if form.begins_with and content.startswith(form.begins_with))
    return next(known, FORMATS[0])
