"""What a connection's exception means, in one sentence, whichever transport raised it.

aiohttp sends chat requests and httpx2 the SDK's; both wrap the exceptions of ``ssl`` and ``socket``, and those decide.
"""

import asyncio
import errno
import os
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp

from batchllm.client.route import Proxy, named_certificates
from batchllm.hosts import DEFAULT_PORTS
from batchllm.printable import one_line
from batchllm.records import FailureKind, Paid

_NO_SUCH_HOST = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNKNOWN_PROTOCOL"})
_PASSING = ("EOF", "INTERNAL_ERROR", "ZERO_RETURN", "SYSCALL")
_TLS_ALERT = re.compile(r"\\x15\\+x03")
"""How a TLS server's answer to plain http begins, as a parser's message shows it."""
_HANDSHAKE_TIMEOUT_S = 1.5
_GATEWAY = (429, 500, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a request was going.

    Attributes:
        base_url: The endpoint's root.
        proxy: The proxy in between.
    """

    base_url: str
    proxy: Proxy | None = None

    @property
    def address(self) -> str:
        """Returns host and port."""
        parts = urlsplit(self.base_url)
        return f"{parts.hostname}:{parts.port or DEFAULT_PORTS.get(parts.scheme, 80)}"

    @property
    def through(self) -> str:
        """Returns the proxy for a message."""
        return f"the proxy {self.proxy} (from {self.proxy.variable})" if self.proxy else "the proxy"


Meaning = tuple[FailureKind, Paid, str]


def meaning(error: BaseException, to: Destination) -> Meaning | None:
    """Returns kind, payment and sentence of a connection that was not made; ``None`` where it was made.

    Args:
        error: The transport's exception.
        to: Where the request was going.
    """
    if (status := _proxy_status(error)) is not None:
        return _proxy_refused(status, to)
    for cause in _causes(error):
        if isinstance(cause, aiohttp.ClientError | ssl.SSLWantReadError):
            continue  # aiohttp's classes inherit from ssl's without their attributes
        if isinstance(cause, ssl.SSLCertVerificationError):
            return FailureKind.TLS, Paid.NO, _certificate(cause, to)
        if isinstance(cause, ssl.SSLError) and _connecting(error):
            return _tls(cause, to)
        if isinstance(cause, socket.gaierror):
            return _unknown_host(cause, error, to)
    if _TLS_ALERT.search(str(error)):
        return speaks_tls(to)
    if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
        return FailureKind.CONNECT, Paid.NO, f"not a usable URL: {to.base_url}"
    return _not_connected(error, to) if _connecting(error) else None


def speaks_tls(to: Destination) -> Meaning:
    """Returns the meaning of plain http sent to a port that speaks TLS."""
    other = "https" + to.base_url.removeprefix("http")
    return FailureKind.TLS, Paid.NO, f"{to.address} speaks TLS, not plain http: the URL is probably {other}"


async def port_speaks_tls(to: Destination) -> bool:
    """Returns whether a TLS handshake succeeds at the port of a plain ``http`` URL; sends nothing else."""
    parts = urlsplit(to.base_url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        async with asyncio.timeout(_HANDSHAKE_TIMEOUT_S):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port or 80, ssl=context)
    except (OSError, ValueError):
        return False
    writer.transport.abort()
    return True


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yields an exception and what it wraps, the outermost first."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        found = waiting.pop(0)
        if found is None or id(found) in seen or len(seen) > 20:
            continue
        seen.add(id(found))
        yield found
        if isinstance(found, BaseExceptionGroup):
            waiting += found.exceptions
        inner = (getattr(found, name, None) for name in ("certificate_error", "os_error"))
        waiting += [each for each in inner if isinstance(each, BaseException)]
        waiting += [found.__cause__, found.__context__]


def _connecting(error: BaseException) -> bool:
    """Whether no connection was made, so that nothing was sent."""
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return True
    return any(type(cause).__name__ in ("ConnectError", "ConnectTimeout") for cause in _causes(error))


def _proxy_status(error: BaseException) -> int | None:
    """The status with which a proxy refused a tunnel."""
    for cause in _causes(error):
        if isinstance(cause, aiohttp.ClientHttpProxyError):
            return cause.status
        if type(cause).__name__ == "ProxyError":
            word = str(cause).split(maxsplit=1)[:1]
            return int(word[0]) if word and word[0].isdecimal() else 0
    return None


def _proxy_refused(status: int, to: Destination) -> Meaning:
    if status == 407:
        name = to.proxy.variable if to.proxy else "HTTPS_PROXY"
        words = f"{to.through} refused name and password, or got none (407): set {name} to http://name:password@host:port"
        return FailureKind.PROXY, Paid.NO, words
    words = f"{to.through} does not connect to {to.address}" + (f" ({status})" if status else "")
    return FailureKind.CONNECT if status in _GATEWAY else FailureKind.PROXY, Paid.NO, words


def _certificate(error: ssl.SSLCertVerificationError, to: Destination) -> str:
    named = " and ".join(f"{name} ({path})" for name, path in named_certificates().items())
    hint = (
        f"trusted are the certificates of {named}"
        if named
        else "if your organization signs it, name its certificates in SSL_CERT_FILE"
    )
    said = (error.verify_message or str(error)).rstrip(".")
    return f"the certificate of {to.address} is not valid ({said}); {hint}"


def _tls(error: ssl.SSLError, to: Destination) -> Meaning:
    reason = error.reason or str(error)
    if reason in _NO_TLS:
        proxied = to.proxy is not None and to.proxy.url.startswith("https")
        where = f"{to.through} or {to.address}" if proxied else to.address
        other = "http" + to.base_url.removeprefix("https")
        return FailureKind.TLS, Paid.NO, f"{where} does not speak TLS: the URL is perhaps {other}"
    words = f"the TLS handshake with {to.address} failed: {reason.lower().replace('_', ' ')}"
    passing = any(word in reason.upper() for word in _PASSING)
    return FailureKind.CONNECT if passing else FailureKind.TLS, Paid.NO, words


def _unknown_host(error: socket.gaierror, raised: BaseException, to: Destination) -> Meaning:
    kind = FailureKind.UNKNOWN_HOST if error.errno in _NO_SUCH_HOST else FailureKind.DNS
    said = (error.strerror or str(error)).rstrip(".")
    if to.proxy is not None:
        return kind, Paid.NO, f"the host name of {to.through} cannot be resolved: {said}"
    return kind, Paid.NO, f"the host name {urlsplit(to.base_url).hostname} cannot be resolved: {said}"


def _not_connected(error: BaseException, to: Destination) -> Meaning:
    where = f"{to.through}" if to.proxy is not None else to.address
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in errno.errorcode:
            assert cause.errno is not None
            return (
                FailureKind.CONNECT,
                Paid.NO,
                f"no connection to {where}: {os.strerror(cause.errno).lower()}",
            )
    if any(isinstance(cause, TimeoutError) or "Timeout" in type(cause).__name__ for cause in _causes(error)):
        return FailureKind.CONNECT, Paid.NO, f"no connection to {where}: timed out"
    said = [str(cause) for cause in _causes(error) if isinstance(cause, OSError) and str(cause)]
    return FailureKind.CONNECT, Paid.NO, one_line(f"no connection to {where}: {said[-1] if said else error}")
