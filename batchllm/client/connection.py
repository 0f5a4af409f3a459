"""How to connect to an endpoint: the headers of a chat request, the OpenAI SDK for everything else, TLS, proxy.

The SDK takes 0.6 s of CPU to load, so it is loaded only where models, files or batches are asked for. Both ways
send the headers of ``presets.auth_headers`` and read ``OPENAI_CUSTOM_HEADERS`` as the SDK does.
"""

import os
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

from batchllm import __version__, presets
from batchllm.errors import UsageError
from batchllm.records import Endpoint

if TYPE_CHECKING:
    import httpx2
    import openai

_NO_KEY = "no-key-needed"
_BODY = {"accept": "application/json", "content-type": "application/json", "accept-encoding": "gzip, deflate"}


def chat_headers(endpoint: Endpoint) -> dict[str, str]:
    """Returns the headers of every chat request to an endpoint, by names in lower case."""
    return _BODY | _headers(endpoint)


def sdk_client(endpoint: Endpoint) -> "openai.AsyncOpenAI":
    """Returns the SDK's client of an endpoint. It never retries: ``batchllm.retry`` decides that."""
    import openai

    headers = _headers(endpoint)
    hooks = [] if "authorization" in headers else [_drop_authorization]
    base_url, version = endpoint.base_url, endpoint.azure_api_version
    client = openai.AsyncOpenAI(
        api_key=endpoint.api_key or _NO_KEY,
        base_url=base_url if version is None else presets.azure_root(base_url.rstrip("/")),
        default_query=None if version is None else {"api-version": version},
        default_headers=headers,
        max_retries=0,
        http_client=openai.DefaultAsyncHttpxClient(follow_redirects=False, event_hooks={"request": hooks}),
    )
    # Not as arguments: the SDK would fill a None from the environment, also for endpoints of others.
    client.organization, client.project = endpoint.organization, endpoint.project
    return client


async def _drop_authorization(request: "httpx2.Request") -> None:
    """Removes the header that the SDK always sends, for endpoints that take no key or take it elsewhere."""
    request.headers.pop("authorization", None)


def _headers(endpoint: Endpoint) -> dict[str, str]:
    """Returns what both ways send, the user's own last."""
    own = {"User-Agent": f"batchllm/{__version__}", **presets.auth_headers(endpoint)}
    custom = _custom_headers()
    if not endpoint.api_key:  # a key in the variable is not meant for an endpoint that takes none
        custom = {name: value for name, value in custom.items() if name.lower() not in presets.key_headers()}
    layers: tuple[Mapping[str, str], ...] = (own, custom, endpoint.headers)
    return {name.lower(): value for layer in layers for name, value in layer.items()}


def _custom_headers() -> dict[str, str]:
    lines = os.environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n")
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}


def proxy_of(base_url: str) -> str | None:
    """Returns the proxy that the environment names for a URL; loopback is never proxied.

    Raises:
        UsageError: The environment asks for a SOCKS proxy, which the transport cannot speak.
    """
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    if host in ("localhost", "::1") or host.startswith("127."):
        return None
    proxies = getproxies_environment()
    if proxy_bypass_environment(host, proxies):
        return None
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy:
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    scheme = urlsplit(proxy).scheme
    if scheme not in ("http", "https"):
        raise UsageError(
            f"the environment names a {scheme} proxy; set HTTPS_PROXY to an http:// proxy instead"
        )
    return proxy


def ssl_context() -> ssl.SSLContext:
    """Returns the SDK's TLS settings: ``SSL_CERT_FILE``, else the certificates that come with it."""
    import httpx2

    return httpx2.create_ssl_context()
