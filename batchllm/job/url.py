"""Base URLs: turns what people paste into the root of an API, and decides which hosts may have plain http."""

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit, urlunsplit

from batchllm.errors import UsageError

# RFC 1918, RFC 4193, and link-local addresses (RFC 3927, RFC 4291).
_PRIVATE = tuple(
    map(
        ipaddress.ip_network,
        ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7", "fe80::/10"),
    )
)
# Names that public DNS does not have: mDNS, home and company networks.
_PRIVATE_NAMES = (".local", ".home.arpa", ".internal")
# 134744072 is another spelling of the address 8.8.8.8.
_NUMBER = re.compile(r"\d+|0x[0-9a-f]+")
_REQUEST_PATHS = ("/chat/completions", "/completions", "/models")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def normalise(text: str, called: str) -> str:
    """Returns the root of an API: no slash at the end, no request path, host in lower case.

    Args:
        text: The URL.
        called: Its name in an error: ``--base-url``, ``OPENAI_BASE_URL``.

    Raises:
        UsageError: It is not an http URL, or has a password, a query or a fragment.
    """
    url = text.strip()
    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"{called} {text!r} is not a URL: {error}") from None
    if "://" not in url:
        hint = f" (did you mean {'http' if is_local(host) else 'https'}://{url}?)" if host else ""
        raise UsageError(f"{called} {text!r} is not a URL: it must begin with https:// or http://{hint}")
    if parts.scheme not in _DEFAULT_PORTS or not host or any(sign.isspace() for sign in url):
        raise UsageError(f"{called} {text!r} is not a URL of the form https://host/v1")
    if "@" in parts.netloc:
        raise UsageError(f"{called} must not hold a name or password; the key comes from the environment")
    if parts.query or parts.fragment:
        raise UsageError(
            f"{called} must not have a query or fragment; give the root of the API, such as {_root(parts, port)}"
        )
    return _root(parts, port)


def _root(parts: SplitResult, port: int | None) -> str:
    host = parts.hostname or ""
    netloc = f"[{host}]" if ":" in host else host
    if port is not None and port != _DEFAULT_PORTS.get(parts.scheme):
        netloc += f":{port}"
    path = parts.path.rstrip("/")
    for ending in _REQUEST_PATHS:
        path = path.removesuffix(ending)
    return urlunsplit((parts.scheme, netloc, path.rstrip("/"), "", ""))


def host_of(url: str) -> str:
    """The host of a URL, in lower case."""
    return urlsplit(url).hostname or ""


def is_loopback(host: str) -> bool:
    """Whether the host is this machine."""
    address = _address(host)
    return address.is_loopback if address else host == "localhost" or host.endswith(".localhost")


def is_local(host: str) -> bool:
    """Whether plain http to the host stays on this machine or in a private network.

    True for loopback, private, unique local and link-local addresses, and for names that public DNS does not
    have: of a single label (a container's, a neighbour's), ``.local``, ``.home.arpa`` and ``.internal``.
    """
    address = _address(host)
    if address:
        return address.is_loopback or any(
            address.version == network.version and address in network for network in _PRIVATE
        )
    single_label = "." not in host and not _NUMBER.fullmatch(host)
    return is_loopback(host) or single_label or host.endswith(_PRIVATE_NAMES)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
