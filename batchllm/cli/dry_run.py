"""``--dry-run``: what a job would send, for how much, and by which settings; nothing is sent and no file is made.

Everything goes to standard output: words for people, one JSON object with ``--json``, the first request as a
command with ``--curl``.
"""

import json
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from batchllm.cli.terminal import compact_or_unknown, counts, dollars, duration, price_words
from batchllm.errors import UsageError
from batchllm.progress import visible

if TYPE_CHECKING:
    from batchllm.inspect.dry_run import DryRun
    from batchllm.job import Job
    from batchllm.records import ChatRequest, Endpoint

_SECRET = re.compile(r"auth|key|token|secret|cookie|password", re.IGNORECASE)
_LONGEST_ARGUMENT = 100_000
"""Characters of one argument; Linux takes 128 KiB."""

_OTHER_NAMES: Mapping[str, str] = {"image": "images", "grace": "grace_s", "wait_lock": "wait_lock_s"}
_PACE_NAMES: Mapping[str, str] = {
    "rpm": "requests_per_minute", "tpm": "tokens_per_minute", "concurrency": "concurrency",
    "max_attempts": "max_attempts", "timeout": "timeout_s", "max_wait": "max_wait_s", "max_outage": "max_outage_s",
}  # fmt: skip
_VARIABLES = ("bullets", "labels", "language", "answer_language")


def dry_run(job: "Job", *, as_json: bool = False, as_curl: bool = False) -> None:
    """Prints what a run of the job would do.

    Raises:
        JobError: The job could not be run.
    """
    from batchllm.inspect import dry_run as inspect

    found = inspect.dry_run(job)
    if as_json:
        text = json.dumps(found.forecast.to_json())
    elif as_curl:
        text = curl(job, found)
    else:
        text = "\n".join(words(found))
    sys.stdout.write(visible(text) + "\n" if sys.stdout.isatty() and not as_curl else text + "\n")


def _roads(found: "DryRun") -> Iterator[str]:
    """The other road, where there is one."""
    from batchllm.budget.estimate import compare_modes

    offer = compare_modes(found.job, found.forecast)
    if offer is None:
        return
    batches = f"{offer.batches} batch{'es' if offer.batches > 1 else ''}"
    if found.job.via == "batch":
        yield f"Road: by batch, {batches} within {offer.window}; online {price_words(offer.online)}"
    else:
        known = offer.batch.cost_low is not None
        price = price_words(offer.batch) if known else f"{offer.batch_share:.0%} of the price"
        yield f"By batch: {price}, {batches} within {offer.window} (--via batch)"


def words(found: "DryRun") -> Iterator[str]:
    """The same for people."""
    forecast = found.forecast
    yield f"Rows: {forecast.rows:,}" + "".join(_parts(found))
    yield f"To send: {forecast.requests or 0:,} requests"
    counted = ", ".join(found.counted_with)
    how = (
        f"counted with {counted}"
        if forecast.exact
        else "an estimate" + (f" with {counted}" if counted else "")
    )
    yield f"Prompt tokens: {compact_or_unknown(forecast.prompt_tokens)} ({how})"
    yield (
        f"Answer tokens: {compact_or_unknown(forecast.completion_tokens_expected)} expected, "
        f"{compact_or_unknown(forecast.completion_tokens_upper_bound)} at most"
    )
    source = f" ({forecast.price.source})" if forecast.price is not None else ""
    expected = f", {dollars(forecast.cost_expected)} expected" if forecast.cost_expected else ""
    yield f"Price: {price_words(forecast).removeprefix('price ')}{expected}{source}"
    seconds = forecast.seconds
    yield "Time: " + (
        "unknown; no limit is given, and none was seen" if seconds is None else duration(seconds)
    )
    yield from _roads(found)
    yield ""
    yield "Settings:"
    rows = list(settings(found.job))
    width = max(len(name) for name, _, _ in rows)
    for name, value, source in rows:
        yield f"  {name:<{width}}  {value}  ({source})"
    for number, request in enumerate(found.first):
        yield ""
        yield (
            f"Request of row {request.row_index + 1}:"
            if number
            else (f"The first requests\nRequest of row {request.row_index + 1}:")
        )
        yield json.dumps(json.loads(request.body), indent=2, ensure_ascii=False)


def _parts(found: "DryRun") -> Iterator[str]:
    forecast = found.forecast
    for count, what in (
        (forecast.answered, "answered already"),
        (forecast.duplicate_rows, "equal to an earlier one"),
        (forecast.skipped, "empty"),
        (forecast.unsendable, f"that will fail unsent ({counts(found.unsendable)})"),
    ):
        if count:
            yield f", {count:,} {what}"


def settings(job: "Job") -> Iterator[tuple[str, str, str]]:
    """Every setting: its name, its value, and where that came from."""
    from batchllm.job.settings import SETTINGS

    for name in SETTINGS:
        value = _value(job, name)
        source = job.sources.get(name)
        if source is None:
            source = "template" if _of_template(job, name) else "default"
        yield name, _written(value), source


def _value(job: "Job", name: str) -> Any:
    endpoint, template = job.endpoint, job.template
    parameters = {**(template.parameters if template else {}), **job.parameters}
    variables = {**(template.variables if template else {}), **job.variables}
    match name:
        case "provider":
            return endpoint.preset
        case "base_url" | "model" | "allow_http":
            return getattr(endpoint, name)
        case "api_key_file":
            return endpoint.key_source
        case "header":
            return sorted(endpoint.headers)
        case "template" | "prompt":
            return (template.name if name == "template" else None) if template else None
        case "temperature" | "max_tokens":
            return parameters.get(name)
        case "param":
            return {
                key: value for key, value in parameters.items() if key not in ("temperature", "max_tokens")
            }
        case "var":
            return {key: value for key, value in variables.items() if key not in _VARIABLES}
        case "tools":
            return None if job.tools is None else f"{len(job.tools)} tools"
        case "no_early_stop":
            return not job.early_stop
    if name in _VARIABLES:
        return variables.get(name)
    if name in _PACE_NAMES:
        return getattr(job.pace, _PACE_NAMES[name])
    return getattr(job, _OTHER_NAMES.get(name, name))


def _of_template(job: "Job", name: str) -> bool:
    template = job.template
    if template is None:
        return False
    if name == "param":
        return bool(set(template.parameters) - {"temperature", "max_tokens"})
    return name in template.parameters or (name in _VARIABLES and name in template.variables)


def _written(value: Any) -> str:
    """A value as one reads it; ``-`` where there is none."""
    if value is None or value in ("", (), [], {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    if isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False, default=str)
    return f"{value:g}" if isinstance(value, float) else str(value)


def curl(job: "Job", found: "DryRun") -> str:
    """The first request as a command for a shell, with the key left to the environment.

    Raises:
        UsageError: No row would be sent.
    """
    if not found.first:
        raise UsageError("there is no request to show: no row of the input would be sent")
    request = found.first[0]
    parts = [f"curl {shlex.quote(url(job.endpoint, request))}"]
    parts += [f"-H {header}" for header in _headers(job.endpoint)]
    body = visible_json(request.body.decode("utf-8", "replace"))
    if len(body) < _LONGEST_ARGUMENT:
        return " \\\n  ".join([*parts, f"-d {shlex.quote(body)}"])
    return " \\\n  ".join([*parts, "--data-binary @- <<'REQUEST'"]) + f"\n{body}\nREQUEST"


def url(endpoint: "Endpoint", request: "ChatRequest") -> str:
    """Where the request goes."""
    base = endpoint.base_url or "http://127.0.0.1:8080/v1"  # of `batchllm simulate --port 8080`
    if endpoint.azure_api_version is None:
        return f"{base.rstrip('/')}/chat/completions"
    root = base.rstrip("/") if "/openai" in base else f"{base.rstrip('/')}/openai"
    version = urlencode({"api-version": endpoint.azure_api_version})
    return f"{root}/deployments/{quote(request.model)}/chat/completions?{version}"


def _headers(endpoint: "Endpoint") -> Iterator[str]:
    from batchllm import presets

    yield shlex.quote("Content-Type: application/json")
    key = presets.load(endpoint.preset).key_variable or "OPENAI_API_KEY"
    name = "Authorization: Bearer" if endpoint.azure_api_version is None else "api-key:"
    yield f'"{name} ${key}"'
    if endpoint.organization:
        yield shlex.quote(f"OpenAI-Organization: {endpoint.organization}")
    if endpoint.project:
        yield shlex.quote(f"OpenAI-Project: {endpoint.project}")
    for header, value in endpoint.headers.items():
        if _SECRET.search(header):
            variable = re.sub(r"\W", "_", header).upper()
            yield f'"{header}: ${variable}"'
        else:
            yield shlex.quote(f"{header}: {value}")


def visible_json(text: str) -> str:
    """JSON with what a terminal might obey written as escapes: the same value, in harmless characters."""
    return "".join(sign if sign.isprintable() else json.dumps(sign, ensure_ascii=True)[1:-1] for sign in text)
