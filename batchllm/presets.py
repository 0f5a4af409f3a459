"""Endpoints and models as data: URLs, keys, limits and differences.

The facts are in ``presets.toml``; no code branches on the name of a vendor. A new preset is an entry there.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from batchllm.errors import UsageError, did_you_mean
from batchllm.hosts import host_of
from batchllm.records import Endpoint

CUSTOM = "custom"
SIMULATOR = "simulator"
_FILE = Path(__file__).with_name("presets.toml")

_MODEL_TABLES = ("reasoning", "reasoning_refused", "reasoning_room_tokens", "output_limits")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchFacts:
    """The limits and terms of an endpoint's Batch API.

    Attributes:
        max_requests: Lines of one input file.
        max_bytes: Bytes of one input file.
        windows: Completion windows that may be asked for, the usual one first.
        discount: Share of the online price that is paid.
        endpoint: The ``endpoint`` of a batch and the ``url`` of each of its lines.
        offered: Whether the endpoint is known to have one, so that its price is shown to who did not ask for it.
    """

    max_requests: int
    max_bytes: int
    windows: tuple[str, ...]
    discount: float = 0.5
    endpoint: str = "/v1/chat/completions"
    offered: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One endpoint.

    Attributes:
        name: What ``--provider`` calls it; part of every request's key.
        base_url: Root of the API; empty where the user or the simulator supplies it.
        base_url_variable: Environment variable with the vendor's own endpoint URL.
        hosts: Host names, or suffixes that begin with a dot, that identify the preset of a URL.
        key_variable: Environment variable of the key; ``None`` where there is no key.
        key_header: Header that carries the key, with the scheme before the key where there is one
            (``Authorization: Bearer``, ``x-api-key``).
        needs_key: Whether requests without a key are refused.
        default_model: Cheap and without reasoning; empty where only ``/models`` knows.
        model_required: What the model is called where the user has to name it, else ``None``.
        default_parameters: Request parameters that go with the default model, below the template's.
        organizations: Whether it takes OpenAI's organisation and project headers.
        docs: Where the vendor describes the API.
        verified: Whether it was tested against the vendor's endpoint.
        charge: What a request counts toward the token limit, as ``records.Endpoint.charge``.
        json_schema: Whether ``response_format`` ``json_schema`` works; ``None`` is unknown.
        tools: Whether tool calls work; ``None`` is unknown.
        free: Whether it is known to cost nothing.
        azure_api_version: Set for Azure's own URL layout.
        batch: Its Batch API in OpenAI's shape, or ``None``.
    """

    name: str
    base_url: str = ""
    base_url_variable: str | None = None
    hosts: tuple[str, ...] = ()
    key_variable: str | None = None
    key_header: str = "Authorization: Bearer"
    needs_key: bool = True
    default_model: str = ""
    model_required: str | None = None
    default_parameters: Mapping[str, Any] = field(default_factory=dict)
    organizations: bool = False
    docs: str = ""
    verified: bool = False
    charge: str = "max_tokens"
    json_schema: bool | None = None
    tools: bool | None = None
    free: bool = False
    azure_api_version: str | None = None
    batch: BatchFacts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reasoning:
    """How to bound the answer of a model that reasons.

    Attributes:
        efforts: Values of ``reasoning_effort``, the lowest first; empty where there is no such parameter.
        refused: Parameters that it refuses, or ignores, while it reasons.
        max_tokens_parameter: The parameter that bounds reasoning and answer together.
        default_room_tokens: Room for reasoning where no effort is chosen.
        disabled_by: Request parameters that switch reasoning off, where there are such.
        rooms: Effort to tokens of room.
    """

    efforts: tuple[str, ...]
    refused: frozenset[str]
    max_tokens_parameter: str
    default_room_tokens: int
    disabled_by: Mapping[str, Any] = field(default_factory=dict)
    rooms: Mapping[str, int] = field(default_factory=dict, repr=False)

    @property
    def lowest_effort(self) -> str | None:
        """Returns the lowest effort, ``None`` where there is no such parameter."""
        return self.efforts[0] if self.efforts else None

    def room_tokens(self, effort: str | None) -> int:
        """Returns the tokens to allow for reasoning beside the visible answer."""
        return self.rooms.get(effort, self.default_room_tokens) if effort else self.default_room_tokens

    def refused_at(self, effort: str | None) -> frozenset[str]:
        """Returns the parameters to leave out at this effort; none at effort ``none``."""
        return frozenset() if effort == "none" else self.refused


def names() -> list[str]:
    """Returns the names of the presets, in the order of the file."""
    return [name for name in _data() if name not in _MODEL_TABLES]


@cache
def load(name: str) -> Preset:
    """Returns the preset of that name.

    Raises:
        UsageError: There is none; the message names the nearest and all others.
    """
    if name not in names():
        raise UsageError(
            f"--provider {name}: there is no such preset{did_you_mean(name, names())}; there are {', '.join(names())}, "
            "and --base-url takes any other endpoint"
        )
    table = dict(_data()[name])
    batch = table.pop("batch", None)
    return Preset(
        name=name,
        hosts=tuple(table.pop("hosts", ())),
        free=table.pop("price", None) == "free",
        batch=BatchFacts(**{**batch, "windows": tuple(batch["windows"])}) if batch else None,
        **table,
    )


def for_base_url(url: str) -> Preset | None:
    """Returns the preset of the vendor that serves this URL, by its host; ``None`` for other hosts.

    A loopback port identifies nothing, and the preset's name is part of every request's key, so a local engine that
    is named by its URL alone is ``custom`` on every host.
    """
    host = host_of(url)
    for name in names():
        preset = load(name)
        if any(host == known or (known.startswith(".") and host.endswith(known)) for known in preset.hosts):
            return preset
    return None


def auth_headers(endpoint: Endpoint) -> dict[str, str]:
    """Returns the headers that say who asks: the key where there is one, OpenAI's organization and project."""
    name, _, scheme = load(endpoint.preset).key_header.partition(":")
    headers = {
        name: f"{scheme} {endpoint.api_key}".strip() if endpoint.api_key else None,
        "OpenAI-Organization": endpoint.organization,
        "OpenAI-Project": endpoint.project,
    }
    return {name: value for name, value in headers.items() if value}


@cache
def key_headers() -> Mapping[str, str]:
    """Returns the headers that carry keys, in lower case, each with the first preset that uses it."""
    found: dict[str, str] = {}
    for name in names():
        found.setdefault(load(name).key_header.partition(":")[0].lower(), name)
    return found


def chat_url(endpoint: Endpoint, model: str) -> str:
    """Returns the URL of chat requests; Azure's older layout has the deployment in the path."""
    root = endpoint.base_url.rstrip("/")
    if endpoint.azure_api_version is None:
        return f"{root}/chat/completions"
    version = urlencode({"api-version": endpoint.azure_api_version})
    return f"{azure_root(root)}/deployments/{quote(model, safe='')}/chat/completions?{version}"


def azure_root(url: str) -> str:
    """Returns the URL below which Azure has its deployments, files and batches."""
    return url if "/openai" in url else f"{url}/openai"


def reasoning(model: str, parameters: Mapping[str, Any] | None = None) -> Reasoning | None:
    """Returns how a model reasons; ``None`` where it is not known to reason.

    Names are compared in lower case, without the vendor's prefix (``openai/gpt-5-mini``) or a tag behind
    a colon (``deepseek-r1:8b``).

    Args:
        model: The model of a request.
        parameters: The request's parameters, which may switch reasoning off.
    """
    known = _reasoning(model)
    if known and parameters and known.disabled_by:
        disabled = all(parameters.get(name) == value for name, value in known.disabled_by.items())
        return None if disabled else known
    return known


@cache
def _reasoning(model: str) -> Reasoning | None:
    base = _base_name(model)
    table = next((table for pattern, table in _reasoning_table() if pattern.fullmatch(base)), None)
    if table is None or not table.get("reasons", True):
        return None
    rooms: dict[str, int] = _data()["reasoning_room_tokens"]
    efforts = tuple(table["efforts"])
    return Reasoning(
        efforts=efforts,
        refused=frozenset(_data()["reasoning_refused"].get(table.get("refused"), ())),
        max_tokens_parameter=table.get("max_tokens_parameter", "max_tokens"),
        default_room_tokens=table["room_tokens"] if "room_tokens" in table else rooms[efforts[0]],
        disabled_by=table.get("disabled_by", {}),
        rooms=rooms,
    )


@cache
def _reasoning_table() -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    return [(re.compile(table["match"]), table) for table in _data()["reasoning"]]


@cache
def output_limit(model: str) -> int | None:
    """Returns the most tokens that a model's answer may have; ``None`` where that is not known.

    Names are compared as ``reasoning`` does.
    """
    base = _base_name(model)
    limits: dict[str, int] = _data()["output_limits"]
    return next((limit for pattern, limit in limits.items() if re.fullmatch(pattern, base)), None)


def _base_name(model: str) -> str:
    return model.lower().rsplit("/", 1)[-1].split(":", 1)[0]


@cache
def _data() -> dict[str, Any]:
    return tomllib.loads(_FILE.read_text("utf-8"))
