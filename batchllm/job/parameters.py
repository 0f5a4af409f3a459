"""Merges the variables of the template and the parameters of the request over all layers."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchllm import presets
from batchllm.errors import UsageError, did_you_mean
from batchllm.job.labels import read_labels
from batchllm.job.layers import Given
from batchllm.job.options import OPTIONS, options_in
from batchllm.job.values import split_by_commas
from batchllm.records import Endpoint

if TYPE_CHECKING:
    from batchllm.template import Template

_VARIABLES = options_in("variables")
_PARAMETERS = options_in("parameters")

# Parameters that cannot be set as such, and why.
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
SAMPLING_TEMPERATURE = 0.7
"""The temperature of ``classify`` with several samples, unless one is given."""

_RANGES = {
    "temperature": OPTIONS["temperature"].kind,
    "max_tokens": OPTIONS["max_tokens"].kind,
    "max_completion_tokens": OPTIONS["max_tokens"].kind,
}


def template_variables(given: Given, template: "Template | None") -> dict[str, Any]:
    """Returns the variables that override the template's own: ``--var``, and ``--labels`` and its like.

    Raises:
        UsageError: The template has no such variable. One of the environment, which is for all jobs, is
            ignored instead.
    """
    variables: dict[str, Any] = {}
    for layer in given.alone():
        found = layer.merged("var")
        if template is not None:
            for name in found:
                called = f"{layer.called('var')} {name}"
                _refuse_unread(name, called, template)
                found[name] = _as_list(found[name], template.variables.get(name), called)
        variables |= found
    known = template.variables if template else {}
    for name in _VARIABLES:
        if not given.has(name):
            continue
        if template is not None and name not in known:
            if given.is_of_environment(name):
                continue
            raise UsageError(f"{given.called(name)}: the template has no variable {name}{_there_are(known)}")
        value = given.get(name)
        if name == "labels" and isinstance(value, Path):
            value = _labels_of(value, given.called(name))
        variables[name] = list(value) if isinstance(value, tuple) else value
    return variables


def _labels_of(path: Path, called: str) -> Any:
    """The labels of a file: a list, or where one of them has a description or examples, a table."""
    table = read_labels(path, called)
    try:
        return OPTIONS["labels"].kind(table if any(table.values()) else list(table))
    except ValueError as error:
        raise UsageError(f"{called} {path} {error}") from None


def _as_list(value: Any, default: Any, called: str) -> Any:
    """Returns ``a,b,c`` as a list where the template's own value is a list; everything else as it is."""
    if not (isinstance(default, list) and isinstance(value, str)):
        return value
    try:
        return split_by_commas(value, "labels")
    except ValueError as error:
        raise UsageError(f"{called} {error}") from None


def _refuse_unread(name: str, called: str, template: "Template") -> None:
    """Refuses a variable that the template neither declares nor mentions; it would have no effect."""
    if name not in template.variables and not re.search(rf"\b{re.escape(name)}\b", template.source):
        raise UsageError(f"{called}: the template reads no such variable{_there_are(template.variables)}")


def _there_are(known: Mapping[str, Any]) -> str:
    return f"; it has {', '.join(known)}" if known else ""


def _refuse_twice(layer: Given, general: Mapping[str, Any]) -> None:
    """Refuses a parameter that one layer gives by its own option and in ``param``; one would be ignored."""
    for name in _PARAMETERS:
        if name in general and layer.has(name):
            raise UsageError(f"{layer.called(name)} is given as a parameter too; give it once")


def request_parameters(
    given: Given, template: "Template | None", endpoint: Endpoint, effort: str | None
) -> dict[str, Any]:
    """Returns the parameters that override the template's own, and those that the preset adds where it has none.

    A stronger layer wins: ``--param temperature=…`` before a job file's ``temperature``.

    Raises:
        UsageError: A parameter that is set in another way or twice in one layer, or a value out of its range.
    """
    known = template.parameters if template else {}
    preset = presets.load(endpoint.preset)
    parameters: dict[str, Any] = {}
    if template is not None and template.name == "classify" and given.get("samples") > 1:
        # At the task's temperature of 0 all samples would be alike.
        parameters["temperature"] = SAMPLING_TEMPERATURE
        given.sources.setdefault("temperature", "because of samples")
    if endpoint.model == preset.default_model and effort is None:
        parameters |= {name: value for name, value in preset.default_parameters.items() if name not in known}
    of_file: dict[str, Any] = {}
    for layer in given.alone():
        general = _checked(layer.merged("param"), layer.called("param"))
        if layer.layers[0].file is not None:
            of_file |= general  # [job] and [parameters] are two layers of one file
        _refuse_twice(layer, {**of_file, **general} if layer.layers[0].file is not None else general)
        parameters |= general
        parameters |= {name: layer.get(name) for name in _PARAMETERS if layer.has(name)}
    return parameters


def _checked(parameters: Mapping[str, Any], called: str) -> dict[str, Any]:
    from batchllm.template import KNOWN_PARAMETERS

    found = dict(parameters)
    for name, value in parameters.items():
        where = f"{called} {name}"
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
