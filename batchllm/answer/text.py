"""The visible text of an answer, and text on one line."""

import re
from typing import Any

_BLOCK = re.compile(r"<(think|thinking)>.*?(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_END = re.compile(r"</think(?:ing)?>", re.IGNORECASE)


def visible_text(text: str) -> str:
    """Returns the text without ``<think>`` blocks, closed or not, and without blank space around it.

    Some chat templates open the block in the prompt, so that the answer only closes it: everything up to the
    closing tag is reasoning too.
    """
    if ("think" in text and "<" in text) or "THINK" in text:
        text = _BLOCK.sub("", text)
        ends = list(_END.finditer(text))
        if ends:
            text = text[ends[-1].end() :]
    return text.strip()


def content_text(content: Any) -> str:
    """Returns the text of a message's content: a string, or the text parts of a list joined."""
    if type(content) is str:
        return content
    if not isinstance(content, list):
        return ""
    texts = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and part.get("type", "text") in ("text", "output_text"):
            text = part.get("text")
            texts.append(text if isinstance(text, str) else "")
    return "".join(texts)
