"""A web handler over a real socket streams the rows of a job to a client, which goes away."""

import asyncio
import json
from typing import Any

import aiohttp
from aiohttp import web

from batchllm import astream, run
from batchllm.simulator import Simulator, SimulatorSettings, start_in_thread

ROWS = [{"text": f"row {number}"} for number in range(40)]


def options(server: Simulator) -> dict[str, Any]:
    return {
        "prompt": "Say {{ text }}",
        "base_url": server.base_url,
        "model": "m",
        "concurrency": 4,
        "grace": 5,
    }


async def serve(server: Simulator, ended: asyncio.Event) -> tuple[web.AppRunner, str]:
    """Serves the rows of the job as lines of JSON."""

    async def rows(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        stream = astream(ROWS, **options(server))
        try:
            async for row in stream:
                line = json.dumps({"index": row.index, "response": row["response"], "earlier": row.earlier})
                await response.write(line.encode() + b"\n")
        finally:
            await stream.aclose()
            ended.set()
        return response

    application = web.Application()
    application.router.add_get("/rows", rows)
    runner = web.AppRunner(application, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    return runner, f"http://{host}:{port}/rows"


async def read(url: str, most: int) -> list[dict[str, Any]]:
    """Reads so many rows, then goes away."""
    found: list[dict[str, Any]] = []
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        async for line in response.content:
            found.append(json.loads(line))
            if len(found) == most:
                break
    return found


def test_a_client_that_goes_away_stops_the_job_and_loses_nothing() -> None:
    async def main(server: Simulator) -> tuple[list[dict[str, Any]], int, list[dict[str, Any]]]:
        ended = asyncio.Event()
        runner, url = await serve(server, ended)
        try:
            first = await read(url, 6)
            await asyncio.wait_for(ended.wait(), 30)
            paid = server.ledger.requests
            again = await read(url, len(ROWS) + 1)
        finally:
            await runner.cleanup()
        return first, paid, again

    with start_in_thread(SimulatorSettings(latency_s=0.2)) as server:
        first, paid, again = asyncio.run(main(server))
        assert 6 <= paid < len(ROWS), "the job stopped, and not at its end"
        assert server.ledger.requests == len(ROWS), "nothing that was acknowledged is paid again"
        assert server.ledger.abandoned == 0
        assert run(ROWS, **options(server)).summary.attempts == 0
    kept = {row["index"]: row["response"] for row in again if row["earlier"]}
    assert len(kept) == paid
    assert all(kept[row["index"]] == row["response"] for row in first)
    assert sorted(row["index"] for row in again) == list(range(len(ROWS)))
