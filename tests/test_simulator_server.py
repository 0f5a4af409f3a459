"""The simulator over real sockets: answers, errors, limits, faults and the ledger."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from batchllm.errors import UsageError
from batchllm.simulator import ScriptedResponse, Simulator, SimulatorSettings, start_in_thread

HELLO = {"model": "simulator", "messages": [{"role": "user", "content": "Say hello"}]}


class Client:
    """One session to one simulator."""

    def __init__(self, simulator: Simulator, session: aiohttp.ClientSession) -> None:
        self.simulator = simulator
        self.root = simulator.base_url.removesuffix("/v1")
        self._session = session

    async def call(self, method: str, path: str, **more: Any) -> tuple[int, Any, Any]:
        async with self._session.request(method, self.root + path, **more) as response:
            body = await response.read()
            is_json = "json" in response.headers["content-type"]
            return response.status, json.loads(body) if is_json else body, response.headers

    async def chat(self, **change: Any) -> tuple[int, Any, Any]:
        return await self.call("POST", "/v1/chat/completions", json={**HELLO, **change})


def run(
    scenario: Callable[[Client], Awaitable[None]],
    settings: SimulatorSettings | None = None,
    script: Callable[[dict[str, Any]], ScriptedResponse | None] | None = None,
) -> None:
    async def live() -> None:
        async with Simulator(settings, script=script) as simulator, aiohttp.ClientSession() as session:
            await scenario(Client(simulator, session))

    asyncio.run(live())


def test_an_answer_has_the_shape_of_openais() -> None:
    async def scenario(client: Client) -> None:
        status, body, headers = await client.chat()
        assert status == 200
        assert headers["x-request-id"].startswith("req_")
        assert (body["object"], body["model"]) == ("chat.completion", "simulator")
        assert body["id"].startswith("chatcmpl-")
        (choice,) = body["choices"]
        assert choice["finish_reason"] == "stop"
        assert choice["message"]["content"] == "Simulated answer (turn 1) to: Say hello"
        usage = body["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0
        _, again, _ = await client.chat()
        assert again["id"] != body["id"]
        assert again["choices"] == body["choices"]

    run(scenario)


def test_models_are_listed_and_an_unknown_one_is_not_found() -> None:
    async def scenario(client: Client) -> None:
        _, listed, _ = await client.call("GET", "/v1/models")
        assert [model["id"] for model in listed["data"]] == ["small", "org/large"]
        status, body, _ = await client.chat(model="huge")
        assert (status, body["error"]["code"]) == (404, "model_not_found")
        assert (await client.chat(model="small"))[0] == 200

    run(scenario, SimulatorSettings(models=("small", "org/large")))


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/chat/completions", 404, "unknown_url"),
        ("DELETE", "/v1/models", 404, "unknown_url"),
        ("POST", "/v1/chat/completion", 404, "unknown_url"),
        ("POST", "/chat/completions", 404, "unknown_url"),
        ("GET", "/", 404, "unknown_url"),
    ],
)
def test_wrong_urls_and_methods_are_refused(method: str, path: str, status: int, code: str) -> None:
    async def scenario(client: Client) -> None:
        got, body, _ = await client.call(method, path)
        assert (got, body["error"]["code"]) == (status, code)

    run(scenario)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model": NaN}', b"\xff\xfe"])
def test_a_body_that_is_no_json_object_is_a_400(body: bytes) -> None:
    async def scenario(client: Client) -> None:
        status, answer, _ = await client.call("POST", "/v1/chat/completions", data=body)
        assert status == 400
        assert answer["error"]["type"] == "invalid_request_error"
        assert client.simulator.ledger.rejected == 1

    run(scenario)


def test_only_the_right_key_opens() -> None:
    async def scenario(client: Client) -> None:
        path = "/v1/chat/completions"
        wrong = await client.call(
            "POST", path, json=HELLO, headers={"authorization": "Bearer sk-wrong-key-0001"}
        )
        assert (wrong[0], wrong[1]["error"]["code"]) == (401, "invalid_api_key")
        assert "wrong-key" not in wrong[1]["error"]["message"]
        assert (await client.call("POST", path, json=HELLO))[0] == 401
        for headers in ({"authorization": "Bearer sk-right"}, {"api-key": "sk-right"}):
            assert (await client.call("POST", path, json=HELLO, headers=headers))[0] == 200

    run(scenario, SimulatorSettings(api_key="sk-right"))


def test_other_base_paths_are_served() -> None:
    async def scenario(client: Client) -> None:
        for path in ("/openai/v1/chat/completions", "/api/v1/chat/completions"):
            assert (await client.call("POST", path, json=HELLO))[0] == 200

    run(scenario)


def test_limits_refuse_with_openais_headers_and_body() -> None:
    async def scenario(client: Client) -> None:
        status, _, headers = await client.chat(max_tokens=600)
        assert status == 200
        assert headers["x-ratelimit-limit-requests"] == "100"
        assert headers["x-ratelimit-remaining-requests"] == "99"
        assert headers["x-ratelimit-reset-requests"] == "600ms"
        assert headers["x-ratelimit-limit-tokens"] == "1000"
        assert headers["x-ratelimit-remaining-tokens"] == "400"
        assert headers["x-ratelimit-reset-tokens"] == "36s"
        status, body, headers = await client.chat(max_tokens=600)
        assert (status, body["error"]["type"], body["error"]["code"]) == (
            429,
            "tokens",
            "rate_limit_exceeded",
        )
        assert "Limit 1000, Used 600, Requested 600. Please try again in 1" in body["error"]["message"]
        assert 11_000 < int(headers["retry-after-ms"]) <= 12_000
        assert headers["retry-after"] == "12"
        assert "x-simulator-injected" not in headers
        status, body, headers = await client.chat(max_tokens=1_001)
        assert status == 429
        assert body["error"]["message"].startswith("Request too large for simulator")
        assert "retry-after" not in headers
        assert (await client.chat(model="another", max_tokens=600))[0] == 200
        assert client.simulator.ledger.refused == 2
        assert client.simulator.ledger.answered == 2

    run(scenario, SimulatorSettings(requests_per_minute=100, tokens_per_minute=1_000))


def test_headers_of_the_limits_can_be_withheld() -> None:
    async def scenario(client: Client) -> None:
        await client.chat()
        status, _, headers = await client.chat()
        assert status == 429
        assert not [name for name in headers if "ratelimit" in name.lower()]

    run(scenario, SimulatorSettings(requests_per_minute=1, headers=False))


@pytest.mark.parametrize("status", [400, 429, 500, 503, 529])
def test_an_injected_status_can_be_told_from_a_real_one(status: int) -> None:
    async def scenario(client: Client) -> None:
        got, body, headers = await client.chat()
        assert got == status
        assert headers["x-simulator-injected"] == "1"
        assert body["error"]["message"]
        assert ("retry-after-ms" in headers) == (status == 429)
        ledger = client.simulator.ledger
        assert ledger.injected == {str(status): 1}
        assert (ledger.refused, ledger.rejected, ledger.answered) == (0, 0, 0)

    run(scenario, SimulatorSettings(error_rate={str(status): 1.0}))


def test_a_reset_a_cut_and_a_hang_are_what_they_are_called() -> None:
    faults = iter(["reset", "cut", "timeout"])

    async def scenario(client: Client) -> None:
        with pytest.raises(aiohttp.ClientOSError, match="reset by peer"):
            await client.chat()
        with pytest.raises(aiohttp.ClientPayloadError):
            await client.chat()
        with pytest.raises(TimeoutError):
            await client.call("POST", "/v1/chat/completions", json=HELLO, timeout=aiohttp.ClientTimeout(0.1))

    run(scenario, script=lambda _: ScriptedResponse(fault=next(faults)))


def test_the_softer_faults_come_with_status_200() -> None:
    faults = iter(["garbage", "empty", "filter"])

    async def scenario(client: Client) -> None:
        status, body, headers = await client.chat()
        assert (status, body[:6], headers["content-type"]) == (200, b"<html>", "text/html")
        _, body, _ = await client.chat()
        assert (body["choices"][0]["message"]["content"], body["choices"][0]["finish_reason"]) == ("", "stop")
        _, body, _ = await client.chat()
        assert body["choices"][0]["message"]["content"] is None
        assert body["choices"][0]["finish_reason"] == "content_filter"

    run(scenario, script=lambda _: ScriptedResponse(fault=next(faults)))


def test_a_hanging_request_does_not_hold_up_the_end() -> None:
    async def scenario(client: Client) -> None:
        hanging = asyncio.create_task(client.chat())
        while client.simulator.ledger.injected["timeout"] == 0:
            await asyncio.sleep(0)
        await client.simulator.__aexit__()
        with pytest.raises(aiohttp.ClientError):
            await hanging

    async def live() -> None:
        simulator = Simulator(SimulatorSettings(error_rate={"timeout": 1.0}))
        await simulator.__aenter__()
        async with aiohttp.ClientSession() as session:
            await scenario(Client(simulator, session))

    asyncio.run(live())


def test_a_script_dictates_status_headers_and_body() -> None:
    seen = []

    def script(request: dict[str, Any]) -> ScriptedResponse | None:
        seen.append(request)
        if len(seen) > 1:
            return None
        return ScriptedResponse(status=418, headers={"x-tea": "yes"}, body={"error": "teapot"}, delay_s=0.001)

    async def scenario(client: Client) -> None:
        status, body, headers = await client.chat(temperature=0.5)
        assert (status, body, headers["x-tea"]) == (418, {"error": "teapot"}, "yes")
        assert (await client.chat())[0] == 200
        assert seen[0] == {**HELLO, "temperature": 0.5}

    run(scenario, script=script)


def test_requests_are_kept_byte_for_byte_when_asked() -> None:
    body = b'{ "model":"m",  "messages":[{"role":"user","content":"\\u4f60"}]}'

    async def scenario(client: Client) -> None:
        for _ in range(3):
            await client.call("POST", "/v1/chat/completions?a=b", data=body, headers={"X-Own": "1"})
        assert len(client.simulator.received) == 2
        kept = client.simulator.received[0]
        assert (kept.method, kept.path, kept.body) == ("POST", "/v1/chat/completions?a=b", body)
        assert kept.headers["x-own"] == "1"

    run(scenario, SimulatorSettings(keep_requests=2))


def test_the_ledger_counts_what_happened() -> None:
    async def scenario(client: Client) -> None:
        answers = await asyncio.gather(*(client.chat(seed=n) for n in range(20)))
        await client.chat(max_tokens=-1)
        ledger = client.simulator.ledger
        assert (ledger.requests, ledger.answered, ledger.rejected) == (21, 20, 1)
        assert ledger.in_flight == 0
        assert ledger.max_in_flight == 20
        assert ledger.prompt_tokens == sum(body["usage"]["prompt_tokens"] for _, body, _ in answers)
        assert ledger.completion_tokens == sum(body["usage"]["completion_tokens"] for _, body, _ in answers)

    run(scenario, SimulatorSettings(latency_s=0.3))


def test_an_answer_nobody_waits_for_is_on_the_bill() -> None:
    async def scenario(client: Client) -> None:
        asking = asyncio.create_task(client.chat())
        while client.simulator.ledger.in_flight == 0:
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
        while client.simulator.ledger.in_flight:
            await asyncio.sleep(0)
        assert client.simulator.ledger.completion_tokens > 0
        assert (client.simulator.ledger.abandoned, client.simulator.ledger.answered) == (1, 0)

    run(scenario, SimulatorSettings(latency_s=60.0))


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 70_000},
        {"error_rate": {"418x": 0.1}},
        {"error_rate": {"500": 1.5}},
        {"error_rate": {"500": 0.6, "429": 0.6}},
        {"requests_per_minute": 0},
        {"latency_s": -1},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        SimulatorSettings(**wrong)


def test_a_thread_serves_blocking_code_and_a_taken_port_is_wrong_use() -> None:
    with start_in_thread() as running:
        port = int(running.base_url.removesuffix("/v1").rsplit(":", 1)[1])
        with pytest.raises(UsageError, match=f"port {port}"), start_in_thread(SimulatorSettings(port=port)):
            pass

        async def ask() -> int:
            async with aiohttp.ClientSession() as session:
                async with session.post(f"{running.base_url}/chat/completions", json=HELLO) as response:
                    return response.status

        assert asyncio.run(ask()) == 200
        assert running.ledger.answered == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serving_alone_says_where_and_ends_at_a_signal(number: signal.Signals) -> None:
    program = "from batchllm.simulator import *; serve(SimulatorSettings())"
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("simulator: http://127.0.0.1:")
        assert line.endswith("/v1 (Ctrl-C stops it)\n")
        os.kill(process.pid, number)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""
