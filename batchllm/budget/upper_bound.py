"""The bound that a request can cost, known before it is sent.

The answer is bounded by ``max_tokens``, which an endpoint enforces. The prompt is bounded by arithmetic, not by an
estimate: the vocabularies in use have no token that is shorter than a byte of UTF-8, and the body holds all that
the endpoint makes a prompt of (messages, tools, schema) and its JSON framing besides, so the bytes of the body are
more than the tokens of the prompt. Where that is too coarse to fit a budget, and the model's own vocabulary is at
hand, the body is counted: JSON as text has more tokens than the text in it. Either way ``MARGIN_TOKENS`` stand for
what chat templates put in by themselves.

Bytes say nothing about an image. Each counts ``IMAGE_TOKENS``, above the most that a known model charges for one
(gpt-4o-mini: 48,169 for eight tiles). For what nobody can bound, such as files by id, there is no bound case.
"""

import math
from typing import Any, NamedTuple

import orjson

from batchllm import tokens
from batchllm.records import ChatRequest

MARGIN_TOKENS = 128
COUNT_MARGIN = 1.05
IMAGE_TOKENS = 50_000
_IN_TEXT = ("text", "refusal", "input_audio")  # parts whose content is in the body


class UpperBound(NamedTuple):
    """The most tokens that a request may be charged; ``None`` is unbounded."""

    prompt_tokens: int | None
    completion_tokens: int | None


def upper_bound(request: ChatRequest) -> UpperBound:
    """A bound that costs next to nothing to find."""
    text, images, bounded = _without_images(request.body)
    prompt = len(text) + images * IMAGE_TOKENS + MARGIN_TOKENS if bounded else None
    return UpperBound(prompt, request.max_tokens)


def counted_upper_bound(request: ChatRequest) -> UpperBound:
    """A closer bound, by counting, where the model's own vocabulary is known; else the same one."""
    counter = tokens.counter(request.model)
    coarse = upper_bound(request)
    if not counter.exact or coarse.prompt_tokens is None:
        return coarse
    text, images, _ = _without_images(request.body)
    counted = math.ceil(counter(text.decode("utf-8", "replace")) * COUNT_MARGIN)
    return UpperBound(
        min(coarse.prompt_tokens, counted + images * IMAGE_TOKENS + MARGIN_TOKENS), request.max_tokens
    )


def _without_images(body: bytes) -> tuple[bytes, int, bool]:
    """The body without its images, how many those are, and whether the rest can be bounded."""
    if b'"content":[' not in body:  # quotes within a text are escaped, so this finds parts and nothing else
        return body, 0, True
    data: dict[str, Any] = orjson.loads(body)
    images, bounded = 0, True
    for message in data.get("messages", ()):
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            if part.get("type") == "image_url":
                images += 1
                part["image_url"] = None
            elif part.get("type") not in _IN_TEXT:
                bounded = False
    return orjson.dumps(data), images, bounded
