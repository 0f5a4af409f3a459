"""Recognizes fields of a schema's short form that read differently from what is probably meant.

``label: one of a, b, c`` is three text fields. Such a mistake would be paid for with every row, so it is refused with
the right spelling. A field with a type of its own (``label str: one of a``) is taken at its word.
"""

import re
from collections.abc import Sequence

from batchllm.errors import UsageError

TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
NAMES = {
    **TYPES,
    "text": "string",
    "string": "string",
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
}
"""The words that name a type, with JSON Schema's word."""

_ONE_OF = re.compile(
    r"(?:(?:is|must be|exactly|only|always)\s+)*(?:(?:one|any|either)\s+of\b|one-of\b|oneof\b|either\b|enum\b|literal\b"
    r"|choices?\b|choose\b|options?\b|(?:allowed |possible )?values\b)(?:\s+from\b)?[\s:=-]*",
    re.IGNORECASE,
)
_BETWEEN_WORDS = re.compile(r"\s*(?:[|/,;]|\bor\b|\band\b)\s*")
_AROUND = " \t()[]{}<>\"'`."
_NUMBER = r"-?\d+(?:\.\d+)?"
_RANGE = re.compile(
    rf"(?:(?:a |an )?(?:int|integer|float|number|score)\s+)?(?:from\s+|between\s+)?"
    rf"({_NUMBER})\s*(?:-|–|—|\.{{2,3}}|…|to|and)\s*({_NUMBER})",
    re.IGNORECASE | re.ASCII,
)
_LIST = re.compile(r"(?:list|array|several|many)(?:\s+of\b|\s*\[|\s*<|$)", re.IGNORECASE)
_OPTIONAL = re.compile(r"\(?optional\b\)?|nullable\b|may be (?:missing|empty|null)\b", re.IGNORECASE)
_OR = re.compile(r"\w+(?:,? or \w+)+")
_BARE = re.compile(r"(?:or\s+|and\s+)?[^\s:\[\]?]+(?:\s+(?:or|and)\s+[^\s:\[\]?]+)*")


def refuse_misread(name: str, description: str, later: Sequence[str]) -> None:
    """Refuses a text field whose description says that it is something else.

    Args:
        name: Its name; it has no type.
        description: What follows its colon, on one line.
        later: The fields behind it, as they were written.

    Raises:
        UsageError: The description is a type, a choice, bounds or a list in other words.
    """
    if not description:
        return
    following = _bare_behind(later)
    spelling = None
    if found := _ONE_OF.match(description):
        spelling = _choice(name, [description[found.end() :], *following])
    elif "|" in description:
        spelling = _choice(name, [description])
    elif description.casefold() in NAMES:
        spelling = f"{name} {description.casefold()}"
    elif _LIST.match(description):
        spelling = f"{name} list"
    elif found := _RANGE.match(description):
        spelling = f"{name} {found[1]}..{found[2]}"
    elif _OPTIONAL.match(description):
        spelling = f"{name}?"
    elif _OR.fullmatch(description) or (following and _BARE.fullmatch(description)):
        spelling = _choice(name, [description, *following])
    if spelling is None:
        return
    written = ", ".join([f"{name}: {description}", *following])
    fields = f"{1 + len(following)} text fields" if following else "a text field with a description"
    raise UsageError(
        f"--schema: {written!r} reads as {fields}; write {spelling!r}, or '{name} str: {description}' if it is text"
    )


def right_spelling(name: str, kind: str) -> str:
    """Returns `` (write 'label [a|b|c]')`` for a type in other words, with its leading space; else nothing."""
    plain = kind.strip(_AROUND)
    spelling = None
    if found := _RANGE.fullmatch(plain):
        spelling = f"{name} {found[1]}..{found[2]}"
    elif _OPTIONAL.match(plain):
        spelling = f"{name}?"
    elif _LIST.match(plain):
        inner = re.sub(r"^\w+\s*(?:of\b)?", "", plain).strip(_AROUND)
        spelling = f"{name} list {inner}" if NAMES.get(inner, "string") != "string" else f"{name} list"
    elif plain in NAMES:
        spelling = f"{name} list" if kind.startswith("[") else f"{name} {plain}"
    elif found := _ONE_OF.match(plain):
        spelling = _choice(name, [plain[found.end() :]])
    elif len(_words([plain])) > 1:
        spelling = _choice(name, [plain])
    return f" (write {spelling!r})" if spelling else ""


def _bare_behind(later: Sequence[str]) -> list[str]:
    """Returns the fields that directly follow and are words without a type or a description."""
    found = []
    for part in later:
        if not _BARE.fullmatch(part.strip()):
            break
        found.append(part.strip())
    return found


def _words(parts: Sequence[str]) -> list[str]:
    words = [word.strip(_AROUND) for part in parts for word in _BETWEEN_WORDS.split(part)]
    return list(dict.fromkeys(word for word in words if word))


def _choice(name: str, parts: Sequence[str]) -> str:
    words = _words(parts)
    return f"{name} [{'|'.join(words)}]" if len(words) > 1 else f"{name} [a|b|c]"
