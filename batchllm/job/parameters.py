"""Variables of the template and parameters of the request, merged over all places that give them."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from batchllm import presets
from batchllm.errors import UsageError
from batchllm.job.jobfile import JobFile
from batchllm.job.layers import Given
from batchllm.job.options import OPTIONS, options_in
from batchllm.records import Endpoint

if TYPE_CHECKING:
    from batchllm.template import Template

_VARIABLES = options_in("variables")
_PARAMETERS = options_in("parameters")

# Parameters that another setting, or the package itself, is there for.
_ELSEWHERE = {
    "model": "use --model",
    "messages": "the template makes them",
    "tools": "use --tools",
    "tool_choice": "use --tool-choice",
    "reasoning_effort": "use --reasoning-effort",
    "stream": "answers are read whole",
    "stream_options": "answers are read whole",
    "n": "one answer a row is read, and more would be paid",
}
_RANGES = {
    "temperature": OPTIONS["temperature"].kind,
    "max_tokens": OPTIONS["max_tokens"].kind,
    "max_completion_tokens": OPTIONS["max_tokens"].kind,
}


def template_variables(given: Given, template: "Template | None", file: JobFile | None) -> dict[str, Any]:
    """Variables that override the template's own: ``--var``, ``--labels`` and their like, the job file's.

    Raises:
        UsageError: The template has no such variable. From the environment, which is for all jobs, it is
            passed over instead.
    """
    variables: dict[str, Any] = dict(file.variables) if file else {}
    if file:
        given.sources.update({f"var.{name}": str(file.path) for name in variables})
    places = dict.fromkeys(variables, str(file.path) if file else "")
    variables |= (flagged := given.merged("var"))
    if template is not None:
        for name in variables:
            called = f"{given.called('var')} {name}" if name in flagged else f"{name} in {places[name]}"
            _refuse_unread(name, called, template)
    known = template.variables if template else {}
    for name in _VARIABLES:
        if not given.has(name):
            continue
        if template is not None and name not in known:
            if given.layers[given.rank(name)].source(name).startswith("BATCHLLM_"):
                continue
            raise UsageError(f"{given.called(name)}: the template has no variable {name}{_there_are(known)}")
        value = given.get(name)
        variables[name] = list(value) if isinstance(value, tuple) else value
    return variables


def _refuse_unread(name: str, called: str, template: "Template") -> None:
    """A variable that the template neither declares nor mentions would be passed over in silence."""
    if name not in template.variables and not re.search(rf"\b{re.escape(name)}\b", template.source):
        raise UsageError(f"{called}: the template reads no such variable{_there_are(template.variables)}")


def _there_are(known: Mapping[str, Any]) -> str:
    return f"; it has {', '.join(known)}" if known else ""


def request_parameters(
    given: Given, template: "Template | None", file: JobFile | None, endpoint: Endpoint, effort: str | None
) -> dict[str, Any]:
    """Parameters that override the template's own, and those that the preset adds where it has none.

    In each place a parameter's own setting goes before ``param``: ``--temperature`` before
    ``--param temperature=…``, but a job file's ``temperature`` after both.

    Raises:
        UsageError: A parameter that something else is there for, or a value out of its range.
    """
    known = template.parameters if template else {}
    preset = presets.load(endpoint.preset)
    parameters: dict[str, Any] = {}
    if endpoint.model == preset.default_model and effort is None:
        parameters |= {name: value for name, value in preset.default_parameters.items() if name not in known}
    if file:
        parameters |= _checked(file.parameters, str(file.path), "[parameters] of ")
        given.sources.update(
            {name if name in _PARAMETERS else f"param.{name}": str(file.path) for name in file.parameters}
        )
    for layer in reversed(given.layers):
        one = Given((layer,), given.sources)
        parameters |= _checked(one.merged("param"), one.called("param"))
        parameters |= {name: one.get(name) for name in _PARAMETERS if name in layer.values}
    return parameters


def _checked(parameters: Mapping[str, Any], called: str, before: str = "") -> dict[str, Any]:
    from batchllm.template import KNOWN_PARAMETERS, did_you_mean

    found = dict(parameters)
    for name, value in parameters.items():
        where = f"{before}{called} {name}"
        if name in _ELSEWHERE and not (name == "n" and value == 1):
            raise UsageError(f"{where}: {_ELSEWHERE[name]}")
        if name not in KNOWN_PARAMETERS and (hint := did_you_mean(name, KNOWN_PARAMETERS)):
            raise UsageError(
                f"{where}: no endpoint is known to have this parameter{hint}; "
                f"if yours has, put it into extra_body: --param 'extra_body={{\"{name}\": …}}'"
            )
        if name in _RANGES:
            try:
                found[name] = _RANGES[name](value)
            except ValueError as error:
                raise UsageError(f"{where} {error}") from None
    return found
