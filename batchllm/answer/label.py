"""Finds the one label that an answer names, or none: a wrong label costs more than a missing one.

Models answer ``Positive.``, ``**Positive**``, ``情感：积极``, ``{"label": "positive"}`` or a sentence. The rules
below are tried from the safest to the least safe, and the first that finds a label decides:

1. The whole answer is a label, apart from quotes, emphasis and punctuation around it.
2. The answer is JSON, and its ``label``, or its only value that is a label, names it.
3. A segment (a line, a sentence, the text after a colon) is a label and nothing else. A segment that is announced
   (``Label: …``, ``情感：…``) wins over one that only stands alone.
4. One label is emphasised where several are mentioned.
5. One label is mentioned at all, as a whole word, and is not denied (``not positive``, ``不积极``).

If that rule finds two different labels, the answer has none. Case, full or half width, spaces, ``_``, dashes and the
form of a number (``4.0`` for ``4``) make no difference, except where labels differ in nothing else. A label that is
part of another (``neg``, ``A`` and ``A+``) never stands for it. The usual words for sentiments are understood in
English and Chinese, whichever language the labels are in.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from batchllm.errors import UsageError
from batchllm.exact import parse_json

_MAX_READ = 20_000
_AROUND = " \t\r\n*_`~\"'“”‘’«»「」『』《》〈〉【】()[]{}<>.。,、;:!?•·–—→|\\"
_BETWEEN = re.compile(r"([\n。;!?]+|:|\.(?=\s|$))")
_ANNOUNCED = re.compile(
    r"(?:\b(?:labels?|class|category|classification|sentiment|answer|result|verdict|prediction|output|topic|type|intent"
    r"|conclusion|overall)\b|标签|情感|情绪|分类|类别|类型|答案|结论|结果|判断)(?:\s*\bis|为|是)?[\s\"'*_`]*$"
)
_KEYS = frozenset(
    {"label", "class", "category", "classification", "sentiment", "answer", "标签", "情感", "分类"}
)
_EMPHASIS = re.compile(r"\*\*(.+?)\*\*|`([^`\n]+)`|\\boxed\{(.+?)\}")
_CLAUSE = r"[^.,;:!?。、\n]"
_DENIED = re.compile(
    r"\b(?:not?|never|neither|nor|without|cannot|unable|hardly|isn't|aren't|wasn't|doesn't|don't|can't|won't)\b"
    rf"{_CLAUSE}*$|(?:不(?!错|仅|但|过|断)|没(?!错)|非(?!常)|无(?!论|疑|比)){_CLAUSE}{{0,6}}$"
)
# A model asked in Chinese may answer in Chinese, whichever language the labels are in.
_SENTIMENTS = (
    ("positive", "积极", "正面", "正向"),
    ("negative", "消极", "负面", "负向"),
    ("neutral", "中性", "中立"),
)
_DASHES = "\\-\u2010-\u2015\u2212\ufe58\ufe63\uff0d"
_APART = re.compile(rf"(?<=\w)[\s_{_DASHES}]+(?=\w)")
_DIGITS = re.compile(r"([+-]?)(\d+)(?:[.,](\d*))?", re.ASCII)
# Scripts that put no space between words.
_UNSPACED = "぀-ヿ㐀-鿿豈-﫿가-힯฀-໿က-႟ក-៿"


def _full(text: str) -> str:
    """Returns the text with full-width characters as half-width ones; keeps case."""
    return unicodedata.normalize("NFKC", text).replace("’", "'")


class Labels:
    """Finds one of some labels in an answer.

    Args:
        labels: Spelled as ``find`` returns them.

    Raises:
        UsageError: There are none, or two differ in case or width only.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self._exact = {label: label for label in labels}
        self._whole = {_full(label).casefold().strip(): label for label in labels}
        if not labels or "" in self._whole:
            raise UsageError("--labels needs labels that are not empty")
        if len(self._whole) < len(labels):
            raise UsageError(f"--labels: two of the labels {', '.join(labels)} differ in case or width only")
        self._bare = {key.strip(_AROUND): label for key, label in self._whole.items()}
        if len(self._bare) < len(labels) or "" in self._bare:
            self._bare = {}
        for words in _SENTIMENTS:
            own = [word for word in words if word in self._whole]
            if len(own) == 1:
                self._whole |= dict.fromkeys(words, self._whole[own[0]])
        self._loose = _unambiguous(self._whole)
        longest_first = sorted(self._whole, key=len, reverse=True)
        self._mention = re.compile("|".join(map(_word, longest_first)))
        # A letter alone is a word of the language too (a, I): only its own case mentions it.
        self._single = {_full(label).strip(): label for label in labels if len(_full(label).strip()) == 1}

    def find(self, text: str) -> str | None:
        """Returns the label that the text names, spelled as given; ``None`` where it names none or several."""
        found = self._exact.get(text)
        if found is not None:
            return found
        full = _full(text[:_MAX_READ]).strip()
        plain = full.casefold()
        found = self._alone(plain)
        if found is not None:
            return found
        for reading in (self._in_json, self._announced, self._standing, self._emphasised):
            labels = set(reading(plain))
            if labels:
                return labels.pop() if len(labels) == 1 else None
        labels = set(self._mentioned(full))
        return labels.pop() if len(labels) == 1 else None

    def whole(self, text: str) -> str | None:
        """Returns the label that the whole text is, apart from quotes, emphasis and punctuation; else ``None``."""
        return self._exact.get(text) or self._alone(_full(text).strip().casefold())

    def _alone(self, plain: str) -> str | None:
        """Returns the label that a text consists of, apart from what surrounds it."""
        found = self._whole.get(plain)
        if found is None:
            stripped = plain.strip(_AROUND)
            found = self._whole.get(stripped) or self._bare.get(stripped)
        if found is None:
            found = self._loose.get(_loose(plain)) or self._loose.get(_loose(plain.strip(_AROUND)))
        if found is None and plain.lstrip()[:1] in ("-", "+", "#"):  # the item of a list, a heading
            item = plain.lstrip(" -+#").strip(_AROUND)
            if not (item[:1].isdigit() and plain.lstrip()[1:2].isdigit()):  # -1 is no item
                found = self._whole.get(item) or self._loose.get(_loose(item))
        return found

    def _in_json(self, plain: str) -> Iterator[str]:
        value = json_of(plain)
        pairs = (
            value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ())
        )
        found = [(key, self._alone(item)) for key, item in pairs if isinstance(item, str)]
        named = [label for key, label in found if label and key in _KEYS]
        yield from named or (label for _, label in found if label)

    def _segments(self, plain: str) -> Iterator[tuple[bool, str]]:
        """Yields each segment that is only a label, and whether it is announced."""
        before = ""
        parts = _BETWEEN.split(plain)
        for segment, end in zip(parts[::2], [*parts[1::2], ""], strict=True):
            label = self._alone(segment)
            if label is not None:
                yield bool(_ANNOUNCED.search(before[-60:])), label
            if segment.strip(_AROUND):
                before = segment if end == ":" else ""

    def _announced(self, plain: str) -> Iterable[str]:
        return [label for announced, label in self._segments(plain) if announced]

    def _standing(self, plain: str) -> Iterable[str]:
        return [label for _, label in self._segments(plain)]

    def _emphasised(self, plain: str) -> Iterator[str]:
        for match in _EMPHASIS.finditer(plain):
            label = self._alone(next(filter(None, match.groups())))
            if label is not None:
                yield label

    def _mentioned(self, full: str) -> Iterator[str]:
        plain = full.casefold()
        for match in self._mention.finditer(plain):
            label = self._whole.get(match.group()) or self._loose.get(_loose(match.group()))
            if label is None:
                continue
            alone = self._single and len(match.group()) == 1 and len(plain) == len(full)
            if alone and full[match.start()] not in self._single:
                continue
            if not _DENIED.search(plain, max(0, match.start() - 200), match.start()):
                yield label


def json_of(text: str) -> Any:
    """Returns the value of an answer that is JSON, in a fence or without; ``None`` where it is not."""
    if text[:1] not in ("{", "[", "`"):
        return None
    try:
        return parse_json(text.strip("`").removeprefix("json").strip())
    except ValueError:
        return None


def _loose(text: str) -> str:
    """Returns a text without what separates its words, and a number in its shortest form."""
    text = text.replace("\u2212", "-")
    number = _DIGITS.fullmatch(text)
    if number:
        sign, whole, rest = number.groups()
        rest = (rest or "").rstrip("0")
        return sign.strip("+") + (whole.lstrip("0") or "0") + (f".{rest}" if rest else "")
    return _APART.sub("", text)


def _unambiguous(labels: Mapping[str, str]) -> dict[str, str]:
    """Returns the loose forms that stand for one label only."""
    found: dict[str, set[str]] = {}
    for word, label in labels.items():
        found.setdefault(_loose(word), set()).add(label)
    return {form: named.pop() for form, named in found.items() if len(named) == 1 and form}


def _word(label: str) -> str:
    """Returns a pattern for the label as a whole word, at each end where the script separates words."""
    pattern = rf"[\s_{_DASHES}]{{0,3}}".join(map(re.escape, _APART.split(label)))
    if re.fullmatch(r"\d+", label, re.ASCII):
        pattern += r"(?:[.,]0+)?"
    if re.match(rf"[\w+#](?<![{_UNSPACED}])", label):
        pattern = rf"(?<!(?![{_UNSPACED}])\w)(?<!\w-)(?<!\d[.,]){pattern}"
    if re.search(rf"[\w+#](?<![{_UNSPACED}])$", label):
        pattern = rf"{pattern}(?!(?![{_UNSPACED}])\w|[+#]|-(?:\w|\s|$)|[.,]\d)"
    if label[:1].isdigit():  # -1 does not mention 1
        pattern = rf"(?<![-\u2212]){pattern}"
    return pattern
