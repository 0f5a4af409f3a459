"""Reads the ``[[steps]]`` of a job file: each is a prompt or a template with settings of its own."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from batchllm.errors import UsageError, listed, refuse_unknown
from batchllm.job.layers import Given, Layer
from batchllm.job.options import OPTIONS, TABLES, options_in
from batchllm.job.record import SPLIT, Job, JobStep

_ASKS = ("prompt", "template")
_OWN = (
    *_ASKS, "schema", *options_in("variables"), "model", "system", "instructions", "temperature", "max_tokens",
    "reasoning_effort",
)  # fmt: skip
_KEYS = ("name", "when", *_OWN, *TABLES)
ONE_STEPS = (*_ASKS, "task", "schema", "var", *options_in("variables"))
"""The options that say what one step asks."""

_EXCLUDED = ("samples", "conversation", "examples", "confidence")
_LIMITS = ("max_tokens", "max_completion_tokens")
_RESERVED = ("row", "text", "reask")


def of_steps(
    path: Path, tables: tuple[Mapping[str, Any], ...], given: Given, assembled: Callable[[Given], Job]
) -> Job:
    """Makes the job of a file with steps.

    Args:
        path: The job file.
        tables: Its ``[[steps]]``.
        given: The options beside them; they hold for the steps that do not set them.
        assembled: Makes the job of one step.

    Raises:
        UsageError: A step is wrong, or an option does not go with steps.
    """
    for name in ONE_STEPS:
        if given.has(name) and not given.is_of_environment(name):
            raise UsageError(
                f"{given.called(name)} belongs to one step; put {name} into its [[steps]] table in {path}"
            )
    for name in _EXCLUDED:
        if given.get(name) != OPTIONS[name].default_value:
            raise UsageError(
                f"{given.called(name)} and the [[steps]] of {path} do not go together; leave one out"
            )
    if given.get("on_long") == SPLIT:
        raise UsageError(
            f"{given.called('on_long')} split and the [[steps]] of {path} do not go together; leave one out"
        )
    steps: list[JobStep] = []
    for number, table in enumerate(tables, 1):
        name, when = _head(table, f"{path}, step {number}")
        if name in [step.name for step in steps]:
            raise UsageError(f"{path}, step {number}: there are two steps called {name}; names must differ")
        layer = _layer(path, name, table)
        job = assembled(Given((layer, *given.layers)))
        steps.append(JobStep.named(name, job, when))
    for name in OPTIONS:
        if OPTIONS[name].kind.merged:
            given.merged(name)
        elif given.has(name):
            given.get(name)
    parameters = steps[0].job.parameters
    if given.get("retry_cut_off"):  # the limit beside the steps is the one that all of them are sent with
        parameters = {name: value for name, value in parameters.items() if name not in _LIMITS}
        if (limit := given.get("max_tokens")) is not None:
            parameters["max_tokens"] = limit
    return replace(steps[0].job, task="run", steps=tuple(steps), parameters=parameters, sources=given.sources)


def _head(table: Mapping[str, Any], where: str) -> tuple[str, str | None]:
    """Returns name and condition of a step, once its keys are checked."""
    refuse_unknown(table, _KEYS, where)
    name, when = table.get("name"), table.get("when")
    if not isinstance(name, str) or not name.isidentifier() or name in _RESERVED:
        reserved = f", and none of {listed(_RESERVED)}"
        raise UsageError(
            f"{where}: name is {name!r}; it becomes a column, and must be one word of letters, digits and _{reserved}"
        )
    if not any(key in table for key in _ASKS):
        raise UsageError(f"{where} ({name}) does not say what to ask; give it a prompt or a template")
    if when is not None and not (isinstance(when, str) and ("{{" in when or "{%" in when)):
        raise UsageError(
            f"{where} ({name}): when must be a template that reads a column, such as "
            "\"{{ label == 'complaint' }}\""
        )
    return name, when


def _layer(path: Path, name: str, table: Mapping[str, Any]) -> Layer:
    for key in TABLES:
        if not isinstance(table.get(key, {}), dict):
            raise UsageError(f"{path}, step {name}: {key} must be a table, [steps.{key}]")
    values = {key: table[key] for key in _OWN if key in table}
    values |= {option: table[key] for key, option in TABLES.items() if key in table}
    titles = {option: f"{option} of step {name} in {path}" for option in values}
    titles |= {option: f"{key} of step {name} in {path}" for key, option in TABLES.items()}
    return Layer(values, lambda _: f"{path}, step {name}", path, titles)
