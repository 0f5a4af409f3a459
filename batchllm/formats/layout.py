"""How a text file is written: its encoding and newlines."""

import codecs
import re
from dataclasses import dataclass

from batchllm.formats.encodings import marked_codec, undecodable
from batchllm.formats.input_file import InputFile

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
) -> tuple[TextLayout, str, bool]:
    """Reads the layout of a file from its first and last bytes.

    Args:
        file: The file.
        encoding: A codec of Python; ``None`` takes what the byte-order mark says, or UTF-8.
        ignored: Parts of the text, such as quoted cells, whose newlines do not end a line.

    Returns:
        The layout, the text of the first mebibyte, and whether that is all.

    Raises:
        UsageError: There is no such encoding.
        InputError: The file cannot be read, or its beginning is not text in the encoding.
    """
    head, tail, is_complete = file.ends()
    bom, codec = marked_codec(file.name, head, encoding)
    try:
        text = codecs.getincrementaldecoder(codec)("strict").decode(head[len(bom) :])
    except UnicodeDecodeError:
        raise undecodable(file, codec, len(bom)) from None
    newline = (ignored and _NEWLINE.search(ignored.sub("", text))) or _NEWLINE.search(text)
    ended = codecs.decode(tail, codec, "ignore")[-1:] in ("\n", "\r", "")
    layout = TextLayout(codec, bom, newline[0] if newline else "\n", ended)
    return layout, text, is_complete
