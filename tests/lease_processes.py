"""Real processes under leases: workers that run ordinary jobs, and a holder behind a small socket on the loopback.

``python -m tests.lease_processes holder PORT STATE [--max-cost 5 ...]`` and
``python -m tests.lease_processes worker PORT NAME FLAGS``, where ``FLAGS`` is JSON.
"""

import asyncio
import json
import pickle
import sys
import time
from base64 import b64decode, b64encode
from decimal import Decimal
from pathlib import Path
from typing import Any

from batchllm.budget.budget import BudgetLimits
from batchllm.errors import JobError
from batchllm.job import assemble
from batchllm.leases import Lease, LeaseHolder, LeaseRequest, Leases
from batchllm.runner.run import run_job


async def hold(port: int, state: Path, budget: dict[str, Any], ttl_s: float) -> None:
    """Serves leases until it is killed; what has to outlive it is in a file before a lease leaves."""
    saved = json.loads(state.read_text()) if state.exists() else None
    limits = BudgetLimits(
        cost=Decimal(budget["cost"]) if "cost" in budget else None, requests=budget.get("requests")
    )
    holder = LeaseHolder(
        time.monotonic(), budget=limits, saved=saved, restarted=saved is not None, ttl_s=ttl_s
    )

    def keep() -> None:
        temporary = state.with_suffix(".new")
        temporary.write_text(json.dumps(holder.saved()))
        temporary.replace(state)

    keep()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            lease = holder.renew(_read(line), time.monotonic())
            if holder.changed:
                keep()
            writer.write(_written(lease))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port)
    print("ready", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def asking(port: int) -> Any:
    """Returns what takes a request to the holder."""

    async def renew(request: LeaseRequest) -> Lease:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(_written(request))
            line = await reader.readline()
        finally:
            writer.close()
        if not line:
            raise ConnectionError("the holder has gone")
        lease: Lease = _read(line)
        return lease

    return renew


def _written(message: Lease | LeaseRequest) -> bytes:
    return b64encode(pickle.dumps(message)) + b"\n"


def _read(line: bytes) -> Any:
    return pickle.loads(b64decode(line))


def work(port: int, name: str, flags: dict[str, Any]) -> int:
    """Runs a job under leases; returns its exit status."""
    try:
        result = run_job(assemble("run", flags, {}), leases=Leases(renew=asking(port), worker=name))
    except JobError as error:
        print(error, flush=True)
        return int(error.exit_status)
    print(result.summary, flush=True)
    return result.exit_status


if __name__ == "__main__":
    if sys.argv[1] == "holder":
        asyncio.run(hold(int(sys.argv[2]), Path(sys.argv[3]), json.loads(sys.argv[4]), float(sys.argv[5])))
    else:
        sys.exit(work(int(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])))
