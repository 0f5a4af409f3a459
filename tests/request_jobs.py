"""Jobs and rows for the tests of requests."""

from typing import Any

import orjson

from batchllm.job import Job
from batchllm.records import ChatRequest, Endpoint, Row
from batchllm.request import RequestBuilder
from batchllm.template import from_prompt


def make_job(
    prompt: str | None = "{{ text }}", model: str = "gpt-4", preset: str = "openai", **settings: Any
) -> Job:
    """A job that asks ``prompt``; without one, its rows bring their own requests."""
    endpoint = Endpoint(preset=preset, base_url="https://api.openai.com/v1", model=model)
    settings.setdefault("template", None if prompt is None else from_prompt(prompt))
    settings.setdefault("per_row", settings["template"] is None)
    return Job(task="run", inputs=(), output=None, endpoint=endpoint, **settings)


def make_row(values: dict[str, Any] | None = None, **more: Any) -> Row:
    return Row(0, 2, {**(values or {}), **more}, [])


def builder_of(job: Job, row: Row, **injected: Any) -> RequestBuilder:
    return RequestBuilder(job, tuple(row.values), (row,), injected.pop("count", None), **injected)


def built(job: Job, row: Row, earlier: Any = (), **injected: Any) -> Any:
    return builder_of(job, row, **injected).build(row, earlier)


def body_of(job: Job, row: Row, earlier: Any = (), **injected: Any) -> dict[str, Any]:
    """The body that would be sent."""
    request = built(job, row, earlier, **injected)
    assert isinstance(request, ChatRequest), request
    body: dict[str, Any] = orjson.loads(request.body)
    return body
