"""From method and path to what is meant, under every base path that endpoints use.

``/v1/…``, ``/openai/v1/…``, ``/api/v1/…`` and alike; Azure's ``/openai/deployments/NAME/chat/completions``
and ``/openai/{files,batches,models}``, which need ``api-version`` in the query.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import parse_qs, unquote

from batchllm.simulator.problem import ApiError

_RESOURCES: tuple[tuple[str, re.Pattern[str], tuple[str, ...]], ...] = (
    ("chat", re.compile(r"/chat/completions"), ("POST",)),
    ("models", re.compile(r"/models"), ("GET",)),
    ("model", re.compile(r"/models/(.+)"), ("GET",)),
    ("files", re.compile(r"/files"), ("GET", "POST")),
    ("file", re.compile(r"/files/([^/]+)"), ("GET", "DELETE")),
    ("content", re.compile(r"/files/([^/]+)/content"), ("GET",)),
    ("batches", re.compile(r"/batches"), ("GET", "POST")),
    ("batch", re.compile(r"/batches/([^/]+)"), ("GET",)),
    ("cancel", re.compile(r"/batches/([^/]+)/cancel"), ("POST",)),
)
_BASE = re.compile(r"(?:/[\w.-]+)*?/v1(?=/)")
_AZURE = re.compile(r"/openai(?:/deployments/(?P<deployment>[^/]+))?(?=/)")


@dataclass(frozen=True, slots=True)
class Route:
    """What a request is for.

    Attributes:
        resource: ``chat``, ``models``, ``model``, ``files``, ``file``, ``content``, ``batches``, ``batch``,
            ``cancel`` or ``ledger``.
        identity: The id in the path; for chat, Azure's deployment.
    """

    resource: str
    identity: str | None = None


@lru_cache(maxsize=1024)
def route_of(method: str, path: str, query: str) -> Route:
    """Find the route.

    Raises:
        ApiError: 404 for an unknown URL, 405 for a method that it does not take.
    """
    if path == "/simulator/ledger":
        return Route("ledger")
    if base := _BASE.match(path):
        return _resource(method, path, path[base.end() :], None)
    azure = _AZURE.match(path)
    if azure and "api-version" not in parse_qs(query):
        raise ApiError(404, "Resource not found", "404")
    if azure:
        deployment = azure["deployment"]
        return _resource(method, path, path[azure.end() :], unquote(deployment) if deployment else None)
    raise _unknown(method, path)


def _resource(method: str, path: str, rest: str, deployment: str | None) -> Route:
    for resource, pattern, methods in _RESOURCES:
        if (found := pattern.fullmatch(rest)) is None:
            continue
        if method not in methods:
            hint = "(HINT: Perhaps you meant to use a different HTTP method?)"
            message = f"Not allowed to {method} on {path} {hint}"
            raise ApiError(405, message, "method_not_supported", headers={"allow": ", ".join(methods)})
        return Route(resource, unquote(found[1]) if found.groups() else deployment)
    raise _unknown(method, path)


def _unknown(method: str, path: str) -> ApiError:
    message = (
        f"Unknown request URL: {method} {path}. Please check the URL for typos, or see the docs at "
        "https://platform.openai.com/docs/api-reference/."
    )
    return ApiError(404, message, "unknown_url")
