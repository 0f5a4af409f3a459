"""Tokens of a request: the most it can use, and what the answers of a job have used so far.

The upper bound of an answer is ``max_tokens``, which an endpoint enforces. The upper bound of a prompt is the number
of bytes of its body: no known vocabulary has a token shorter than a byte of UTF-8, and the body holds everything
that the prompt is made of (messages, tools, schema) and JSON syntax besides. If that is too coarse for a budget and
the model's own vocabulary is available, the body is counted as text. Chat templates add tokens of their own:
``TEMPLATE_TOKENS``. The bytes of an image say nothing about its tokens; each counts ``IMAGE_TOKENS``, more than any
known model charges (gpt-4o-mini: 48,169 for eight tiles). Parts of unknown size, such as files by id, have no bound.
"""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from batchllm import tokens
from batchllm.flows.stand_in import StandIn, expected, longest
from batchllm.records import ChatRequest, Usage

TEMPLATE_TOKENS = 128
COUNT_MARGIN = 1.05
IMAGE_TOKENS = 50_000
_IN_TEXT = ("text", "refusal", "input_audio")  # parts whose content is in the body

LEARNED = "answers"
"""The journal's key for the usage of a job's answers."""

HIGH = 0.95
LOW = 0.05
GROWTH = 1.1
_LOG = math.log(GROWTH)


class UpperBound(NamedTuple):
    """The most tokens that a request may be charged; ``None`` is unbounded."""

    prompt_tokens: int | None
    completion_tokens: int | None


def upper_bound(request: ChatRequest) -> UpperBound:
    """Returns the bound by the bytes of the body; cheap enough for every request."""
    text, images, bounded = _without_images(request.body)
    prompt = len(text) + images * IMAGE_TOKENS + TEMPLATE_TOKENS if bounded else None
    return UpperBound(prompt, request.max_tokens)


def counted_upper_bound(request: ChatRequest) -> UpperBound:
    """Returns a closer bound by counting, if the model's own vocabulary is known; else ``upper_bound``."""
    counter = tokens.counter(request.model)
    coarse = upper_bound(request)
    if not counter.exact or coarse.prompt_tokens is None:
        return coarse
    text, images, _ = _without_images(request.body)
    counted = math.ceil(counter(text.decode("utf-8", "replace")) * COUNT_MARGIN)
    prompt = counted + images * IMAGE_TOKENS + TEMPLATE_TOKENS
    return UpperBound(min(coarse.prompt_tokens, prompt), request.max_tokens)


def _without_images(body: bytes) -> tuple[bytes, int, bool]:
    """Returns the body without its images, how many there are, and whether all other parts have a bound."""
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


class UsageEstimator:
    """Learns from the usage of a job's answers, over all its runs.

    Lengths are counted in buckets that grow by a tenth (a sketch after Masson, Rim and Lee, "DDSketch", 2019), so
    every percentile is known within a tenth, in constant memory.

    Args:
        kept: What ``to_json`` returned, from the journal.

    Attributes:
        answers: Answers with usage.
        prompt_tokens, completion_tokens: Their sums.
        cached_tokens: The prompt tokens that came from the endpoint's cache.
    """

    def __init__(self, kept: Mapping[str, Any] | None = None) -> None:
        kept = kept or {}
        self.answers: int = kept.get("answers", 0)
        self.prompt_tokens: int = kept.get("prompt_tokens", 0)
        self.completion_tokens: int = kept.get("completion_tokens", 0)
        self.cached_tokens: int = kept.get("cached_tokens", 0)
        self._lengths: Counter[int] = Counter({int(k): n for k, n in kept.get("lengths", {}).items()})

    def add(self, usage: Usage) -> None:
        """Adds an answer; one without usage is ignored."""
        prompt, completion = usage.prompt_tokens, usage.completion_tokens
        if prompt is None or completion is None:
            return
        self.answers += 1
        self.prompt_tokens += prompt
        self.completion_tokens += completion
        if usage.cached_tokens:
            self.cached_tokens += min(usage.cached_tokens, prompt)
        self._lengths[math.ceil(math.log(completion) / _LOG) if completion > 0 else -1] += 1

    def high(self, bound: int | None = None) -> int | None:
        """Returns the tokens that few answers exceed, at most ``bound``; ``None`` if no answer is known."""
        bucket = self._bucket(HIGH)
        if bucket is None:
            return None
        found = 0 if bucket < 0 else math.floor(GROWTH**bucket + 1e-9)
        return found if bound is None else min(found, bound)

    def low(self, bound: int | None = None) -> int:
        """Returns the tokens that few answers fall below, at most ``bound``; 0 if no answer is known."""
        bucket = self._bucket(LOW)
        found = 0 if bucket is None or bucket < 0 else math.floor(GROWTH ** (bucket - 1) + 1e-9)
        return found if bound is None else min(found, bound)

    def mean(self, bound: int | None = None) -> int:
        """Returns the mean tokens of an answer, at most ``bound``; half of that if no answer is known."""
        if not self.answers:
            return (bound or 0) // 2
        found = round(self.completion_tokens / self.answers)
        return found if bound is None else min(found, bound)

    def stand_ins(self) -> tuple[StandIn, StandIn]:
        """Returns the answers that stand for those of mean length, and for the longest ones."""
        return expected(self.mean), longest(lambda bound: self.mean() if bound is None else bound)

    def mean_prompt(self) -> float | None:
        """Returns the mean tokens of a prompt; ``None`` if no answer is known."""
        return self.prompt_tokens / self.answers if self.answers else None

    def prompt_usage(self, prompt_tokens: float, completion_tokens: int) -> Usage:
        """Returns the usage of such tokens, with the share from the endpoint's cache that the answers so far had."""
        share = self.cached_tokens / self.prompt_tokens if self.prompt_tokens else 0.0
        cached = round(prompt_tokens * share) or None
        return Usage(round(prompt_tokens), completion_tokens, cached_tokens=cached)

    def to_json(self) -> dict[str, Any]:
        """Returns the form that the journal keeps."""
        return {
            "answers": self.answers,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cached_tokens": self.cached_tokens,
            "lengths": {str(bucket): count for bucket, count in self._lengths.items()},
        }

    def _bucket(self, share: float) -> int | None:
        """Returns the bucket that this share of the answers reaches."""
        if not self.answers:
            return None
        wanted, seen, bucket = share * self.answers, 0, -1
        for bucket in sorted(self._lengths):
            seen += self._lengths[bucket]
            if seen >= wanted:
                break
        return bucket
