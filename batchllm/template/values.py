"""Values of cells, parameters and variables: as JSON with numbers as they were written, as text, from text."""

import json
from collections.abc import Mapping
from typing import Any

import orjson

_PASS = orjson.OPT_PASSTHROUGH_SUBCLASS
_NUMBERS = frozenset(
    {
        "temperature", "top_p", "max_tokens", "max_completion_tokens", "frequency_penalty", "presence_penalty",
        "n", "seed", "top_logprobs", "top_k", "min_p", "top_a", "repetition_penalty", "repeat_penalty",
        "min_tokens", "length_penalty", "typical_p", "mirostat", "mirostat_tau", "mirostat_eta", "num_ctx",
    }
)  # fmt: skip
_WORDS = frozenset(
    {
        "model", "stop", "user", "reasoning_effort", "service_tier", "safety_identifier", "prompt_cache_key",
        "prompt_cache_retention", "verbosity", "guided_regex", "guided_grammar", "grammar", "keep_alive",
    }
)  # fmt: skip
# JSON of any shape. The names beyond OpenAI's own are those of vLLM, llama.cpp, Ollama and OpenRouter.
_VALUES = frozenset(
    {
        "response_format", "tools", "tool_choice", "parallel_tool_calls", "functions", "function_call", "logprobs",
        "logit_bias", "metadata", "store", "modalities", "audio", "prediction", "web_search_options", "reasoning",
        "thinking", "chat_template_kwargs", "stop_token_ids", "ignore_eos", "guided_json", "guided_choice",
        "structured_outputs", "cache_prompt", "json_schema", "options", "provider", "models", "transforms",
        "plugins", "include_reasoning", "enable_thinking", "extra_body", "stream", "stream_options",
    }
)  # fmt: skip
KNOWN_PARAMETERS = _NUMBERS | _WORDS | _VALUES


class RenderError(ValueError):
    """A row cannot be put into the template.

    The message is a sentence for the row's ``error``.

    Attributes:
        reason: The same in one word, for counting.
    """

    reason = "bad_row"


def dumps(value: Any) -> bytes:
    """Returns compact JSON in UTF-8. A number that remembers its spelling keeps it, however long it is.

    Raises:
        ValueError: A text holds half of a UTF-16 pair, so that UTF-8 cannot carry it, or nesting is too deep.
    """
    try:
        return orjson.dumps(value, default=_written, option=_PASS)
    except TypeError:  # beyond 64 bits, a key that is no text, half a pair
        pass
    try:
        return orjson.dumps(_plain(value), default=_written, option=_PASS)
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error


def to_json(value: Any) -> str:
    """Returns ``dumps`` as text, for prompts; what UTF-8 cannot carry becomes JSON escapes."""
    try:
        return dumps(value).decode()
    except ValueError:
        return json.dumps(value, default=str)


def _written(value: Any) -> Any:
    if isinstance(value, int | float):
        return orjson.Fragment(str(value))
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, list | tuple):
        return list(value)
    return str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if type(value) is int:
        return orjson.Fragment(str(value))
    return value


def to_text(value: Any) -> str:
    """Returns a value as a prompt shows it: text as it is, ``null`` as nothing, everything else as JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list | tuple | Mapping):
        return to_json(value)
    return str(value)


def parameter_value(name: str, text: str) -> Any:
    """Reads a parameter that arrives as text (a rendered template, a CSV cell).

    Returns a number for the parameters that are numbers, the text for those that are words, and for all others
    the value of the JSON, or the text where it is not JSON. Blank text is ``None``: not set.

    Raises:
        RenderError: The parameter needs a number and the text is not one.
    """
    stripped = text.strip()
    if not stripped:
        return None
    if name in _WORDS:
        return text if name == "stop" else stripped
    try:
        value = json.loads(stripped, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        value = stripped
    if name in _NUMBERS and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise RenderError(f"the parameter {name} is {stripped[:40]!r}, which is not a number")
    return value


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")
