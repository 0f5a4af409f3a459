"""Options of a call in the forms that Python has: paths, a pydantic model, a key or a function that returns one."""

import os
from collections.abc import Mapping
from typing import Any

from batchllm.errors import UsageError
from batchllm.job.layers import flag_layer
from batchllm.job.options import OPTIONS, SWITCHES


def options_of(task: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], str | None, Any]:
    """Returns the options of a job, its key, and the pydantic model of its schema.

    Args:
        task: The task of the call.
        options: Its keywords.

    Raises:
        UsageError: An option is not one of the task, or has no form that it can have.
    """
    found = {name: _path_as_text(value) for name, value in options.items() if value is not None}
    key = _key(found.pop("api_key", None))
    for name in found:
        if name in SWITCHES:
            raise UsageError(f"{name} is an option of the command line alone")
        option = OPTIONS.get(name)
        if option is not None and task != "run" and option.tasks and task not in option.tasks:
            raise UsageError(f"{name}= is not an option of {task}, but of {', '.join(option.tasks)}")
    model = None
    if isinstance(found.get("schema"), type):
        model = found["schema"]
        if not hasattr(model, "model_json_schema"):
            raise UsageError(
                f"schema= takes a dict, a pydantic model, a file or text, and not the class {model.__name__}"
            )
        found["schema"] = model.model_json_schema()
    return found, key, model


def parsed_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of ``open_source`` that options of a call mean.

    Raises:
        UsageError: One has the wrong form.
    """
    layer = flag_layer(options)
    return {"format" if name == "input_format" else name: layer.parsed(name) for name in options}


def _path_as_text(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple) and any(isinstance(part, os.PathLike) for part in value):
        return [os.fspath(part) if isinstance(part, os.PathLike) else part for part in value]
    return value


def _key(given: Any) -> str | None:
    key = given() if callable(given) else given
    if hasattr(key, "get_secret_value"):  # pydantic's SecretStr
        key = key.get_secret_value()
    if key is None or (isinstance(key, str) and key.strip()):
        return None if key is None else key.strip()
    source = "the function given as api_key=" if callable(given) else "api_key="
    raise UsageError(f"{source} must {'return' if callable(given) else 'be'} a key, not {type(key).__name__}")


def is_path(rows: Any) -> bool:
    """Whether the rows of a call are a file."""
    return isinstance(rows, str | os.PathLike)


def are_paths(rows: Any) -> bool:
    """Whether the rows of a call are several files."""
    return isinstance(rows, list | tuple) and bool(rows) and all(map(is_path, rows))
