"""The completion object: a simulated message with an id, a finish reason and counted tokens."""

import re
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from math import log
from typing import Any

import orjson

from batchllm import tokens
from batchllm.simulator.errors import ApiError
from batchllm.simulator.responder import images_of, respond, text_of

MODEL = "simulator"
_PER_MESSAGE = 4  # the role and the frame of a message, as OpenAI's cookbook counts them
_PER_REQUEST = 3  # every answer is primed with the assistant's frame
_WORDS = re.compile(r"\s*\S+|\s+")
_IMAGE_TOKENS = {"low": 85, "auto": 765, "high": 765}  # of a picture of 1024 x 1024
_COUNTED_EXACTLY = 100_000  # characters; counting more would hold up all other requests


class CompletionBuilder:
    """Turns requests into completions."""

    def __init__(self) -> None:
        self._counter = tokens.counter(MODEL)
        self._count_cached = lru_cache(maxsize=256)(self._count)  # system messages come back with every row

    def build(
        self, request: Mapping[str, Any], raw: bytes, number: int, created: int, *, fault: str | None = None
    ) -> dict[str, Any]:
        """Answers a checked request with a completion object.

        Args:
            request: The parsed body.
            raw: The body itself; part of the id.
            number: Of the request on this server; part of the id.
            created: Seconds since the epoch.
            fault: ``empty`` leaves the content out, ``filter`` lets a content filter take it.

        Raises:
            ApiError: 400, its tools or its schema are malformed.
        """
        identity = blake2b(raw, digest_size=12).hexdigest()
        try:
            message, finish_reason, count = self._message(request, identity, fault)
            prompt_tokens = self._prompt_tokens(request)
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError) as error:
            reason = f"Invalid request: {type(error).__name__}: {error}."
            raise ApiError(400, reason, "invalid_value") from error
        logprobs = _logprobs(message["content"]) if request.get("logprobs") and message["content"] else None
        choices = [
            {"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish_reason}
            for index in range(request.get("n") or 1)
        ]
        completion_tokens = count * len(choices)
        return {
            "id": f"chatcmpl-{identity}{number:06x}",
            "object": "chat.completion",
            "created": created,
            "model": MODEL,
            "choices": choices,
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "total_tokens": prompt_tokens + completion_tokens,
                "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
            },
        }

    def _prompt_tokens(self, request: Mapping[str, Any]) -> int:
        total = _PER_REQUEST
        for message in request["messages"]:
            text = text_of(message.get("content"))
            count = self._count_cached if message["role"] in ("system", "developer") else self._count
            total += _PER_MESSAGE + count(text)
            if calls := message.get("tool_calls"):
                total += self._count(orjson.dumps(calls).decode())
        for image in images_of(request["messages"]):
            total += _IMAGE_TOKENS[image["image_url"].get("detail", "auto")]
        if tools := request.get("tools"):
            total += self._count_cached(orjson.dumps(tools).decode())
        return total

    def _message(
        self, request: Mapping[str, Any], identity: str, fault: str | None
    ) -> tuple[dict[str, Any], str, int]:
        """Returns the assistant's message, its finish reason, and its tokens."""
        message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
        if fault == "filter":
            return message, "content_filter", 0
        if fault == "empty":
            return {**message, "content": ""}, "stop", 0
        simulated = respond(request)
        text = simulated.tool[1] if simulated.tool else simulated.content or ""
        count = self._count(text)
        most = request.get("max_completion_tokens") or request.get("max_tokens") or count
        finish_reason = "tool_calls" if simulated.tool else "stop"
        if count > most:
            text = self._counter.truncate(text, most)
            count, finish_reason = self._count(text), "length"
        if simulated.tool:
            function = {"name": simulated.tool[0], "arguments": text}
            call = {"id": f"call_{identity}", "type": "function", "function": function}
            return {**message, "tool_calls": [call]}, finish_reason, count
        return {**message, "content": text}, finish_reason, count

    def _count(self, text: str) -> int:
        return self._counter(text) if len(text) <= _COUNTED_EXACTLY else tokens.estimate(text)


def _logprobs(text: str) -> dict[str, Any]:
    """Returns made-up logprobs, always the same for the same text: a probability of 0.5 to 1 for each word."""
    content = []
    for word in _WORDS.findall(text):
        raw = word.encode("utf-8", "replace")
        probability = 1 - blake2b(raw, digest_size=1).digest()[0] / 512
        entry = {"token": word, "logprob": log(probability), "bytes": list(raw)}
        content.append({**entry, "top_logprobs": []})
    return {"content": content, "refusal": None}


def limited_tokens(request: Mapping[str, Any]) -> int:
    """Returns what OpenAI takes off the token limit: ``max_tokens`` or a quarter of the characters, the larger."""
    characters = sum(len(text_of(message.get("content"))) for message in request["messages"])
    most = request.get("max_completion_tokens") or request.get("max_tokens") or 0
    return max(1, most, -(-characters // 4))
