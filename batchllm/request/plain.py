"""The plainest request there is: it tells an endpoint that is down from one that does not take a job's requests."""

import json
from dataclasses import replace
from typing import Any

from batchllm.job import Job
from batchllm.records import ChatRequest, Row
from batchllm.request.builder import RequestBuilder
from batchllm.template import from_prompt

MAX_TOKENS = 5
_PLAIN = frozenset({"model", "messages", "max_tokens", "max_completion_tokens", "reasoning_effort"})


def plain_request(job: Job, model: str, **more: Any) -> ChatRequest:
    """Returns a request of one short message, without tools, schema, images or parameters.

    Args:
        job: Whose endpoint, and how a model that reasons is asked.
        model: The model.
        more: Fields of ``Job`` that it has all the same: ``tools``, ``schema``, ``images``.
    """
    asking = Job(
        task=job.task,
        template=from_prompt("{{ text }}"),
        inputs=(),
        output=None,
        endpoint=replace(job.endpoint, model=model),
        parameters={"max_tokens": MAX_TOKENS, "temperature": None},
        reasoning_effort=job.reasoning_effort,
        **more,
    )
    values = {"text": "Say OK.", **dict.fromkeys(asking.images, IMAGE)}
    built = RequestBuilder(asking, tuple(values), (), None).build(Row(0, 1, values, []))
    assert isinstance(built, ChatRequest), "a fixed text can be sent"
    return built


IMAGE = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)
"""A picture of one grey pixel."""


def beyond_plain(body: bytes) -> str:
    """Returns what a request has beyond a plain one, as names for a sentence; empty where it has nothing more."""
    try:
        data = json.loads(body)
    except ValueError:
        return ""
    if not isinstance(data, dict):
        return ""
    more = [str(name) for name in data if name not in _PLAIN]
    if b'"image_url"' in body:
        more.append("images")
    return ", ".join(more)
