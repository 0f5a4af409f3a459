"""Text encodings: which names are encodings of a file, and advice for bytes that do not decode.

The encoding of a file is UTF-8, what its byte-order mark says, or what the user says. It is never guessed; a guess is
shown as advice, with the line as it would read.
"""

import codecs
import re
from itertools import chain

from batchllm.errors import InputError, UsageError
from batchllm.formats.input_file import InputFile

BYTE_ORDER_MARKS = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

COMMON = (
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258", "cp874"),
    *("iso8859-2", "iso8859-5", "iso8859-7", "iso8859-9", "iso8859-15", "koi8-r", "koi8-u", "mac-roman"),
    *("cp850", "cp852", "cp866", "cp437", "shift_jis_2004", "cp932", "euc_jis_2004", "gb18030", "big5hkscs"),
    *("cp949", "euc_kr"),
)
"""The encodings that advice names: those in which tables are found. chardet knows many more, and is wrong more often
with all of them."""

_ADVISED = {
    "shift_jis_2004": "shift_jis",
    "euc_jis_2004": "euc_jp",
    "big5hkscs": "big5",
    "iso8859-1": "latin-1",
    "windows-1252": "cp1252",
}
_NO_FILE = {
    *("idna", "punycode", "undefined", "mbcs", "oem"),
    *("unicode-escape", "raw-unicode-escape"),
}
_NARROW_TESTS = "\U0001f600\u2019\u6f22\u05d0"
_NAME_IT = "name the file's encoding with --encoding"
_SAMPLE_BYTES = 1 << 16
_SHOWN_CHARACTERS = 60


def text_codec(wanted: str) -> str:
    """Returns Python's name of an encoding that a text file can have.

    Raises:
        ValueError: There is no such encoding, or it is none of text files (``base64``, ``punycode``, ``idna``).
    """
    probe = 'a,b;"\t\r\nz'
    try:
        info = codecs.lookup(wanted)
        # A private attribute that ``open`` and ``bytes.decode`` go by; what has none is a text encoding.
        is_text = getattr(info, "_is_text_encoding", True) and info.name.replace("_", "-") not in _NO_FILE
        decoder = codecs.getincrementaldecoder(info.name)("strict")
        encoded = probe.encode(info.name)
        if is_text and decoder.decode(encoded, final=True) == probe == encoded.decode(info.name, "ignore"):
            return info.name
    except (LookupError, ValueError, TypeError):
        pass
    raise ValueError(f"no encoding {wanted!r} of text files")


def is_narrow(codec: str) -> bool:
    """Whether an encoding lacks characters that an answer may have."""
    try:
        _NARROW_TESTS.encode(codec)
    except UnicodeEncodeError:
        return True
    return False


def marked_codec(name: str, head: bytes, wanted: str | None) -> tuple[bytes, str]:
    """Returns the byte-order mark of a file and the codec of what follows it.

    Args:
        name: What messages call the file.
        head: Its beginning.
        wanted: The encoding that the user names; ``None`` takes what the mark says, or UTF-8.

    Raises:
        UsageError: There is no such encoding.
        InputError: It is UTF-16 or UTF-32 without a byte-order mark, and nobody said so.
    """
    bom, marked = next(
        ((mark, codec) for mark, codec in BYTE_ORDER_MARKS if head.startswith(mark)), (b"", None)
    )
    if wanted is None:
        if marked is None and (found := unmarked_unicode(head[:4096])):
            reason = f"seems to be {_shown(found)} without a byte-order mark; if so, say --encoding {found}"
            raise InputError(name, reason, line=1)
        return bom, marked or "utf-8"
    try:
        codec = text_codec(wanted).removesuffix("-sig")
    except ValueError as error:
        raise UsageError(f"there is {error}; well-known ones: utf-8, utf-16, cp1252, gb18030") from None
    if marked is not None and marked.startswith(codec):
        return bom, marked
    return b"", f"{codec}-le" if codec in ("utf-16", "utf-32") else codec


def unmarked_unicode(head: bytes) -> str | None:
    """Returns the kind of UTF-16 or UTF-32 that bytes with NULs are, or ``None``."""
    if b"\0" not in head or (head.count(0) < 0.2 * len(head) and _is_plain(head)):
        return None
    for codec, width in (("utf-32-le", 4), ("utf-32-be", 4), ("utf-16-le", 2), ("utf-16-be", 2)):
        whole = head[: len(head) // width * width]
        text = whole.decode(codec, "replace")
        if len(text) > 1 and "\ufffd" not in text[:-1] and _reads_as_text(text[:-1]):
            return codec
    return None


_UNREADABLE = re.compile(
    r"[^\t\n\r\x20-\x7e\u0085\u00a0-\ud7ff\ue000-\ufefe\uff00-\uffee\U00010000-\U0003ffff]"
)


def _is_plain(head: bytes) -> bool:
    """Whether bytes are UTF-8 without control characters, NULs aside; the last character may be cut."""
    text = head.decode("utf-8", "replace").rstrip("\ufffd").replace("\0", "")
    return "\ufffd" not in text and not re.search(r"[\x01-\x08\x0e-\x1a\x1c-\x1f]", text)


def _reads_as_text(text: str) -> bool:
    """Whether characters are letters, digits, marks and ASCII signs rather than bytes read in the wrong width."""
    import unicodedata

    if _UNREADABLE.search(text):
        return False
    kinds = [unicodedata.category(character) for character in text]
    strange = sum(kind in ("Cn", "Co", "Cc") for kind in kinds) - sum(text.count(blank) for blank in "\t\r\n")
    ascii_signs = sum(character < "\x7f" for character in text)
    return strange <= 0 and ascii_signs >= 0.02 * len(text)


def undecodable(file: InputFile, encoding: str, skipped: int) -> InputError:
    """Returns the error that names the first byte that does not decode, and what the line may read in.

    Args:
        file: The file.
        encoding: The encoding in which it was read.
        skipped: Bytes of the byte-order mark.
    """
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    offset, line = skipped, 1
    for chunk in chain(file.chunks(skipped), (b"",)):
        data = decoder.getstate()[0] + chunk
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            before = data[: error.start]
            line += before.count(b"\n") or (0 if b"\n" in data else before.count(b"\r"))
            byte = f"byte {offset + error.start} (0x{data[error.start]:02x})"
            advice = _advice(file, offset + error.start, encoding)
            return InputError(file.name, f"{byte} is not {_shown(encoding)}; {advice}", line=line)
        offset += len(data) - len(decoder.getstate()[0])
        line += text.count("\n") or text.count("\r")
    return InputError(file.name, f"is not {_shown(encoding)}; {_NAME_IT}")


def _advice(file: InputFile, offset: int, encoding: str) -> str:
    """What to do about a byte: an encoding with the line as it would read in it, where one is likely."""
    start = max(0, offset - _SAMPLE_BYTES)
    around = file.part(start, 2 * _SAMPLE_BYTES)
    at = offset - start
    if encoding.startswith(("utf-16", "utf-32")):
        return _NAME_IT
    lines = around.splitlines()
    if start:
        del lines[:1]
    special = [line for line in lines if not line.isascii()]
    in_utf8 = [_decodes(line, "utf-8") for line in special[:-1] or special]
    first = around.rfind(b"\n", 0, at) + 1 or around.rfind(b"\r", 0, at) + 1
    line = (around[first:at] + re.split(rb"[\r\n]", around[at:], maxsplit=1)[0]).strip()
    if encoding != "utf-8" and in_utf8 and all(in_utf8):
        return f"in UTF-8 this line reads {_excerpt(line, 'utf-8', at - first)}; if that is right, leave --encoding out"
    if encoding == "utf-8" and sum(in_utf8) > 0.5 * len(in_utf8):
        return (
            "other lines with such characters are UTF-8, so this one is damaged or has two encodings: correct it, or "
            + _NAME_IT
        )
    found = _detected(b"\n".join(special), encoding)
    if found is None or not _decodes(line, found):
        return _NAME_IT
    shown = _excerpt(line, found, at - first)
    return f"in {found} this line reads {shown}; if that is right, add --encoding {found}, otherwise the file's own"


def _detected(sample: bytes, encoding: str) -> str | None:
    """The most likely encoding of some lines with characters beyond ASCII, other than the one given."""
    import chardet  # a tenth of a second, for a message alone

    lone = re.findall(rb"(?<![\x80-\xff])[\xa0-\xff](?![\x80-\xff])", sample)
    if len(lone) < 3 and len(lone) == len(sample) - len(sample.translate(None, bytes(range(128, 256)))):
        # Too little for statistics, and the most usual by far.
        return "cp1252" if encoding != "cp1252" else None
    candidates = [name for name in COMMON if name != encoding and _decodes(sample, name)]
    if not candidates:
        return None
    found = chardet.detect(
        sample, include_encodings=candidates, compat_names=False, no_match_encoding="cp1252"
    )
    name = found["encoding"]
    if name is None or not _decodes(sample, name):
        return None
    usual = _ADVISED.get(name.lower(), name.lower())
    return usual if _decodes(sample, usual) else name.lower()


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeError:
        return False
    return True


def _excerpt(line: bytes, encoding: str, at: int) -> str:
    """The line as it reads in an encoding, or its part around a byte."""
    before = line[:at].decode(encoding, "replace")
    text = line.decode(encoding, "replace")
    start = max(0, len(before) - _SHOWN_CHARACTERS // 2)
    part = text[start : start + _SHOWN_CHARACTERS]
    part = "".join(character if character.isprintable() else " " for character in part).strip()
    dots = "…" if start else ""
    return f"“{dots}{part}{'…' if start + _SHOWN_CHARACTERS < len(text) else ''}”"


def _shown(encoding: str) -> str:
    return encoding.upper() if encoding.startswith("utf") else encoding
