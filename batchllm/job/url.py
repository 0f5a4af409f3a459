"""Base URLs: turns what people paste into the root of an API."""

from urllib.parse import SplitResult, urlsplit, urlunsplit

from batchllm.errors import UsageError
from batchllm.hosts import DEFAULT_PORTS, host_of, is_local, is_loopback

__all__ = ["host_of", "is_local", "is_loopback", "normalise"]

_REQUEST_PATHS = ("/chat/completions", "/completions", "/models")


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
    if parts.scheme not in DEFAULT_PORTS or not host or any(sign.isspace() for sign in url):
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
    if port is not None and port != DEFAULT_PORTS.get(parts.scheme):
        netloc += f":{port}"
    path = parts.path.rstrip("/")
    for ending in _REQUEST_PATHS:
        path = path.removesuffix(ending)
    return urlunsplit((parts.scheme, netloc, path.rstrip("/"), "", ""))
