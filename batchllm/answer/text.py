"""The text that a model meant to be seen."""

import json
import re
from typing import Any

import orjson

from batchllm.exact import has_long_number

_BLOCK = re.compile(r"<(think|thinking)>.*?(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_END = re.compile(r"</think(?:ing)?>", re.IGNORECASE)


def visible(text: str) -> str:
    """The text without ``<think>`` blocks, closed or not, and without blank space around it.

    Chat templates that open the block in the prompt leave an answer that only closes it: everything up to
    that end is reasoning too.
    """
    if ("think" in text and "<" in text) or "THINK" in text:
        text = _BLOCK.sub("", text)
        ends = list(_END.finditer(text))
        if ends:
            text = text[ends[-1].end() :]
    return text.strip()


def content_text(content: Any) -> str:
    """The text of a message's content: a string, or the text parts of a list joined."""
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


def parse_json(body: bytes | str) -> Any:
    """What JSON says, read as generously as the wire needs: a byte order mark, NaN, lone surrogates.

    Integers keep all their digits.

    Surrogates without their other half become U+FFFD, so that every text can be written as UTF-8.

    Raises:
        ValueError: This is not JSON, or it is nested too deeply.
    """
    # Of a whole response only tool calls hold numbers that matter, and a search takes longer than the parser.
    exact = isinstance(body, str) or b"tool_calls" in body
    if not (exact and has_long_number(body)):
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:
            pass
    text = body if isinstance(body, str) else body.decode("utf-8-sig", "replace")
    try:
        return _mended(json.loads(text))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return (
            value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        )
    if isinstance(value, dict):
        return {_mended(key): _mended(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_mended(item) for item in value]
    return value
