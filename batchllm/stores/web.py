"""Reads files behind web addresses with plain GET requests.

A server with strong ETags and ranges is read in parts (RFC 9110, 13 and 14); any other sends its whole file at once.
HEAD is not used, since signed URLs often allow GET only. Redirects are followed, but never from https to http, or to
plain http outside private networks.
"""

import http.client
import re
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from batchllm.errors import InputError
from batchllm.hosts import is_local
from batchllm.stores.failures import changed, unreachable
from batchllm.stores.url import ObjectUrl

T = TypeVar("T")

_TIMEOUT_S = 30
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "batchllm"}
_BUFFER_BYTES = 1 << 18
_WAITS_S = (0.2, 0.5, 1, 2, 4, 8)
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_TOTAL = re.compile(r"bytes \d+-\d+/(\d+)")


class _Lost(Exception):
    """The connection broke, or the server is busy: worth another attempt."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects that keep the content private."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        target = urlsplit(newurl)
        is_private = target.scheme == "http" and req.type == "http" and is_local(target.hostname or "")
        if target.scheme != "https" and not is_private:
            fp.close()
            where = "plain http, where anybody can read it" if target.scheme == "http" else "another scheme"
            raise InputError(req.shown, f"it redirects to {where}; use another URL")
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following is not None:
            following.shown = req.shown  # type: ignore[attr-defined]
        return following


def probe(url: ObjectUrl) -> tuple[int | None, str | None] | None:
    """Returns size and ETag of a file that can be read in parts, ``(None, None)`` of any other, ``None`` of none.

    Raises:
        InputError: The server refuses to send it.
        StorageFailure: The server cannot be reached.
    """

    def first_byte() -> tuple[int | None, str | None] | None:
        try:
            response = _get(url, {"Range": "bytes=0-0"})
        except urllib.error.HTTPError as error:
            if error.code in (404, 410):
                return None
            if error.code == 416:  # nothing has a first byte
                return None, None
            raise
        with response:
            etag = response.headers.get("ETag", "")
            total = _TOTAL.fullmatch(response.headers.get("Content-Range", ""))
            is_plain = response.status == 206 and not response.headers.get("Content-Encoding")
            return (int(total[1]), etag) if is_plain and total and etag.startswith('"') else (None, None)

    return _attempts(url, first_byte)


def read(url: ObjectUrl, start: int, stop: int, *, etag: str | None) -> bytes:
    """Returns a part of a file; see ``objects.read``."""

    def part() -> bytes:
        headers = {"Range": f"bytes={start}-{stop - 1}", **({"If-Match": etag} if etag else {})}
        with _get(url, headers) as response:
            if response.status != 206 or (etag and response.headers.get("ETag", etag) != etag):
                raise changed(url)
            content: bytes = response.read()
        if len(content) < stop - start and f"/{start + len(content)}" not in response.headers.get(
            "Content-Range", ""
        ):
            raise _Lost("the connection was lost")
        return content

    return _attempts(url, part)


def stream(url: ObjectUrl, start: int = 0) -> Iterator[bytes]:
    """Yields the content of a file from one request, without the compression of its transport.

    Raises:
        InputError: The server refuses to send it, or sends it in an unknown coding.
        StorageFailure: The server cannot be reached, or the connection was lost on the way.
    """
    response = _attempts(url, lambda: _get(url, {}))
    with response:
        pieces = _unpacked(url, response.headers.get("Content-Encoding") or "identity", _received(response))
        skip = start
        try:
            for piece in pieces:
                if piece[skip:]:
                    yield piece[skip:]
                skip = max(0, skip - len(piece))
        except (OSError, http.client.HTTPException, zlib.error, _Lost):
            raise unreachable(url, "the connection was lost") from None


def _received(response: Any) -> Iterator[bytes]:
    """Yields the body of a response as it came; raises ``_Lost`` where it is shorter than was said."""
    received = 0
    while piece := response.read(_BUFFER_BYTES):
        received += len(piece)
        yield piece
    expected = response.headers.get("Content-Length")
    if expected is not None and expected.isdigit() and received != int(expected):
        raise _Lost


def _unpacked(url: ObjectUrl, coding: str, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Undoes the compression of the transport; that of a file whose name ends with ``.gz`` is the file's own."""
    if coding == "identity" or (coding in ("gzip", "x-gzip") and url.suffix == ".gz"):
        return pieces
    if coding in ("gzip", "x-gzip"):
        return _gunzipped(pieces)
    raise InputError(url, f"the server sends it as {coding[:20]!r}, which cannot be read; download it first")


def _gunzipped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Undoes gzip, which may have several members (RFC 1952, 2.2); raises ``_Lost`` within one."""
    member, received = zlib.decompressobj(wbits=31), False
    for piece in pieces:
        received = True
        yield member.decompress(piece)
        while member.eof and (rest := member.unused_data.lstrip(b"\0")):
            member = zlib.decompressobj(wbits=31)
            yield member.decompress(rest)
    if received and not member.eof:
        raise _Lost


def _get(url: ObjectUrl, headers: dict[str, str]) -> Any:
    target = f"{url.scheme}://{url.bucket}/{url.key}{f'?{url.query}' if url.query else ''}"
    target = quote(target, safe="%/:?#[]@!$&'()*+,;=~-._")
    request: Any = urllib.request.Request(target, headers={**_HEADERS, **headers})  # noqa: S310
    request.shown = str(url)
    return urllib.request.build_opener(_Redirects).open(request, timeout=_TIMEOUT_S)


def _attempts(url: ObjectUrl, request: Callable[[], T]) -> T:
    for wait_s in (*_WAITS_S, None):
        try:
            return request()
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 412:
                raise changed(url) from None
            if error.code not in _TRANSIENT:
                raise InputError(
                    url, f"the server refuses to send it (HTTP {error.code}); {_advice(error.code)}"
                ) from None
            said = f"HTTP {error.code}"
        except (OSError, http.client.HTTPException, _Lost) as error:
            said = _said(error)
        if wait_s is None:
            raise unreachable(url, said)
        time.sleep(wait_s)
    raise AssertionError("the last attempt returns or raises")


def _advice(status: int) -> str:
    if status in (401, 403):
        return "get a URL that is valid, since signed ones expire"
    return "correct the URL"


def _said(error: BaseException) -> str:
    reason = getattr(error, "reason", error)
    if "certificate" in str(reason).lower():
        return "its certificate is not trusted"
    strerror = getattr(reason, "strerror", None)
    return strerror if isinstance(strerror, str) and strerror else "the connection was lost"
