"""Faults and latency that repeat from run to run, and answers that break on the connection.

Every draw depends on the seed and the number of the request alone, so the same requests in the same order get
the same faults in every run.
"""

import socket
import struct
from collections.abc import Mapping
from math import ceil, log
from random import Random

from aiohttp import web

from batchllm.simulator.errors import ApiError

FAULTS = ("timeout", "reset", "cut", "garbage", "empty", "filter")
CONNECTION_FAULTS = ("timeout", "reset", "cut", "garbage")
_LATENCY_SIGMA = 0.5  # of the logarithm
_RST = struct.pack("ii", 1, 0)  # linger on, zero seconds: close sends RST
_GARBAGE = b"<html><head><title>502 Bad Gateway</title></head><body>upstream</body></html>"


def random_of(seed: int, number: int, purpose: str) -> Random:
    """Returns a generator that draws the same for the same arguments."""
    return Random(f"{seed} {number} {purpose}")


def draw_fault(seed: int, number: int, rates: Mapping[str, float]) -> str | None:
    """Returns the fault of request ``number``, if it gets one; ``rates`` maps faults to probabilities."""
    if not rates:
        return None
    draw = random_of(seed, number, "fault").random()
    for kind, rate in rates.items():
        draw -= rate
        if draw < 0:
            return kind
    return None


def draw_latency_s(seed: int, number: int, median_s: float) -> float:
    """Returns the seconds that the answer to request ``number`` takes, of a lognormal law."""
    if not median_s:
        return 0.0
    return random_of(seed, number, "latency").lognormvariate(log(median_s), _LATENCY_SIGMA)


def injected_error(status: int, wait_s: float) -> ApiError:
    """Returns the error of an injected status; an injected 429 asks for ``wait_s`` seconds."""
    headers = {"x-simulator-injected": "1"}
    if status == 429:
        message = f"Rate limit reached. Please try again in {wait_s * 1000:.0f}ms."
        headers |= retry_after_headers(wait_s)
        return ApiError(status, message, "rate_limit_exceeded", "requests", headers=headers)
    if status >= 500:
        message = "The server had an error while processing your request."
        return ApiError(status, message, None, "server_error", headers=headers)
    return ApiError(status, f"Status {status}, injected.", headers=headers)


def retry_after_headers(wait_s: float) -> dict[str, str]:
    """Returns ``retry-after`` and ``retry-after-ms``, rounded up."""
    return {"retry-after": str(ceil(wait_s)), "retry-after-ms": str(ceil(wait_s * 1000))}


async def inject_fault(
    fault: str, request: web.BaseRequest, content: bytes, headers: Mapping[str, str]
) -> web.StreamResponse:
    """Breaks an answer: ``garbage`` is a proxy's page, ``cut`` half of the content, others close without a byte."""
    transport = request.transport
    if fault == "garbage" or transport is None:
        return web.Response(body=_GARBAGE, headers={**headers, "content-type": "text/html"})
    if fault == "cut":
        response = web.StreamResponse(headers=headers)
        response.content_length = len(content)
        await response.prepare(request)
        await response.write(content[: len(content) // 2])
        transport.close()
        return response
    if fault == "reset":
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
    transport.abort()
    return web.Response()  # never sent
