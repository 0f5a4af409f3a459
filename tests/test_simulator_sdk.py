"""The official client understands the simulator: answers, errors, files and batches."""

import json
from collections.abc import Iterator

import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam

from batchllm.simulator import BatchSettings, Simulator, SimulatorSettings, start_in_thread

MESSAGES: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "Say hello"}]


@pytest.fixture
def running() -> Iterator[Simulator]:
    settings = SimulatorSettings(
        tokens_per_minute=1_000,
        models=("simulator",),
        batches=BatchSettings(seconds=0.01),
        api_key="sk-right",
    )
    with start_in_thread(settings) as running:
        yield running


@pytest.fixture
def client(running: Simulator) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=running.base_url, api_key="sk-right", max_retries=0) as client:
        yield client


def test_the_sdk_reads_answers_and_models(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="simulator", messages=MESSAGES)
    assert answer.choices[0].message.content == "Simulated answer (turn 1) to: Say hello"
    assert answer.usage is not None
    assert answer.usage.total_tokens > answer.usage.completion_tokens > 0
    assert [model.id for model in client.models.list()] == ["simulator"]


def test_the_sdk_raises_its_own_errors(client: openai.OpenAI, running: Simulator) -> None:
    create = client.chat.completions.create
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        create(model="other", messages=MESSAGES)
    with pytest.raises(openai.BadRequestError) as bad:
        create(model="simulator", messages=[])
    assert bad.value.code == "empty_array"
    create(model="simulator", messages=MESSAGES, max_tokens=900)
    with pytest.raises(openai.RateLimitError) as refused:
        create(model="simulator", messages=MESSAGES, max_tokens=900)
    assert refused.value.type == "tokens"
    assert refused.value.response.headers["x-ratelimit-limit-tokens"] == "1000"
    with openai.OpenAI(base_url=running.base_url, api_key="sk-wrong", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError):
            stranger.models.list()


def test_the_sdk_walks_a_batch_to_its_end(client: openai.OpenAI) -> None:
    body = {"model": "simulator", "messages": MESSAGES}
    line = {"custom_id": "one", "method": "POST", "url": "/v1/chat/completions", "body": body}
    file = client.files.create(file=("in.jsonl", json.dumps(line).encode()), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"run": "1"},
    )
    while batch.status != "completed":
        batch = client.batches.retrieve(batch.id)
        assert batch.status in ("validating", "in_progress", "finalizing", "completed")
    assert batch.output_file_id
    (result,) = client.files.content(batch.output_file_id).text.splitlines()
    assert json.loads(result)["custom_id"] == "one"
    assert [each.id for each in client.batches.list()] == [batch.id]
    assert client.files.delete(file.id).deleted
