"""Faults and latency that repeat from run to run, and answers that break on the connection.

Every draw is a hash of the seed and the number of the request, so the same requests in the same order get
the same faults in every run. The hash is splitmix64 (Steele, Lea and Flood, 2014).
"""

import socket
import struct
from collections.abc import Mapping
from math import ceil, exp
from statistics import NormalDist

from aiohttp import web

from batchllm.simulator.errors import ApiError

FAULTS = ("timeout", "reset", "cut", "garbage", "empty", "filter")
CONNECTION_FAULTS = ("timeout", "reset", "cut", "garbage")
_MASK = (1 << 64) - 1
_NORMAL = NormalDist()
_FAULT, _LATENCY = 1, 2  # one stream of draws each
_LATENCY_SIGMA = 0.5  # of the logarithm
_RST = struct.pack("ii", 1, 0)  # linger on, zero seconds: close sends RST
_GARBAGE = b"<html><head><title>502 Bad Gateway</title></head><body>upstream</body></html>"

# What an injected status says, as OpenAI words it: message, type, code.
_MESSAGES: dict[int, tuple[str, str, str | None]] = {
    429: (
        "Rate limit reached for simulator in organization org-sim on requests per min (RPM).",
        "requests",
        "rate_limit_exceeded",
    ),
    500: ("The server had an error while processing your request. Sorry about that!", "server_error", None),
    503: ("That model is currently overloaded with other requests.", "server_error", "server_is_overloaded"),
}


def uniform(seed: int, number: int, stream: int = 0) -> float:
    """Returns a number from the open interval (0, 1), always the same for the same arguments."""
    z = (seed * 0x9E3779B97F4A7C15 + number * 0xD1B54A32D192ED03 + stream * 0x8CB92BA72F3D8DD7 + 1) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return (((z ^ (z >> 31)) >> 11) + 0.5) / (1 << 53)


def draw_fault(seed: int, number: int, rates: Mapping[str, float]) -> str | None:
    """Returns the fault of request ``number``, if it gets one; ``rates`` maps faults to probabilities."""
    if not rates:
        return None
    draw = uniform(seed, number, _FAULT)
    for kind, rate in rates.items():
        draw -= rate
        if draw < 0:
            return kind
    return None


def draw_latency_s(seed: int, number: int, median_s: float) -> float:
    """Returns the seconds that the answer to request ``number`` takes, of a lognormal law."""
    if not median_s:
        return 0.0
    return median_s * exp(_LATENCY_SIGMA * _NORMAL.inv_cdf(uniform(seed, number, _LATENCY)))


def injected_error(status: int, wait_s: float) -> ApiError:
    """Returns the error of an injected status; an injected 429 asks for ``wait_s`` seconds."""
    default = (f"Status {status}, injected by the simulator.", "invalid_request_error", None)
    message, kind, code = _MESSAGES.get(status, default)
    headers = {"x-simulator-injected": "1"}
    if status == 429:
        message += f" Please try again in {wait_s * 1000:.0f}ms."
        headers |= retry_after_headers(wait_s)
    return ApiError(status, message, code, kind, headers=headers)


def retry_after_headers(wait_s: float) -> dict[str, str]:
    """Returns ``retry-after`` and ``retry-after-ms``, rounded up."""
    return {"retry-after": str(ceil(wait_s)), "retry-after-ms": str(ceil(wait_s * 1000))}


async def inject_fault(
    fault: str, request: web.BaseRequest, content: bytes, headers: Mapping[str, str]
) -> web.StreamResponse:
    """Breaks an answer: ``garbage`` is a proxy's page, ``cut`` half of the content, others close without a byte."""
    if fault == "garbage":
        return web.Response(body=_GARBAGE, headers={**headers, "content-type": "text/html"})
    transport = request.transport
    if fault != "cut":
        if transport is not None:
            if fault == "reset":
                transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
            transport.abort()
        return web.Response()  # never sent
    response = web.StreamResponse(headers=headers)
    response.content_length = len(content)
    await response.prepare(request)
    await response.write(content[: len(content) // 2])
    if transport is not None:
        transport.close()
    return response
