"""Checks of a chat request, refused in OpenAI's words."""

from collections.abc import Mapping
from math import inf
from typing import Any

from batchllm.simulator.errors import ApiError, missing, unsupported

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


def check(request: Mapping[str, Any], models: tuple[str, ...] | None = None) -> None:
    """Refuses what the chat endpoint would refuse.

    Args:
        request: The parsed body.
        models: The models that exist; ``None`` for all.

    Raises:
        ApiError: 400, naming the parameter; 404 for an unknown model.
    """
    for name, value in request.items():
        if name in _TYPES and value is not None:
            _check_type(name, value)
        if name in _BOUNDS and value is not None:
            _check_bounds(name, value)
    model, messages = request.get("model"), request.get("messages")
    if model is None:
        raise ApiError(400, "you must provide a model parameter")
    if models is not None and model not in models:
        message = f"The model `{model}` does not exist or you do not have access to it."
        raise ApiError(404, message, "model_not_found")
    if request.get("stream"):
        message = "The simulator does not stream: leave 'stream' out."
        raise ApiError(400, message, "unsupported_value", param="stream")
    if messages is None:
        raise missing("messages")
    if not messages:
        raise ApiError(400, "Invalid 'messages': empty array.", "empty_array", param="messages")
    for at, message in enumerate(messages):
        _check_message(f"messages[{at}]", message)
    _check_choice(request.get("tools") or [], request.get("tool_choice"))


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
    if not isinstance(message, dict):
        raise _wrong_type(where, message)
    role, content = message.get("role"), message.get("content")
    _check_value(f"{where}.role", role, _ROLES)
    if role == "tool" and "tool_call_id" not in message:
        raise missing(f"{where}.tool_call_id")
    if isinstance(content, str) or (content is None and role == "assistant"):
        return
    if not isinstance(content, list):
        raise _wrong_type(f"{where}.content", content)
    for at, part in enumerate(content):
        if not isinstance(part, dict):
            raise _wrong_type(f"{where}.content[{at}]", part)
        kind = part.get("type")
        _check_value(f"{where}.content[{at}].type", kind, _PARTS)
        if kind == "text" and not isinstance(part.get("text"), str):
            raise missing(f"{where}.content[{at}].text")
        image = part.get("image_url")
        if kind == "image_url" and (not isinstance(image, dict) or not isinstance(image.get("url"), str)):
            raise missing(f"{where}.content[{at}].image_url.url")


def _check_choice(tools: list[Any], choice: Any) -> None:
    if choice in (None, "none"):
        return
    if not tools:
        raise ApiError(400, "'tool_choice' is only allowed when 'tools' are specified.", param="tool_choice")
    if isinstance(choice, str):
        _check_value("tool_choice", choice, ("none", "auto", "required"))


def _check_value(name: str, value: Any, supported: tuple[str, ...]) -> None:
    if value is None:
        raise missing(name)
    if value not in supported:
        raise unsupported(name, value, supported)


def _wrong_type(name: str, value: Any) -> ApiError:
    message = f"Invalid type for '{name}': got {type(value).__name__}."
    return ApiError(400, message, "invalid_type", param=name)
