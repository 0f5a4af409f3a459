"""An endpoint in a process of its own that echoes each row, and keeps a ledger that only grows.

``python -m tests.durability.ledger_server FOLDER`` prints its port and serves until its standard input closes. The
path says how a job is served: ``/NAME/LATENCY_MS/FAULTS_PERCENT/v1`` keeps the ledger ``FOLDER/NAME.jsonl``,
answers after about so many milliseconds, and lets so many requests in a hundred fail: half of them are refused
before any work (500), half are worked out, and paid, and their answer gets lost (the connection closes before
it or in its middle).

A request is in the ledger before anything of its answer leaves, by one write to a file in append mode.
"""

import asyncio
import hashlib
import os
import random
import sys
from pathlib import Path

import orjson

PRESET = b"custom"
FATES = ("500", "500", "reset", "cut")


class Ledgers:
    """One file a job."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptors: dict[str, int] = {}
        self._count = 0

    def add(self, name: str, body: bytes, disposition: str) -> tuple[str, str]:
        """Notes a request; gives its answer's id and its text."""
        self._count += 1
        text = orjson.loads(body)["messages"][-1]["content"].removeprefix("Echo: ")
        identity = f"chatcmpl-{self._count}-{random.getrandbits(32):08x}"
        key = hashlib.sha256(PRESET + b"\0" + body).digest()[:16].hex()
        paid = disposition != "500"
        note = {
            "event": "request",
            "key": key,
            "text": text,
            "id": identity,
            "paid": paid,
            "disposition": disposition,
        }
        if name not in self._descriptors:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            self._descriptors[name] = os.open(self._folder / f"{name}.jsonl", flags, 0o600)
        os.write(self._descriptors[name], orjson.dumps(note) + b"\n")
        return identity, text


async def serve_connection(
    ledgers: Ledgers, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Requests of one connection, one after the other."""
    try:
        while await serve_one(ledgers, reader, writer):
            pass
    except (ConnectionError, asyncio.IncompleteReadError):
        pass  # the client was killed, which is what this is for
    finally:
        writer.close()


async def serve_one(ledgers: Ledgers, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """One request; whether the connection stays open."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    length = next(
        int(line.partition(":")[2])
        for line in head.split("\r\n")
        if line.lower().startswith("content-length:")
    )
    body = await reader.readexactly(length)
    _, name, latency_ms, percent, *_ = head.split(" ", 2)[1].split("/")
    disposition = random.choice(FATES) if random.random() * 100 < float(percent) else "answer"
    identity, text = ledgers.add(name, body, disposition)
    await asyncio.sleep(float(latency_ms) / 1000 * random.uniform(0.5, 1.5))
    if disposition == "reset":
        writer.transport.abort()
        return False
    if disposition == "500":
        error = {"message": "a fault that was ordered", "type": "server_error", "code": None, "param": None}
        status, content = disposition, orjson.dumps({"error": error})
    else:
        status, content = "200", answer(identity, text)
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    writer.write(head.encode() + (content[: len(content) // 2] if disposition == "cut" else content))
    await writer.drain()
    return disposition != "cut"


def answer(identity: str, text: str) -> bytes:
    """A chat completion that says the text again."""
    message = {"role": "assistant", "content": f"echo of {text}"}
    return orjson.dumps(
        {
            "id": identity,
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": "echo",
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
        }
    )


async def serve(folder: Path) -> None:
    ledgers = Ledgers(folder)
    server = await asyncio.start_server(
        lambda reader, writer: serve_connection(ledgers, reader, writer), "127.0.0.1", 0, backlog=1024
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    os._exit(0)  # connections that wait for an answer keep nobody waiting


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
