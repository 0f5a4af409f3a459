"""The head of a chat request: its URL and its headers, as the OpenAI SDK makes them.

Loading the SDK takes 0.6 s of CPU, more than all the rest of a small job, so the head of the usual request is
written out here. A test holds it against the SDK's own, byte for byte. Where the head depends on more (Azure,
``OPENAI_CUSTOM_HEADERS``, a URL to be quoted, a platform that is not in the tables) the SDK itself is asked.
"""

import os
import platform
import re
from collections.abc import Mapping
from importlib.metadata import version
from typing import NamedTuple

from batchllm.records import Endpoint

_SYSTEMS = {"Linux": "Linux", "Darwin": "MacOS", "Windows": "Windows"}
_MACHINES = {"x86_64": "x64", "arm64": "arm64", "aarch64": "arm64"}
_PLAIN_URL = re.compile(r"https?://[a-z0-9.:\[\]-]+(?:/[A-Za-z0-9._~-]+)*/?")
_READ_TIMEOUT_S = 600
"""The SDK's own default; what ends an attempt here is the client's deadline."""


class Head(NamedTuple):
    """What stands before the body of a request.

    Attributes:
        url: Where to.
        headers: All but those that depend on the body or the connection, by names in lower case.
    """

    url: str
    headers: Mapping[str, str]


async def head_of(endpoint: Endpoint, model: str) -> Head:
    """The head of every chat request for a model."""
    system, machine = _SYSTEMS.get(platform.system()), _MACHINES.get(platform.machine().lower())
    if (
        endpoint.azure_api_version is not None
        or _PLAIN_URL.fullmatch(endpoint.base_url) is None
        or "OPENAI_CUSTOM_HEADERS" in os.environ
        or system is None
        or machine is None
    ):
        from batchllm.client.sdk import sdk_head_of

        url, headers = await sdk_head_of(endpoint, model)
    else:
        url, headers = (
            f"{endpoint.base_url.rstrip('/')}/chat/completions",
            _headers(endpoint, system, machine),
        )
    return Head(url, {**headers, "accept-encoding": "gzip, deflate"})


def _headers(endpoint: Endpoint, system: str, machine: str) -> dict[str, str]:
    sdk_version = version("openai")
    own = {
        "accept": "application/json",
        "content-type": "application/json",
        "user-agent": f"AsyncOpenAI/Python {sdk_version}",
        "x-stainless-lang": "python",
        "x-stainless-package-version": sdk_version,
        "x-stainless-os": system,
        "x-stainless-arch": machine,
        "x-stainless-runtime": platform.python_implementation(),
        "x-stainless-runtime-version": platform.python_version(),
        "x-stainless-async": "async:asyncio",
        "authorization": f"Bearer {endpoint.api_key}" if endpoint.api_key else None,
        "openai-organization": endpoint.organization,
        "openai-project": endpoint.project,
        "x-stainless-retry-count": "0",
        "x-stainless-read-timeout": str(_READ_TIMEOUT_S),
        **{name.lower(): value for name, value in endpoint.headers.items()},
    }
    return {name: value for name, value in own.items() if value is not None}
