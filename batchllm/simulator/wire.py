"""Answers that break on the wire."""

import socket
import struct
from collections.abc import Mapping

from aiohttp import web

_RST = struct.pack("ii", 1, 0)  # linger on, zero seconds: close sends RST
_GARBAGE = b"<html><head><title>502 Bad Gateway</title></head><body>upstream</body></html>"


def garbage(headers: Mapping[str, str]) -> web.Response:
    """A page of a proxy, with status 200."""
    return web.Response(body=_GARBAGE, content_type="text/html", headers=headers)


def abort(request: web.BaseRequest, *, reset: bool) -> web.Response:
    """Close the connection without a word, by RST if ``reset``; what it returns is never sent."""
    transport = request.transport
    if transport is not None:
        if reset:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
        transport.abort()
    return web.Response()


async def send_half(
    request: web.BaseRequest, content: bytes, headers: Mapping[str, str]
) -> web.StreamResponse:
    """Announce all of ``content``, send half of it, and close."""
    response = web.StreamResponse(headers={**headers, "content-type": "application/json"})
    response.content_length = len(content)
    await response.prepare(request)
    await response.write(content[: len(content) // 2])
    if request.transport is not None:
        request.transport.close()
    return response
