"""How a file is written: kind, encoding, newline style, delimiter, found in its first and last bytes."""

import codecs
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from batchllm.errors import InputError, UsageError
from batchllm.source.encodings import byte_order_mark, describe_undecodable, unmarked_utf16

DELIMITERS = ",;\t|"
_HEAD_BYTES = 1 << 20
_KINDS = {"csv": "csv", "tsv": "csv", "jsonl": "jsonl", "ndjson": "jsonl"}
_FOREIGN = (
    (b"\x1f\x8b", "is compressed with gzip; unpack it first (zcat FILE | batchllm TASK -)"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd; unpack it first (zstdcat FILE | batchllm TASK -)"),
    (b"PK\x03\x04", "is a zip archive or an Excel workbook; save it as CSV"),
    (b"PAR1", "is a Parquet file; save it as CSV or JSONL"),
    (b"SQLite format 3\0", "is a SQLite database; export the table as CSV"),
)
_QUOTED = re.compile(r'"[^"]*(?:"|\Z)')
_NEWLINE = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class Format:
    """How a file is written, as far as an output in the same format has to repeat it.

    Attributes:
        kind: ``csv`` or ``jsonl``.
        encoding: Codec of everything behind the byte-order mark.
        bom: The byte-order mark, ``b""`` without one.
        newline: What ends the first line: LF, CRLF or CR.
        delimiter: Between cells; ``","`` for JSONL, where it has no meaning.
        final_newline: Whether the last line is ended too.
    """

    kind: str
    encoding: str = "utf-8"
    bom: bytes = b""
    newline: str = "\n"
    delimiter: str = ","
    final_newline: bool = True


def detect(path: Path, name: str, *, kind: str | None, delimiter: str | None, encoding: str | None) -> Format:
    """Find the format of a file, or take what the user said.

    Raises:
        UsageError: A format, delimiter or encoding that there is not.
        InputError: The file cannot be read, or its beginning is not text in the encoding.
    """
    head, tail = _ends(path, name)
    found_kind = _kind(path, name, kind, head)
    if delimiter is not None and found_kind != "csv":
        raise UsageError(f"--delimiter is for CSV, and {name} is JSONL; leave the option out")
    bom, codec = _encoding(name, head, encoding)
    text = _decoded_head(path, name, head, bom, codec)
    bare = _QUOTED.sub("", text) if found_kind == "csv" else text
    newline = _NEWLINE.search(bare)
    if delimiter is None:
        is_tab = kind == "tsv" or (kind is None and path.suffix.lower() == ".tsv")
        delimiter = "\t" if is_tab else _delimiter_of(bare[: newline.start()] if newline else bare)
    return Format(
        kind=found_kind,
        encoding=codec,
        bom=bom,
        newline=newline[0] if newline else "\n",
        delimiter=_checked_delimiter(delimiter),
        final_newline=codecs.decode(tail, codec, "ignore")[-1:] in ("\n", "\r", ""),
    )


def _ends(path: Path, name: str) -> tuple[bytes, bytes]:
    """The first and the last bytes of a file that can be read more than once."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InputError(name, "is not a regular file, and it has to be read twice; pipe it in and say -")
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            file.seek(max(0, status.st_size - 4))
            return head, file.read(4)
    except OSError as error:
        raise InputError(name, f"cannot be opened: {error.strerror}") from error


def _kind(path: Path, name: str, kind: str | None, head: bytes) -> str:
    for magic, reason in _FOREIGN:
        if head.startswith(magic):
            raise InputError(name, reason)
    if kind is not None:
        if kind not in _KINDS:
            raise UsageError(f"there is no format {kind!r}; the formats are csv, tsv and jsonl")
        return _KINDS[kind]
    suffix = path.suffix.lower().removeprefix(".")
    if suffix in _KINDS:
        return _KINDS[suffix]
    if suffix:
        raise UsageError(f"{name}: the suffix .{suffix} says no format; add --input-format csv or jsonl")
    start = head[len(byte_order_mark(head)[0]) :].replace(b"\0", b"").lstrip()
    return "jsonl" if start.startswith(b"{") else "csv"


def _encoding(name: str, head: bytes, wanted: str | None) -> tuple[bytes, str]:
    """Byte-order mark and codec of what follows it."""
    bom, marked = byte_order_mark(head)
    if wanted is None:
        if marked is None and (utf16 := unmarked_utf16(head)):
            reason = f"seems to be UTF-16 without a byte-order mark; if so, say --encoding {utf16}"
            raise InputError(name, reason, line=1)
        return bom, marked or "utf-8"
    try:
        codec = codecs.lookup(wanted).name.removesuffix("-sig")
        b"a".decode(codec, "ignore")
        codecs.getincrementaldecoder(codec)
    except LookupError:
        raise UsageError(
            f"there is no encoding {wanted!r}; well-known ones: utf-8, utf-16, cp1252, gb18030"
        ) from None
    if marked is not None and marked.startswith(codec):
        return bom, marked
    return b"", f"{codec}-le" if codec in ("utf-16", "utf-32") else codec


def _decoded_head(path: Path, name: str, head: bytes, bom: bytes, codec: str) -> str:
    decoder = codecs.getincrementaldecoder(codec)("strict")
    try:
        return decoder.decode(head[len(bom) :], final=len(head) < _HEAD_BYTES)
    except UnicodeDecodeError:
        line, reason = describe_undecodable(path, codec, len(bom))
        raise InputError(name, reason, line=line) from None


def _delimiter_of(header: str) -> str:
    """The candidate that a header without its quoted parts has most of; the comma where it has none."""
    return max(DELIMITERS, key=header.count)


def _checked_delimiter(delimiter: str) -> str:
    delimiter = {"tab": "\t", "\\t": "\t"}.get(delimiter, delimiter)
    if len(delimiter) != 1 or delimiter in '"\r\n\0':
        raise UsageError(f"{delimiter!r} cannot be a delimiter; give one character, or tab")
    return delimiter
