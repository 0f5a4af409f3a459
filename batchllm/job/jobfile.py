"""Job files: a template, or steps, and a ``[job]`` table in one TOML file."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchllm.errors import UsageError
from batchllm.job.layers import Layer, file_layers
from batchllm.job.options import TABLES

if TYPE_CHECKING:
    from batchllm.template import Template

_MAX_BYTES = 10_000_000
_WITHOUT_MESSAGES = ("job", "endpoints", "name", "description", "variables", "parameters")
_WITH_STEPS = ("job", "endpoints", "name", "description", "parameters", "steps")


@dataclass(frozen=True, slots=True)
class JobFile:
    """The contents of a job file.

    Attributes:
        path: As it was named.
        layers: Its options, the strongest first.
        template: The template it holds; ``None`` where it has no ``[[messages]]``.
        steps: Its ``[[steps]]`` tables, as they are written.
    """

    path: Path
    layers: tuple[Layer, ...]
    template: "Template | None"
    steps: tuple[Mapping[str, Any], ...] = ()


def read(path: Path) -> JobFile:
    """Reads a job file.

    Raises:
        UsageError: It cannot be read, is not TOML, has no ``[job]`` table, or has an unknown key.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UsageError(f"{path} is not a job file: it is larger than 10 MB")
        text = path.read_text("utf-8-sig")
        data = tomllib.loads(text.replace("\r\n", "\n"))
    except OSError as error:
        raise UsageError(f"{path}: the job file cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: the job file is not UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: this is not TOML: {error}") from None
    table = data.get("job")
    if not isinstance(table, dict):
        raise UsageError(f"{path}: a job file has a [job] table; a template without one goes with -t {path}")
    for key in TABLES:
        if not isinstance(data.get(key, {}), dict):
            raise UsageError(f"{path}: {key} must be a table, [{key}]")
    if "steps" in data:
        return _with_steps(path, data)
    if "messages" in data:
        from batchllm import template

        return JobFile(path, file_layers(path, data), template.parse(text, path.stem, path))
    for key in data:
        if key not in _WITHOUT_MESSAGES:
            raise UsageError(f"{path}: {key} needs [[messages]] beside it, a template of the file's own")
    return JobFile(path, file_layers(path, data), None)


def _with_steps(path: Path, data: Mapping[str, Any]) -> JobFile:
    for key in data:
        if key not in _WITH_STEPS:
            raise UsageError(f"{path}: {key} belongs to a step; put it into its [[steps]] table")
    steps = data["steps"]
    if not isinstance(steps, list) or not steps or not all(isinstance(step, dict) for step in steps):
        raise UsageError(f"{path}: steps are tables, each headed [[steps]]")
    return JobFile(path, file_layers(path, data), None, tuple(steps))
