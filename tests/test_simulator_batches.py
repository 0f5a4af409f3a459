"""Files and batches of the simulator, over real sockets."""

import asyncio
import io
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from batchllm.simulator import BatchSettings, Simulator, SimulatorSettings


def line(name: str, **change: Any) -> dict[str, Any]:
    body = {"model": "simulator", "messages": [{"role": "user", "content": f"Say {name}"}]}
    return {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body, **change}


def jsonl(lines: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in lines)


class Client:
    """One session to one simulator, in the steps of a batch."""

    def __init__(self, simulator: Simulator, session: aiohttp.ClientSession) -> None:
        self.simulator = simulator
        self._session = session

    async def call(self, method: str, path: str, **more: Any) -> tuple[int, Any]:
        async with self._session.request(method, self.simulator.base_url + path, **more) as response:
            body = await response.read()
            return response.status, json.loads(body) if "json" in response.headers["content-type"] else body

    async def upload(self, content: bytes, name: str = "in.jsonl", purpose: str = "batch") -> tuple[int, Any]:
        form = aiohttp.FormData()
        form.add_field("purpose", purpose)
        form.add_field("file", io.BytesIO(content), filename=name)
        return await self.call("POST", "/files", data=form)

    async def create(self, content: bytes, **change: Any) -> tuple[int, Any]:
        _, file = await self.upload(content)
        request = {
            "input_file_id": file["id"],
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
        }
        return await self.call("POST", "/batches", json={**request, **change})

    async def ended(self, identity: str) -> dict[str, Any]:
        batch: dict[str, Any]
        while True:
            _, batch = await self.call("GET", f"/batches/{identity}")
            if batch["status"].lower() in ("completed", "failed", "expired", "cancelled"):
                return batch

    async def finished(self, lines: list[dict[str, Any]]) -> dict[str, Any]:
        status, batch = await self.create(jsonl(lines))
        assert (status, batch["status"].lower()) == (200, "validating")
        return await self.ended(batch["id"])

    async def results(self, file_id: str | None) -> list[dict[str, Any]]:
        status, body = await self.call("GET", f"/files/{file_id}/content")
        assert status == 200
        return [json.loads(each) for each in body.splitlines()]


def run(scenario: Callable[[Client], Awaitable[None]], **behaviour: Any) -> None:
    async def live() -> None:
        settings = SimulatorSettings(batches=BatchSettings(**{"seconds": 0.01, **behaviour}))
        async with Simulator(settings) as simulator, aiohttp.ClientSession() as session:
            await scenario(Client(simulator, session))

    asyncio.run(live())


def test_a_batch_answers_every_line_as_chat_would() -> None:
    async def scenario(client: Client) -> None:
        lines = [line(f"row-{n}") for n in range(120)]
        batch = await client.finished(lines)
        assert batch["status"] == "completed"
        assert batch["request_counts"] == {"total": 120, "completed": 120, "failed": 0}
        assert batch["model"] == "simulator"
        assert batch["error_file_id"] is None
        results = await client.results(batch["output_file_id"])
        names = [result["custom_id"] for result in results]
        assert names != [each["custom_id"] for each in lines]
        assert sorted(names) == sorted(each["custom_id"] for each in lines)
        for result in results:
            body = result["response"]["body"]
            assert (result["error"], result["response"]["status_code"]) == (None, 200)
            assert body["choices"][0]["message"]["content"].endswith(f"Say {result['custom_id']}")
        usage = [result["response"]["body"]["usage"]["total_tokens"] for result in results]
        assert batch["usage"]["total_tokens"] == sum(usage)
        assert client.simulator.ledger.batch_requests == 120

    run(scenario)


def test_files_are_kept_listed_and_deleted() -> None:
    async def scenario(client: Client) -> None:
        content = b"x" * 3_000_000
        status, file = await client.upload(content)
        assert (status, file["bytes"], file["purpose"], file["filename"]) == (
            200,
            3_000_000,
            "batch",
            "in.jsonl",
        )
        assert (await client.call("GET", f"/files/{file['id']}")) == (200, file)
        assert (await client.call("GET", f"/files/{file['id']}/content")) == (200, content)
        assert (await client.call("GET", "/files"))[1]["data"] == [file]
        assert (await client.call("DELETE", f"/files/{file['id']}"))[1]["deleted"] is True
        for path in (f"/files/{file['id']}", f"/files/{file['id']}/content", "/files/none"):
            assert (await client.call("GET", path))[0] == 404

    run(scenario)


def test_bad_uploads_are_refused() -> None:
    async def scenario(client: Client) -> None:
        assert (await client.upload(b"{}", purpose="party"))[0] == 400
        assert (await client.upload(b"{}", name="in.txt"))[0] == 400
        assert (await client.upload(b"x" * 2_000))[0] == 413
        assert (await client.call("POST", "/files", json={}))[0] == 400
        form = aiohttp.FormData({"purpose": "batch"}, default_to_multipart=True)
        status, body = await client.call("POST", "/files", data=form)
        assert (status, body["error"]["param"]) == (400, "file")
        assert (await client.call("GET", "/files"))[1]["data"] == []

    run(scenario, max_file_bytes=1_000)


@pytest.mark.parametrize(
    ("content", "code", "at"),
    [
        (b"", "empty_file", None),
        (jsonl([line("a")]) + b"{oops\n", "invalid_json_line", 2),
        (jsonl([line("a"), line("b"), line("a")]), "duplicate_custom_id", 3),
        (jsonl([line("a"), line("b", url="/v1/embeddings")]), "mismatched_url", 2),
        (jsonl([line("a"), line("b", body={"model": "other", "messages": []})]), "mismatched_model", 2),
        (jsonl([line("a"), line("b", method="GET")]), "invalid_method", 2),
        (jsonl([line(str(n)) for n in range(6)]), "too_many_tasks", None),
    ],
)
def test_validation_fails_after_creation_succeeded(content: bytes, code: str, at: int | None) -> None:
    async def scenario(client: Client) -> None:
        status, created = await client.create(content)
        assert (status, created["status"], created["errors"]) == (200, "validating", None)
        batch = await client.ended(created["id"])
        assert batch["status"] == "failed"
        assert batch["failed_at"]
        (error,) = batch["errors"]["data"]
        assert (error["code"], error["line"]) == (code, at)
        assert batch["output_file_id"] is None

    run(scenario, max_requests=5)


@pytest.mark.parametrize(
    "change",
    [
        {"input_file_id": "file-none"},
        {"endpoint": "/v1/audio"},
        {"completion_window": "1h"},
    ],
)
def test_a_wrong_creation_is_refused_at_once(change: dict[str, Any]) -> None:
    async def scenario(client: Client) -> None:
        status, _ = await client.create(jsonl([line("a")]), **change)
        assert status in (400, 404)
        assert client.simulator.ledger.batches == 0

    run(scenario)


def test_enqueued_tokens_of_unfinished_batches_are_limited() -> None:
    async def scenario(client: Client) -> None:
        content = jsonl([line("a")])
        _, first = await client.create(content)
        while (await client.call("GET", f"/batches/{first['id']}"))[1]["status"] == "validating":
            pass
        _, second = await client.create(content)
        failed = await client.ended(second["id"])
        assert failed["errors"]["data"][0]["code"] == "token_limit_exceeded"
        await client.call("POST", f"/batches/{first['id']}/cancel")
        assert (await client.ended(first["id"]))["status"] == "cancelled"
        _, third = await client.create(content)
        while (state := (await client.call("GET", f"/batches/{third['id']}"))[1]["status"]) == "validating":
            pass
        assert state == "in_progress"

    run(scenario, enqueued_tokens=50, seconds=0.5)


def test_failures_go_to_the_error_file() -> None:
    async def scenario(client: Client) -> None:
        lines = [line(str(n)) for n in range(60)] + [line("bad", body={"model": "simulator"})]
        batch = await client.finished(lines)
        assert batch["status"] == "completed"
        good = await client.results(batch["output_file_id"])
        bad = await client.results(batch["error_file_id"])
        assert batch["request_counts"] == {"total": 61, "completed": len(good), "failed": len(bad)}
        assert len(good) + len(bad) == 61
        statuses = {result["custom_id"]: result["response"]["status_code"] for result in bad}
        assert statuses.pop("bad") == 400
        assert set(statuses.values()) == {500}
        assert 5 < len(statuses) < 30

    run(scenario, failure_rate=0.3)


def test_an_expired_batch_keeps_what_was_done() -> None:
    async def scenario(client: Client) -> None:
        batch = await client.finished([line(str(n)) for n in range(20)])
        assert batch["status"] == "expired"
        assert batch["expired_at"]
        done = await client.results(batch["output_file_id"])
        rest = await client.results(batch["error_file_id"])
        assert (len(done), len(rest)) == (10, 10)
        assert {result["error"]["code"] for result in rest} == {"batch_expired"}
        assert {result["response"] for result in rest} == {None}
        assert {result["custom_id"] for result in done + rest} == {str(n) for n in range(20)}

    run(scenario, expire_after_fraction=0.5)


def test_a_cancelled_batch_is_cancelling_first_and_keeps_what_was_done() -> None:
    async def scenario(client: Client) -> None:
        _, created = await client.create(jsonl([line(str(n)) for n in range(200)]))
        path = f"/batches/{created['id']}"
        while (await client.call("GET", path))[1]["request_counts"]["completed"] == 0:
            pass
        status, batch = await client.call("POST", f"{path}/cancel")
        assert (status, batch["status"]) == (200, "cancelling")
        assert (await client.call("GET", path))[1]["status"] == "cancelling"
        batch = await client.ended(created["id"])
        assert batch["status"] == "cancelled"
        done = await client.results(batch["output_file_id"])
        assert 0 < len(done) == batch["request_counts"]["completed"] < 200
        assert (await client.call("POST", f"{path}/cancel"))[0] == 409

    run(scenario, seconds=0.5, cancel_s=0.05)


def test_a_test_may_change_what_is_shown() -> None:
    async def scenario(client: Client) -> None:
        batch = await client.finished([line("a"), line("b")])
        assert batch["status"] == "COMPLETED"
        assert len(await client.results(batch["output_file_id"])) == 2

    run(scenario, show=lambda batch: batch | {"status": batch["status"].upper()})


def test_batches_are_listed_newest_first_in_pages() -> None:
    async def scenario(client: Client) -> None:
        made = [(await client.create(jsonl([line("a")]), metadata={"n": str(n)}))[1]["id"] for n in range(5)]
        _, first = await client.call("GET", "/batches?limit=2")
        assert [batch["id"] for batch in first["data"]] == made[:2:-1]
        assert first["has_more"] is True
        assert first["data"][0]["metadata"] == {"n": "4"}
        _, rest = await client.call("GET", f"/batches?limit=10&after={first['last_id']}")
        assert [batch["id"] for batch in rest["data"]] == made[2::-1]
        assert rest["has_more"] is False
        assert (await client.call("GET", "/batches?limit=x"))[0] == 400
        assert (await client.call("GET", "/batches/batch_none"))[0] == 404

    run(scenario)
