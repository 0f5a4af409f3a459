"""What a chat request must be, refused in OpenAI's words."""

from collections.abc import Mapping
from typing import Any

from batchllm.simulator.problem import ApiError

_ROLES = ("system", "assistant", "user", "function", "tool", "developer")
_PARTS = ("text", "image_url", "input_audio", "file", "refusal")

# Parameter to what it is called when its type is wrong, the types it may have, and its bounds.
_PARAMETERS: dict[str, tuple[str, tuple[type, ...], float | None, float | None]] = {
    "max_tokens": ("an integer", (int,), 1, None),
    "max_completion_tokens": ("an integer", (int,), 1, None),
    "n": ("an integer", (int,), 1, 128),
    "seed": ("an integer", (int,), None, None),
    "top_logprobs": ("an integer", (int,), 0, 20),
    "temperature": ("a decimal", (int, float), 0, 2),
    "top_p": ("a decimal", (int, float), 0, 1),
    "presence_penalty": ("a decimal", (int, float), -2, 2),
    "frequency_penalty": ("a decimal", (int, float), -2, 2),
    "stream": ("a boolean", (bool,), None, None),
    "logprobs": ("a boolean", (bool,), None, None),
    "user": ("a string", (str,), None, None),
    "reasoning_effort": ("a string", (str,), None, None),
    "response_format": ("an object", (dict,), None, None),
    "logit_bias": ("an object", (dict,), None, None),
    "metadata": ("an object", (dict,), None, None),
    "tools": ("an array of objects", (list,), None, None),
    "stop": ("a string or an array of strings", (str, list), None, None),
    "tool_choice": ("a string or an object", (str, dict), None, None),
}


def check(request: Any) -> None:
    """Refuse what the chat endpoint would refuse.

    Raises:
        ApiError: With status 400, naming the parameter.
    """
    if not isinstance(request, dict):
        raise ApiError(400, "We could not parse the JSON body of your request: it is not an object.")
    model = request.get("model")
    if model is None:
        raise ApiError(400, "you must provide a model parameter")
    if not isinstance(model, str):
        raise _wrong_type("model", "a string", model)
    for name, value in request.items():
        if name in _PARAMETERS and value is not None:
            _check_parameter(name, value)
    if request.get("stream"):
        raise ApiError(
            400, "The simulator does not stream: leave 'stream' out.", "unsupported_value", param="stream"
        )
    _check_messages(request.get("messages"))
    if "response_format" in request:
        _check_form(request["response_format"])
    if request.get("tools") or request.get("tool_choice"):
        _check_tools(request.get("tools") or [], request.get("tool_choice"))


def _check_parameter(name: str, value: Any) -> None:
    called, types, least, most = _PARAMETERS[name]
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise _wrong_type(name, called, value)
    if not isinstance(value, int | float):
        return
    kind = "integer" if called == "an integer" else "decimal"
    if least is not None and value < least:
        message = (
            f"Invalid '{name}': {kind} below minimum value. "
            f"Expected a value >= {least:g}, but got {value} instead."
        )
        raise ApiError(400, message, f"{kind}_below_min_value", param=name)
    if most is not None and value > most:
        message = (
            f"Invalid '{name}': {kind} above maximum value. "
            f"Expected a value <= {most:g}, but got {value} instead."
        )
        raise ApiError(400, message, f"{kind}_above_max_value", param=name)


def _check_messages(messages: Any) -> None:
    if messages is None:
        raise _missing("messages")
    if not isinstance(messages, list):
        raise _wrong_type("messages", "an array of objects", messages)
    if not messages:
        message = (
            "Invalid 'messages': empty array. Expected an array with minimum length 1, "
            "but got an empty array instead."
        )
        raise ApiError(400, message, "empty_array", param="messages")
    for at, message in enumerate(messages):
        if not isinstance(message, dict):
            raise _wrong_type(f"messages[{at}]", "an object", message)
        role = message.get("role")
        if role is None:
            raise _missing(f"messages[{at}].role")
        if role not in _ROLES:
            raise _wrong_value(f"messages[{at}].role", role, _ROLES)
        if role == "tool" and not isinstance(message.get("tool_call_id"), str):
            raise _missing(f"messages[{at}].tool_call_id")
        content = message.get("content")
        if not isinstance(content, str):
            _check_content(f"messages[{at}].content", content, may_lack=role == "assistant")


def _check_content(where: str, content: Any, *, may_lack: bool) -> None:
    if content is None and may_lack:
        return
    if not isinstance(content, list):
        raise _wrong_type(where, "one of a string or array of objects", content)
    for at, part in enumerate(content):
        if not isinstance(part, dict):
            raise _wrong_type(f"{where}[{at}]", "an object", part)
        kind = part.get("type")
        if kind not in _PARTS:
            raise _wrong_value(f"{where}[{at}].type", kind, _PARTS)
        if kind == "text" and not isinstance(part.get("text"), str):
            raise _missing(f"{where}[{at}].text")
        if kind == "image_url":
            image = part.get("image_url")
            if not isinstance(image, dict) or not isinstance(image.get("url"), str):
                raise _missing(f"{where}[{at}].image_url.url")
            if image.get("detail", "auto") not in ("auto", "low", "high"):
                raise _wrong_value(
                    f"{where}[{at}].image_url.detail", image["detail"], ("auto", "low", "high")
                )


def _check_form(form: Any) -> None:
    if form is None:
        return
    kinds = ("json_object", "json_schema", "text")
    if form.get("type") not in kinds:
        raise _wrong_value("response_format.type", form.get("type"), kinds)
    if form["type"] == "json_schema":
        described = form.get("json_schema")
        if not isinstance(described, dict):
            raise _missing("response_format.json_schema")
        if not isinstance(described.get("name"), str):
            raise _missing("response_format.json_schema.name")
        if not isinstance(described.get("schema", {}), dict):
            raise _wrong_type("response_format.json_schema.schema", "an object", described["schema"])


def _check_tools(tools: list[Any], choice: Any) -> None:
    names = set()
    for at, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict):
            raise _missing(f"tools[{at}].function")
        if tool.get("type") != "function":
            raise _wrong_value(f"tools[{at}].type", tool.get("type"), ("function", "custom"))
        if not isinstance(function.get("name"), str):
            raise _missing(f"tools[{at}].function.name")
        if not isinstance(function.get("parameters", {}), dict):
            raise _wrong_type(f"tools[{at}].function.parameters", "an object", function["parameters"])
        names.add(function["name"])
    if choice is None:
        return
    if not tools and choice != "none":
        raise ApiError(400, "'tool_choice' is only allowed when 'tools' are specified.", param="tool_choice")
    if isinstance(choice, str) and choice not in ("none", "auto", "required"):
        raise _wrong_value("tool_choice", choice, ("none", "auto", "required"))
    if isinstance(choice, Mapping):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or name not in names:
            raise ApiError(400, f"Tool choice '{name}' not found in 'tools' parameter.", param="tool_choice")


def _missing(name: str) -> ApiError:
    return ApiError(400, f"Missing required parameter: '{name}'.", "missing_required_parameter", param=name)


def _wrong_value(name: str, value: Any, supported: tuple[str, ...]) -> ApiError:
    listed = ", ".join(f"'{each}'" for each in supported[:-1]) + f", and '{supported[-1]}'"
    return ApiError(
        400, f"Invalid value: '{value}'. Supported values are: {listed}.", "invalid_value", param=name
    )


def _wrong_type(name: str, expected: str, value: Any) -> ApiError:
    names = {
        bool: "a boolean",
        int: "an integer",
        float: "a decimal",
        str: "a string",
        list: "an array",
        dict: "an object",
    }
    got = names.get(type(value), "null")
    message = f"Invalid type for '{name}': expected {expected}, but got {got} instead."
    return ApiError(400, message, "invalid_type", param=name)
