"""The endpoints of a job that has several: from ``[[endpoints]]``, or options that are given several times.

Each has its own URL, key and limits. The key of a request has the first preset and the job's model only, so endpoints
can be added, removed and reordered between runs.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from batchllm.errors import UsageError, did_you_mean, listed, refuse_unknown
from batchllm.job.connection import endpoint, with_key
from batchllm.job.layers import Given, Layer
from batchllm.job.options import OPTIONS
from batchllm.job.values import number
from batchllm.presets import SIMULATOR
from batchllm.printable import counted
from batchllm.records import Endpoint, Pace

if TYPE_CHECKING:
    from batchllm.job.record import Job

_CONNECTION = ("provider", "base_url", "api_key_file", "header", "allow_http")
_PACE = {"rpm": "requests_per_minute", "tpm": "tokens_per_minute", "concurrency": "concurrency"}
_KEYS = (*_CONNECTION, *_PACE, "model", "weight")
_WEIGHT = number(0, 1_000, above=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEndpoint:
    """One of several endpoints of a job.

    Attributes:
        endpoint: Where requests go; its ``model`` is the job's.
        pace: The settings of the job, with the limits of this endpoint.
        weight: Its share of the requests, compared with the others', where all of them have room.
        names: What it calls models, by the names that requests have; a model that is not in it goes by its own name.
    """

    endpoint: Endpoint
    pace: Pace
    weight: float = 1.0
    names: Mapping[str, str] = field(default_factory=dict)


def endpoints_of(job: "Job") -> tuple[Endpoint, ...]:
    """Returns where requests of a job go: one endpoint, or several."""
    return tuple(each.endpoint for each in job.endpoints) or (job.endpoint,)


def names_of(job: "Job") -> tuple[str, ...]:
    """Returns what the endpoints of a job are called: their URLs, numbered where several keys go to one."""
    names: list[str] = []
    for each in endpoints_of(job):
        name = SIMULATOR if each.preset == SIMULATOR else each.base_url
        same = sum(other.partition(" #")[0] == name for other in names)
        names.append(f"{name} #{same + 1}" if same else name)
    return tuple(names)


def check_names(job: "Job") -> None:
    """Refuses an endpoint's own name for a model that the job does not have, which no request would be sent under.

    Raises:
        UsageError: There is such a name.
    """
    jobs = [step.job for step in job.steps] or [job]
    models = {each.endpoint.model for each in jobs}
    if "" in models or any(each.per_row or "model" in each.all_parameters for each in jobs):
        return  # they are known only when they are read
    for each in (each for one in jobs for each in one.endpoints):
        for name in each.names:
            if name not in models:
                raise UsageError(
                    f"the model table of the endpoint {each.endpoint.base_url} names {name}, which is no model of this "
                    f"job{did_you_mean(name, models)}; correct it, or remove it; the job has {listed(sorted(models))}"
                )


def with_endpoints(job: "Job", changed: Callable[[Endpoint], Endpoint]) -> "Job":
    """Returns a job each of whose endpoints is changed."""
    several = tuple(dataclasses.replace(each, endpoint=changed(each.endpoint)) for each in job.endpoints)
    return dataclasses.replace(job, endpoint=changed(job.endpoint), endpoints=several)


def with_model(job: "Job", model: str) -> "Job":
    """Returns a job whose requests name this model."""
    before = job.endpoint.model
    job = with_endpoints(job, lambda each: dataclasses.replace(each, model=model))
    several = tuple(
        dataclasses.replace(
            each, names={model if name == before else name: own for name, own in each.names.items()}
        )
        for each in job.endpoints
    )
    return dataclasses.replace(job, endpoints=several)


def with_keys(job: "Job", environ: Mapping[str, str], api_key: str | None = None) -> "Job":
    """Returns a job with its keys again, which no copy of it in another process has.

    Raises:
        UsageError: A key is not where it was; the message says where that was.
    """
    return with_endpoints(job, lambda each: with_key(each, environ, api_key))


def endpoints_text(endpoints: Sequence[JobEndpoint]) -> str:
    """Returns the endpoints in words, each with the limits that are given for it."""
    words = []
    for each in endpoints:
        limits = ((each.pace.requests_per_minute, "RPM"), (each.pace.tokens_per_minute, "TPM"))
        given = ", ".join(f"{limit:,.0f} {name}" for limit, name in limits if limit is not None)
        words.append(f"{each.endpoint.base_url or 'this machine'}{f' ({given})' if given else ''}")
    return f"{counted(len(words), 'endpoint')}: {'; '.join(words)}"


def endpoints(
    given: Given,
    environ: Mapping[str, str],
    *,
    pace: Pace,
    template_model: Any,
    needs_key: bool,
    api_key: str | None,
) -> tuple[Endpoint, tuple[JobEndpoint, ...]]:
    """Returns the first endpoint of a job, and all of them where they are several or have settings of their own.

    Args:
        given: Flags, environment, job file.
        environ: The environment, for the variables of the SDK and of vendors.
        pace: The settings of the job.
        template_model: See ``connection.endpoint``; ``needs_key`` and ``api_key`` too.

    Raises:
        UsageError: Something is missing or wrong; the message says what to do.
    """
    found: list[JobEndpoint] = []
    first: Endpoint | None = None
    for each, table in _each(given, api_key):
        own = table.get("model")
        model = template_model
        if model is None and not given.has("model") and isinstance(own, str):
            model = first.model if first else own
        place = endpoint(each, environ, template_model=model, needs_key=needs_key, api_key=api_key)
        if first is None:
            first = place
            given.sources.update(each.sources)
            if model is own and own is not None:
                given.sources["model"] = "[[endpoints]]"
        limits = {limit: each.get(name) for name, limit in _PACE.items()}
        found.append(
            JobEndpoint(
                endpoint=dataclasses.replace(place, model=first.model),
                pace=dataclasses.replace(pace, **limits),
                weight=table.get("weight", 1.0),
                names={first.model: own} if isinstance(own, str) else own or {},
            )
        )
    assert first is not None, "there is always one endpoint"
    pairs = [(each.endpoint.base_url, each.endpoint.api_key) for each in found if each.endpoint.base_url]
    for url, key in pairs:
        if pairs.count((url, key)) > 1:
            raise UsageError(f"the endpoint {url} is given twice; give it once, with a higher weight")
    is_plain = len(found) == 1 and found[0].pace == pace and not found[0].names
    return first, () if is_plain else tuple(found)


def _each(given: Given, api_key: str | None) -> Iterator[tuple[Given, Mapping[str, Any]]]:
    """Yields the options of each endpoint, and what only ``[[endpoints]]`` has: ``model`` and ``weight``."""
    ranks = {name: given.rank(name) for name in ("endpoints", "provider", "base_url")}
    if ranks["endpoints"] < min(ranks["provider"], ranks["base_url"]):
        yield from _of_tables(given, ranks["endpoints"], api_key)
        return
    if ranks["endpoints"] < len(given.layers) and ranks["endpoints"] in (
        ranks["provider"],
        ranks["base_url"],
    ):
        name = "provider" if ranks["endpoints"] == ranks["provider"] else "base_url"
        raise UsageError(f"{given.called(name)} and [[endpoints]] both say where requests go; leave one out")
    providers, urls = given.get("provider") or (), given.get("base_url") or ()
    if len(providers) > 1:
        if ranks["base_url"] <= ranks["provider"]:
            raise UsageError(
                f"{given.called('base_url')} beside several providers: say with [[endpoints]] in a job file which URL "
                "is whose"
            )
        if given.has("api_key_file") or api_key is not None:
            raise UsageError(
                "one key for several providers: set each provider's own variable, or name the key files with "
                "[[endpoints]] in a job file"
            )
    name, several = ("provider", providers) if len(providers) > 1 else ("base_url", urls)
    for position, value in enumerate(several if len(several) > 1 else ()):
        sources = given.sources if position == 0 else dict(given.sources)
        yield Given(_with(given.layers, name, value), sources), {}
    if len(several) <= 1:
        yield given, {}


def _with(layers: tuple[Layer, ...], name: str, value: Any) -> tuple[Layer, ...]:
    """The layers with one value of an option that was given several times."""
    return tuple(
        dataclasses.replace(layer, values={**layer.values, name: value}) if name in layer.values else layer
        for layer in layers
    )


def _of_tables(given: Given, rank: int, api_key: str | None) -> Iterator[tuple[Given, Mapping[str, Any]]]:
    """Yields the endpoints of ``[[endpoints]]``; a limit on the command line holds for each of them."""
    file = given.layers[rank]
    tables = given.get("endpoints")
    if len(tables) > 1 and (api_key is not None or _names_a_key(given, rank)):
        raise UsageError(
            "one key for several endpoints: name the key file of each in its [[endpoints]] table, as api_key_file"
        )
    for position, table in enumerate(tables, 1):
        where = f"endpoint {position} of {file.file or 'endpoints'}"
        refuse_unknown(table, _KEYS, where)
        if "base_url" not in table and "provider" not in table:
            raise UsageError(f"{where} has neither base_url nor provider; give one of them")
        values = {name: table[name] for name in (*_CONNECTION, *_PACE) if name in table}
        own = Layer(values, file.source, file.file, {name: f"{name} of {where}" for name in values})
        stronger = [_without(layer, "api_key_file" in values) for layer in given.layers[:rank]]
        weaker = [_without(layer, True) for layer in given.layers[rank:]]
        if any("header" in layer.values for layer in weaker):
            shared = Given(tuple(weaker)).merged("header")
            own = dataclasses.replace(
                own, values={**values, "header": {**shared, **own.values.get("header", {})}}
            )
        for name in ("provider", "base_url"):
            if name in values and len(own.parsed(name)) > 1:
                raise UsageError(f"{own.called(name)} is several; give each its own [[endpoints]]")
        sources = given.sources if position == 1 else dict(given.sources)
        yield Given((*stronger, own, *weaker), sources), _of_table(table, where)


def _names_a_key(given: Given, rank: int) -> bool:
    """Whether a key file is named for the whole job, by a flag or in the job file."""
    layers = [layer for number, layer in enumerate(given.layers) if number in (0, rank)]
    return any("api_key_file" in layer.values for layer in layers)


def _without(layer: Layer, drops_key: bool) -> Layer:
    dropped = {"provider", "base_url", "endpoints", *(("api_key_file",) if drops_key else ())}
    return dataclasses.replace(
        layer, values={name: value for name, value in layer.values.items() if name not in dropped}
    )


def _of_table(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Checks what only ``[[endpoints]]`` has."""
    found: dict[str, Any] = {}
    model = table.get("model")
    if isinstance(model, Mapping):
        if not all(isinstance(name, str) and name.strip() for name in (*model, *model.values())):
            raise UsageError(f'{where}: model must be text, or a table such as {{ "gpt-4o" = "own-name" }}')
        found["model"] = dict(model)
    elif model is not None:
        try:
            found["model"] = OPTIONS["model"].kind(model)
        except ValueError as error:
            raise UsageError(f"{where}: model {error}") from None
    if "weight" in table:
        try:
            found["weight"] = _WEIGHT(table["weight"])
        except ValueError as error:
            raise UsageError(f"{where}: weight {error}") from None
    return found
