"""Texts of rows and answers as a page can hold them."""

import re
from collections.abc import Mapping
from typing import Any

from batchllm.evaluate.values import shown

LONGEST_TEXT = 4_000
"""Characters of a text that are kept for a page."""
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def named(values: Mapping[str, Any]) -> str:
    """Returns values as a text: the only one alone, several with their names, each on a line."""
    if len(values) == 1:
        return clean(shown(next(iter(values.values()))))
    return clean("\n".join(f"{name}: {shown(value)[:LONGEST_TEXT]}" for name, value in values.items()))


def content_text(content: Any) -> str:
    """Returns the content of a message as a text; a part that is none is named by its type."""
    if not isinstance(content, list):
        return "" if content is None else str(content)
    parts = (part for part in content if isinstance(part, dict))
    return "\n".join(str(part.get("text", f"[{part.get('type', 'part')}]")) for part in parts)


def clean(text: str) -> str:
    """Returns a text without characters that no page can hold, cut where it is very long."""
    cut = text[:LONGEST_TEXT]
    more = f"… ({len(text) - LONGEST_TEXT:,} characters more)" if len(text) > LONGEST_TEXT else ""
    return _UNPRINTABLE.sub(lambda found: f"\\x{ord(found[0]):02x}", cut) + more


def size_of(text: str) -> int:
    """Returns how many bytes a text takes on the page."""
    return len(text.encode()) + 4 * text.count("&") + 3 * (text.count("<") + text.count(">"))


def cut_text(text: str, limit: int) -> str:
    """Returns a text that takes at most ``limit`` bytes on the page, and a few to say that it is cut."""
    size = size_of(text)
    if size <= limit:
        return text
    length = len(text) * limit // size
    while length and size_of(text[:length]) > limit:
        length = length * 9 // 10
    return f"{text[:length]}…"
