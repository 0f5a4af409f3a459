"""Checks of a chat request, refused in OpenAI's words."""

from collections.abc import Mapping
from math import inf
from typing import Any

from batchllm.simulator.errors import ApiError, missing, not_json, unsupported

_ROLES = ("system", "assistant", "user", "function", "tool", "developer")
_PARTS = ("text", "image_url", "input_audio", "file", "refusal")

_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("stream", "logprobs"), bool),
    **dict.fromkeys(("model", "user", "reasoning_effort"), str),
    **dict.fromkeys(("messages", "tools"), list),
    **dict.fromkeys(("response_format", "logit_bias", "metadata"), dict),
    **dict.fromkeys(("max_tokens", "max_completion_tokens", "n", "seed", "top_logprobs"), int),
    **dict.fromkeys(("temperature", "top_p", "presence_penalty", "frequency_penalty"), (int, float)),
    "stop": (str, list),
    "tool_choice": (str, dict),
}
_BOUNDS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("max_tokens", "max_completion_tokens"), (1, inf)),
    **dict.fromkeys(("presence_penalty", "frequency_penalty"), (-2, 2)),
    "n": (1, 128),
    "top_logprobs": (0, 20),
    "temperature": (0, 2),
    "top_p": (0, 1),
}


def check(request: Any, models: tuple[str, ...] | None = None) -> None:
    """Refuses what the chat endpoint would refuse.

    Args:
        request: The parsed body.
        models: The models that exist; ``None`` for all.

    Raises:
        ApiError: 400, naming the parameter; 404 for an unknown model.
    """
    if not isinstance(request, dict):
        raise not_json("it is not an object")
    for name, value in request.items():
        if name in _TYPES and value is not None:
            _check_type(name, value)
        if name in _BOUNDS and value is not None:
            _check_bounds(name, value)
    model = request.get("model")
    if model is None:
        raise ApiError(400, "you must provide a model parameter")
    if models is not None and model not in models:
        message = f"The model `{model}` does not exist or you do not have access to it."
        raise ApiError(404, message, "model_not_found")
    if request.get("stream"):
        message = "The simulator does not stream: leave 'stream' out."
        raise ApiError(400, message, "unsupported_value", param="stream")
    if request.get("messages") == []:
        raise ApiError(400, "Invalid 'messages': empty array.", "empty_array", param="messages")
    for at, each in enumerate(_required("messages", request.get("messages"), list)):
        _check_message(f"messages[{at}]", each)
    if (response_format := request.get("response_format")) is not None:
        _one_of("response_format.type", response_format.get("type"), ("json_object", "json_schema", "text"))
        if response_format["type"] == "json_schema":
            schema = _required("response_format.json_schema", response_format.get("json_schema"), dict)
            _required("response_format.json_schema.name", schema.get("name"), str)
            _required("response_format.json_schema.schema", schema.get("schema", {}), dict)
    _check_tools(request.get("tools") or [], request.get("tool_choice"))


def _check_type(name: str, value: Any) -> None:
    types = _TYPES[name]
    if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
        raise _wrong_type(name, value)


def _check_bounds(name: str, value: float) -> None:
    least, most = _BOUNDS[name]
    if not least <= value <= most:
        kind = "integer" if _TYPES[name] is int else "decimal"
        side, bound = ("below_min", f">= {least}") if value < least else ("above_max", f"<= {most}")
        message = f"Invalid '{name}': expected a value {bound}, but got {value} instead."
        raise ApiError(400, message, f"{kind}_{side}_value", param=name)


def _check_message(where: str, message: Any) -> None:
    role = _one_of(f"{where}.role", _required(where, message, dict).get("role"), _ROLES)
    if role == "tool":
        _required(f"{where}.tool_call_id", message.get("tool_call_id"), str)
    content = message.get("content")
    if isinstance(content, str) or (content is None and role == "assistant"):
        return
    if not isinstance(content, list):
        raise _wrong_type(f"{where}.content", content)
    for at, part in enumerate(content):
        inside = f"{where}.content[{at}]"
        kind = _one_of(f"{inside}.type", _required(inside, part, dict).get("type"), _PARTS)
        if kind == "text":
            _required(f"{inside}.text", part.get("text"), str)
        if kind == "image_url":
            image = part["image_url"] if isinstance(part.get("image_url"), dict) else {}
            _required(f"{inside}.image_url.url", image.get("url"), str)
            _one_of(f"{inside}.image_url.detail", image.get("detail", "auto"), ("auto", "low", "high"))


def _check_tools(tools: list[Any], choice: Any) -> None:
    names = []
    for at, tool in enumerate(tools):
        where = f"tools[{at}].function"
        function = _required(where, tool.get("function") if isinstance(tool, dict) else None, dict)
        names.append(_required(f"{where}.name", function.get("name"), str))
        _required(f"{where}.parameters", function.get("parameters", {}), dict)
    if isinstance(choice, str):
        _one_of("tool_choice", choice, ("none", "auto", "required"))
    if choice not in (None, "none") and not tools:
        raise ApiError(400, "'tool_choice' is only allowed when 'tools' are specified.", param="tool_choice")
    if isinstance(choice, Mapping):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if name not in names:
            raise ApiError(400, f"Tool choice '{name}' not found in 'tools' parameter.", param="tool_choice")


def _required(name: str, value: Any, expected: type) -> Any:
    if value is None:
        raise missing(name)
    if not isinstance(value, expected):
        raise _wrong_type(name, value)
    return value


def _one_of(name: str, value: Any, supported: tuple[str, ...]) -> Any:
    if value is None:
        raise missing(name)
    if value not in supported:
        raise unsupported(name, value, supported)
    return value


def _wrong_type(name: str, value: Any) -> ApiError:
    message = f"Invalid type for '{name}': got {type(value).__name__}."
    return ApiError(400, message, "invalid_type", param=name)
