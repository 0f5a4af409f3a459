"""The benchmarks' own endpoint: a chat answer after a known latency, for hundreds of requests at once.

It costs some 40 µs a request, so that 400 slow answers in flight weigh nothing, and it knows what a static
server cannot: when the first request came, and how many. A request is a timer, not a task. The latency of a
row depends on its tag alone: every contender meets the same slow rows.

``python benchmarks/endpoint.py --port 8081 --latency 0.5 --sigma 1``
"""

import argparse
import asyncio
import json
import math
import random
import re

from rows import tag_of

_TAG = re.compile(rb"row-(\d{7})")
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_HEAD = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
_ANSWER = (
    '{{"id":"chatcmpl-benchmark{tag}","object":"chat.completion","created":1760000000,'
    '"model":"benchmark-1","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}",'
    '"refusal":null,"annotations":[]}},"logprobs":null,"finish_reason":"stop"}}],'
    '"usage":{{"prompt_tokens":140,"completion_tokens":24,"total_tokens":164,'
    '"prompt_tokens_details":{{"cached_tokens":0,"audio_tokens":0}},'
    '"completion_tokens_details":{{"reasoning_tokens":0,"audio_tokens":0,'
    '"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}},'
    '"service_tier":"default","system_fingerprint":"fp_benchmark"}}'
)
_SENTENCE = (
    "The customer says that the package arrived late and broken, that support answered within a day, "
    "and that the refund was paid in full."
)


def answer(tag: str = "") -> str:
    """The body of a chat answer; with a tag, the answer names it."""
    return _ANSWER.format(tag=tag, text=f"{tag} {_SENTENCE}".strip())


def latency_of(index: int, median_s: float, sigma: float) -> float:
    """Seconds until the row's answer: the median itself, or lognormal around it."""
    if sigma == 0.0:
        return median_s
    return random.Random(index).lognormvariate(math.log(median_s), sigma)


class Counts:
    """What the endpoint has seen since it was last asked to forget."""

    def __init__(self) -> None:
        self.requests = 0
        self.first_at: float | None = None


class Connection(asyncio.Protocol):
    """One connection: cuts requests out of the stream, answers each when its time has come."""

    def __init__(self, counts: Counts, median_s: float, sigma: float) -> None:
        self._counts = counts
        self._median_s = median_s
        self._sigma = sigma
        self._loop = asyncio.get_running_loop()
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._buffer, 0, end)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self._buffer) < whole:
                return
            request, self._buffer = self._buffer[:whole], self._buffer[whole:]
            if request.startswith(b"POST"):
                self._chat(request)
            else:
                self._control(request)

    def _chat(self, request: bytes) -> None:
        counts = self._counts
        if counts.first_at is None:
            counts.first_at = self._loop.time()
        counts.requests += 1
        found = _TAG.search(request)
        index = int(found[1]) if found else 0
        body = answer(tag_of(index) if found else "")
        if self._median_s:
            self._loop.call_later(latency_of(index, self._median_s, self._sigma), self._reply, body)
        else:
            self._reply(body)

    def _control(self, request: bytes) -> None:
        counts = self._counts
        body = json.dumps({"requests": counts.requests, "first_at": counts.first_at})
        if request.startswith(b"GET /forget"):
            counts.requests, counts.first_at = 0, None
        self._reply(body)

    def _reply(self, body: str) -> None:
        if not self._transport.is_closing():
            self._transport.write((_HEAD.format(length=len(body)) + body).encode())


async def serve(port: int, median_s: float, sigma: float) -> None:
    """Serves until the process is ended."""
    counts = Counts()
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(counts, median_s, sigma), "127.0.0.1", port, backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--sigma", type=float, default=0.0)
    options = parser.parse_args()
    asyncio.run(serve(options.port, options.latency, options.sigma))
