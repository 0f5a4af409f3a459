"""``--dry-run``: prints what a job would send, for how much, and with which options; sends and writes nothing.

Everything goes to standard output: text for people, one JSON object with ``--json``, the first request as a shell
command with ``--curl``.
"""

import json
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from batchllm import presets
from batchllm.cli.result import reasons
from batchllm.cli.terminal import fields_line, models_text, price_text
from batchllm.errors import UsageError
from batchllm.printable import counted, dollars, duration, json_escape, known_count, printable

if TYPE_CHECKING:
    from batchllm.budget.forecast import Forecast
    from batchllm.inspect.dry_run import DryRun
    from batchllm.job import Job
    from batchllm.records import ChatRequest, Endpoint

_PLAIN = re.compile(r"[\w:. -]+", re.ASCII)
_LONGEST_TEXT = 1_200
_LONGEST_ARGUMENT = 100_000
"""Characters of one argument; Linux takes 128 KiB."""


def print_dry_run(job: "Job", *, as_json: bool, as_curl: bool, every_option: bool) -> None:
    """Prints what a run of the job would do.

    Raises:
        JobError: The job could not be run.
    """
    from batchllm.inspect import dry_run as inspect

    found = inspect.dry_run(job)
    if as_json:
        forecast = found.forecast
        requests: dict[str, object] = {
            "requests": forecast.requests,
            "requests_upper_bound": forecast.requests_upper_bound,
        }
        if job.splits:
            requests |= split_json(forecast)
        text = json.dumps({**forecast.to_json(), **requests})
    elif as_curl:
        text = curl(job, found)
    else:
        text = "\n".join(to_text(found, every_option=every_option))
    sys.stdout.write((printable(text) if sys.stdout.isatty() and not as_curl else text) + "\n")


def to_text(found: "DryRun", *, every_option: bool) -> Iterator[str]:
    """The estimate, the options that are not at their default, and the first requests; with every option in full."""
    yield from _estimate(found)
    yield from _options(found.job, every=every_option)
    for number, request in enumerate(found.first):
        yield ""
        if number == 0:
            yield "The first requests"
        yield f"Request of row {request.row_index + 1}:"
        body = json.loads(request.body)
        yield json.dumps(body if every_option else _shortened(body), indent=2, ensure_ascii=False)


def _shortened(value: Any) -> Any:
    """Returns a JSON value with the middle of long texts left out."""
    if isinstance(value, dict):
        return {name: _shortened(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_shortened(item) for item in value]
    if not isinstance(value, str) or len(value) <= _LONGEST_TEXT:
        return value
    end = _LONGEST_TEXT // 3
    left_out = len(value) - 3 * end
    return f"{value[: 2 * end]} … [{counted(left_out, 'character')} left out; -v shows all] … {value[-end:]}"


def split_json(forecast: "Forecast") -> dict[str, int]:
    """Returns the figures about the parts of long texts, all 0 if no text is long."""
    parts = forecast.parts
    return {
        "split_rows": parts.rows if parts else 0,
        "parts": parts.parts if parts else 0,
        "levels": parts.levels if parts else 0,
        "levels_upper_bound": parts.levels_upper_bound if parts else 0,
    }


def _estimate(found: "DryRun") -> Iterator[str]:
    forecast = found.forecast
    parts = (
        (forecast.duplicate_rows, "equal to an earlier one"),
        (forecast.skipped, "empty"),
        (forecast.unsendable, f"that will fail unsent ({reasons(found.unsendable)})"),
    )
    others = (f"{count:,} {what}" for count, what in parts if count)
    yield ", ".join((f"Rows: {forecast.rows:,}", *forecast.known_rows(), *others))
    if forecast.input_notes:
        yield f"Input: {'; '.join(forecast.input_notes)}"
    most = forecast.requests_upper_bound or 0
    more = f", at most {most:,}" if most > (forecast.requests or 0) else ""
    yield f"To send: {counted(forecast.requests or 0, 'request')}{more}"
    if forecast.parts is not None:
        yield f"Long texts: {forecast.parts.to_text()}"
    for number, step in enumerate(found.job.steps, 1):
        when = "" if step.when is None else f", when {step.when}"
        yield f"Step {number}: {step.name}, {step.job.endpoint.model or 'the model of the endpoint'}{when}"
    if forecast.models and list(forecast.models) != [found.job.endpoint.model]:
        yield f"Models: {models_text(found.job, replace(forecast, exact=True))}"
    if settings := forecast.settings.to_text():
        yield f"Settings: {settings}"
    if fields := fields_line(found.job):
        yield fields
    vocabularies = ", ".join(found.counted_with)
    estimate = f"an estimate with {vocabularies}" if vocabularies else "an estimate"
    if not forecast.requests:
        how = "nothing to count"
    else:
        how = f"counted with {vocabularies}" if forecast.exact else estimate
    yield f"Prompt tokens: {known_count(forecast.prompt_tokens)} ({how})"
    yield (
        f"Answer tokens: {known_count(forecast.completion_tokens_expected)} expected, "
        f"{known_count(forecast.completion_tokens_upper_bound)} at most"
    )
    source = f" ({forecast.price.source})" if forecast.price is not None else ""
    expected = f", {dollars(forecast.cost_expected)} expected" if forecast.cost_expected else ""
    yield f"Price: {price_text(forecast).removeprefix('price ')}{expected}{source}"
    unknown = "unknown; no rate limit is given, and none was seen"
    yield f"Time: {unknown if forecast.seconds is None else duration(forecast.seconds)}"
    yield from _other_mode(found)


def _other_mode(found: "DryRun") -> Iterator[str]:
    """The mode that the job does not use, where there is one."""
    from batchllm.budget.modes import compare_modes

    offer = compare_modes(found.job, found.forecast)
    if offer is None:
        return
    waves = found.forecast.waves or 1
    batches = f"{counted(offer.batches, 'batch', 'batches')}, up to {offer.window}"
    if waves > 1:
        batches = f"at most {waves:,} waves of batches, each up to {offer.window}"
    if found.job.via == "batch":
        yield f"Mode: batch ({batches}); online {price_text(offer.online)}"
    else:
        known = offer.batch.cost_low is not None
        price = price_text(offer.batch) if known else f"{offer.batch_share:.0%} of the price"
        yield f"In batch mode: {price} ({batches}; --via batch)"


def _options(job: "Job", *, every: bool) -> Iterator[str]:
    from batchllm.job.reference import job_options

    rows = list(job_options(job, every=every))
    width = max(len(name) for name, _, _ in rows)
    yield ""
    yield "Options:" if every else "Options that are not at their default (-v lists all):"
    for name, value, source in rows:
        yield f"  {name:<{width}}  {value}  ({source})"


def curl(job: "Job", found: "DryRun") -> str:
    """Returns the first request as a shell command that takes the key from the environment.

    Raises:
        UsageError: No row would be sent.
    """
    if not found.first:
        raise UsageError("there is no request to show: no row of the input would be sent")
    request = found.first[0]
    parts = [f"curl {shlex.quote(url(job.endpoint, request))}"]
    parts += [f"-H {header}" for header in _headers(job.endpoint)]
    body = printable(request.body.decode("utf-8", "replace"), keep="", escape=json_escape)
    if len(body) < _LONGEST_ARGUMENT:
        return " \\\n  ".join([*parts, f"-d {shlex.quote(body)}"])
    return " \\\n  ".join([*parts, "--data-binary @- <<'REQUEST'"]) + f"\n{body}\nREQUEST"


def url(endpoint: "Endpoint", request: "ChatRequest") -> str:
    """Where the request goes."""
    if not endpoint.base_url:  # the simulator that `batchllm simulate` starts
        endpoint = replace(endpoint, base_url="http://127.0.0.1:8080/v1")
    return presets.chat_url(endpoint, request.model)


def _headers(endpoint: "Endpoint") -> Iterator[str]:
    """Yields the headers as arguments for a shell; secrets are variables."""
    from batchllm.client.secrets import is_secret_header

    yield shlex.quote("Content-Type: application/json")
    key = f"${presets.load(endpoint.preset).key_variable or 'OPENAI_API_KEY'}"
    for header, value in presets.auth_headers(replace(endpoint, api_key=key)).items():
        yield _argument(f"{header}: {value.removesuffix(key)}", key if value.endswith(key) else "")
    for header, value in endpoint.headers.items():
        if is_secret_header(header, value) or (endpoint.api_key and endpoint.api_key in value):
            variable = re.sub(r"[^A-Za-z0-9]", "_", header).upper()
            yield _argument(f"{header}: ", f"${'_' if variable[0].isdigit() else ''}{variable}")
        else:
            yield _argument(f"{header}: {value}")


def _argument(text: str, variable: str = "") -> str:
    """A text and a variable behind it as one argument; within double quotes only what no shell reads."""
    if variable and _PLAIN.fullmatch(text):
        return f'"{text}{variable}"'
    return shlex.quote(text) + (f'"{variable}"' if variable else "")
