"""Byte-order marks, where a wrong byte is, and which encoding the user probably has.

Nothing here decides how a file is decoded: that is UTF-8, a byte-order mark, or what the user said. What
``likely_encoding`` finds only goes into the error message, for the user to try. It looks at the script that
each candidate would make of the text: kana make Japanese, Hangul with the commonest syllables Korean, pairs
of bytes inside GB 2312 Chinese, single accented letters between ASCII ones are Western European.
"""

import codecs
import re
from itertools import pairwise
from pathlib import Path

BYTE_ORDER_MARKS = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_REGION_BYTES = 1 << 16
_CHUNK_BYTES = 1 << 20


def byte_order_mark(head: bytes) -> tuple[bytes, str | None]:
    """The mark a file begins with and the encoding it stands for; ``(b"", None)`` without one."""
    for mark, encoding in BYTE_ORDER_MARKS:
        if head.startswith(mark):
            return mark, encoding
    return b"", None


def unmarked_utf16(head: bytes) -> str | None:
    """The kind of UTF-16 that bytes without a mark seem to be: every other byte is NUL, or ``None``."""
    head = head[:512]
    if b"\0" not in head:
        return None
    half = max(len(head) // 2, 1)
    if head[1::2].count(0) > 0.6 * half and not head[0::2].count(0):
        return "utf-16-le"
    if head[0::2].count(0) > 0.6 * half and not head[1::2].count(0):
        return "utf-16-be"
    return None


def describe_undecodable(path: Path, encoding: str, skipped: int) -> tuple[int | None, str]:
    """Find the first byte of a file that does not decode.

    Args:
        path: The file; it is read from the start.
        encoding: What it was decoded as.
        skipped: Bytes of the byte-order mark.

    Returns:
        Line (from 1) and a sentence with byte offset, reason and the encoding to try.
    """
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    offset, line = skipped, 1
    with path.open("rb") as file:
        file.seek(skipped)
        while True:
            chunk = file.read(_CHUNK_BYTES)
            pending = decoder.getstate()[0]
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                at = offset - len(pending) + error.start
                before = (pending + chunk)[: error.start]
                line += before.count(b"\n") or (0 if b"\n" in chunk else before.count(b"\r"))
                return line, _sentence(path, encoding, at, error)
            if not chunk:
                return None, f"the file does not decode as {encoding}"
            offset += len(chunk)
            line += text.count("\n") or text.count("\r")


def _sentence(path: Path, encoding: str, at: int, error: UnicodeDecodeError) -> str:
    with path.open("rb") as file:
        file.seek(max(0, at - 4096))
        before = file.read(min(at, 4096))
        region = before[before.rfind(b"\n") + 1 :] + file.read(_REGION_BYTES)
    likely = likely_encoding(region, excluded=encoding)
    byte = f"0x{error.object[error.start]:02x}"
    hint = f"if it is {likely}, say --encoding {likely}" if likely else "name its encoding with --encoding"
    return f"byte {at} ({byte}) is not {_shown(encoding)}; {hint}"


def _shown(encoding: str) -> str:
    return encoding.upper() if encoding.startswith("utf") else encoding


def likely_encoding(region: bytes, excluded: str = "utf-8") -> str | None:
    """The encoding that makes the most plausible text of some lines, or ``None``."""
    for encoding, is_plausible in _CANDIDATES:
        if encoding == excluded:
            continue
        text = _decoded(region, encoding)
        if text is not None and is_plausible(text):
            return encoding
    return None


def _decoded(region: bytes, encoding: str) -> str | None:
    try:
        return codecs.getincrementaldecoder(encoding)("strict").decode(region)  # the end may cut a character
    except UnicodeDecodeError:
        return None


def _share(text: str, *ranges: tuple[str, str]) -> float:
    """Which part of the characters beyond ASCII lies in the ranges."""
    foreign = [character for character in text if character > "\x7f"]
    inside = sum(any(low <= character <= high for low, high in ranges) for character in foreign)
    return inside / len(foreign) if foreign else 0.0


_KANA = ("\u3040", "\u30ff")
_IDEOGRAPHS = ("\u4e00", "\u9fff")
_HANGUL = ("\uac00", "\ud7a3")
_PUNCTUATION = ("\u3000", "\u303f")
_FULL_WIDTH = ("\uff01", "\uff5e")


def _is_japanese(text: str) -> bool:
    return _share(text, _KANA) > 0.2 and _share(text, _KANA, _IDEOGRAPHS, _PUNCTUATION, _FULL_WIDTH) > 0.9


def _is_korean(text: str) -> bool:
    common = sum(text.count(syllable) for syllable in "이다는에의을가고하지도로은를")
    foreign = sum(character > "\x7f" for character in text)
    return (
        _share(text, _HANGUL) > 0.95 and common > foreign / 10
    )  # those bytes are rare characters in Chinese


def _is_simplified_chinese(text: str) -> bool:
    foreign = [character for character in text if character > "\x7f"]
    pairs = [character.encode("gb2312", "ignore") for character in foreign]
    common = sum(pair <= b"\xd7\xff" for pair in pairs if pair)  # level 1 ends there, punctuation is below
    return bool(foreign) and common > 0.8 * len(foreign) and _share(text, _IDEOGRAPHS) > 0.5


def _is_traditional_chinese(text: str) -> bool:
    return _share(text, _IDEOGRAPHS) > 0.5 and _share(text, _IDEOGRAPHS, _PUNCTUATION, _FULL_WIDTH) > 0.9


def _is_cyrillic(text: str) -> bool:
    pairs = sum(a > "\x7f" and b > "\x7f" for a, b in pairwise(text))
    foreign = sum(character > "\x7f" for character in text)
    return _share(text, ("\u0400", "\u045f")) > 0.9 and pairs > foreign / 2


def _is_western(text: str) -> bool:
    return bool(text) and not any("\x80" <= character <= "\x9f" for character in text)


def _is_accented(text: str) -> bool:
    runs = [len(run) for run in re.findall(r"[^\x00-\x7f]+", text)]
    return _is_western(text) and runs.count(1) >= 0.8 * len(runs)


def _is_utf8(text: str) -> bool:
    return bool(text) and "\0" not in text


_CANDIDATES = (
    ("utf-8", _is_utf8),
    ("euc_jp", _is_japanese),
    ("shift_jis", _is_japanese),
    ("cp1252", _is_accented),
    ("cp1250", _is_accented),
    ("euc_kr", _is_korean),
    ("gb18030", _is_simplified_chinese),
    ("cp1251", _is_cyrillic),
    ("big5", _is_traditional_chinese),
    ("cp1252", _is_western),
    ("latin-1", _is_western),
)
