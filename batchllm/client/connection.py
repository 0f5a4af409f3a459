"""How to ask an endpoint: the headers of a chat request, and the OpenAI SDK for everything else.

The SDK takes 0.6 s of CPU to load, so it is loaded only where models, files or batches are asked for. Both ways
send the headers of ``presets.auth_headers`` and read ``OPENAI_CUSTOM_HEADERS`` as the SDK does.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from batchllm import __version__, presets
from batchllm.client.route import proxy_of, ssl_context
from batchllm.client.secrets import Mask, custom_headers, secrets_in
from batchllm.records import Endpoint

if TYPE_CHECKING:
    import httpx2
    import openai

_NO_KEY = "no-key-needed"
_BODY = {"accept": "application/json", "content-type": "application/json", "accept-encoding": "gzip, deflate"}


def chat_headers(endpoint: Endpoint) -> dict[str, str]:
    """Returns the headers of every chat request to an endpoint, by names in lower case."""
    return _BODY | _headers(endpoint)


def mask_of(endpoint: Endpoint) -> Mask:
    """Returns what hides the secrets of every request to an endpoint in its replies."""
    proxy = proxy_of(endpoint.base_url)
    key = {endpoint.api_key} if endpoint.api_key else set()
    return Mask(key | secrets_in(_headers(endpoint)) | (proxy.secrets if proxy else set()))


def sdk_client(endpoint: Endpoint) -> "openai.AsyncOpenAI":
    """Returns the SDK's client of an endpoint. It never retries: ``batchllm.retry`` decides that.

    Raises:
        UsageError: The environment's proxy or certificates cannot be used.
    """
    import httpx2
    import openai

    proxy, context = proxy_of(endpoint.base_url), ssl_context()
    over_tls = context if proxy is not None and proxy.url.lower().startswith("https") else None
    headers = _headers(endpoint)
    hooks = [] if "authorization" in headers else [_drop_authorization]
    base_url, version = endpoint.base_url, endpoint.azure_api_version
    client = openai.AsyncOpenAI(
        api_key=endpoint.api_key or _NO_KEY,
        base_url=base_url if version is None else presets.azure_root(base_url.rstrip("/")),
        default_query=None if version is None else {"api-version": version},
        default_headers=headers,
        max_retries=0,
        http_client=openai.DefaultAsyncHttpxClient(
            follow_redirects=False,
            event_hooks={"request": hooks},
            trust_env=False,
            verify=context,
            proxy=None if proxy is None else httpx2.Proxy(proxy.url, ssl_context=over_tls),
        ),
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
    custom = custom_headers()
    if not endpoint.api_key:  # a key in the variable is not meant for an endpoint that takes none
        custom = {name: value for name, value in custom.items() if name.lower() not in presets.key_headers()}
    layers: tuple[Mapping[str, str], ...] = (own, custom, endpoint.headers)
    return {name.lower(): value for layer in layers for name, value in layer.items()}
