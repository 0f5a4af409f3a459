"""How a text file is written: its encoding and newlines, and where a byte does not fit.

The encoding is UTF-8, what a byte-order mark says, or what the user says; it is never guessed.
"""

import codecs
import re
from dataclasses import dataclass

from batchllm.errors import InputError, UsageError
from batchllm.formats.input_file import CHUNK_BYTES, InputFile

BYTE_ORDER_MARKS = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_NAME_IT = "name the file's encoding with --encoding"
_NEWLINE = re.compile(r"\r+\n|\n|\r")


@dataclass(frozen=True, slots=True)
class TextLayout:
    """How a text file is written, as far as an output in the same format repeats it.

    Attributes:
        encoding: Codec of everything behind the byte-order mark.
        bom: The byte-order mark, ``b""`` without one.
        newline: What ends the first line: LF, CRLF, CR, or CRCRLF, which a careless conversion leaves.
        final_newline: Whether the last line is ended too.
    """

    encoding: str = "utf-8"
    bom: bytes = b""
    newline: str = "\n"
    final_newline: bool = True


def read_layout(
    file: InputFile, encoding: str | None, ignored: re.Pattern[str] | None = None
) -> tuple[TextLayout, str]:
    """Reads the layout of a file from its first and last bytes.

    Args:
        file: The file.
        encoding: A codec of Python; ``None`` takes what the byte-order mark says, or UTF-8.
        ignored: Parts of the text, such as quoted cells, whose newlines do not end a line.

    Returns:
        The layout, and the text of the first mebibyte.

    Raises:
        UsageError: There is no such encoding.
        InputError: The file cannot be read, or its beginning is not text in the encoding.
    """
    head, tail = file.ends()
    bom, codec = _encoding(file.name, head, encoding)
    try:
        text = codecs.getincrementaldecoder(codec)("strict").decode(head[len(bom) :])
    except UnicodeDecodeError:
        raise undecodable(file, codec, len(bom)) from None
    newline = (ignored and _NEWLINE.search(ignored.sub("", text))) or _NEWLINE.search(text)
    ended = codecs.decode(tail, codec, "ignore")[-1:] in ("\n", "\r", "")
    layout = TextLayout(codec, bom, newline[0] if newline else "\n", ended)
    return layout, text


def _encoding(name: str, head: bytes, wanted: str | None) -> tuple[bytes, str]:
    """Byte-order mark and codec of what follows it."""
    bom, marked = next(
        ((mark, codec) for mark, codec in BYTE_ORDER_MARKS if head.startswith(mark)), (b"", None)
    )
    if wanted is None:
        if marked is None and (utf16 := _unmarked_utf16(head[:512])):
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


def _unmarked_utf16(head: bytes) -> str | None:
    """The kind of UTF-16 in which every other byte is NUL, or ``None``."""
    even, odd = head[0::2].count(0), head[1::2].count(0)
    enough = 0.6 * max(len(head) // 2, 1)
    if odd > enough and not even:
        return "utf-16-le"
    return "utf-16-be" if even > enough and not odd else None


def undecodable(file: InputFile, encoding: str, skipped: int) -> InputError:
    """Returns the error that names the first byte that does not decode.

    Args:
        file: The file.
        encoding: The encoding in which it was read.
        skipped: Bytes of the byte-order mark.
    """
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    offset, line = skipped, 1
    with file.path.open("rb") as content:
        content.seek(skipped)
        while True:
            chunk = content.read(CHUNK_BYTES)
            data = decoder.getstate()[0] + chunk
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                before = data[: error.start]
                line += before.count(b"\n") or (0 if b"\n" in data else before.count(b"\r"))
                byte = f"byte {offset + error.start} (0x{data[error.start]:02x})"
                return InputError(file.name, f"{byte} is not {_shown(encoding)}; {_NAME_IT}", line=line)
            if not chunk:
                return InputError(file.name, f"is not {_shown(encoding)}; {_NAME_IT}")
            offset += len(data) - len(decoder.getstate()[0])
            line += text.count("\n") or text.count("\r")


def _shown(encoding: str) -> str:
    return encoding.upper() if encoding.startswith("utf") else encoding
