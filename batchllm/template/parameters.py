"""The parameters of a chat-completions request, by name and kind."""

import json
from typing import Any

from batchllm.template.sandbox import RenderError

NUMBERS = frozenset(
    {
        "temperature", "top_p", "max_tokens", "max_completion_tokens", "frequency_penalty", "presence_penalty",
        "n", "seed", "top_logprobs", "top_k", "min_p", "top_a", "repetition_penalty", "repeat_penalty",
        "min_tokens", "length_penalty", "typical_p", "mirostat", "mirostat_tau", "mirostat_eta", "num_ctx",
    }
)  # fmt: skip
WORDS = frozenset(
    {
        "model", "stop", "user", "reasoning_effort", "service_tier", "safety_identifier", "prompt_cache_key",
        "prompt_cache_retention", "verbosity", "guided_regex", "guided_grammar", "grammar", "keep_alive",
    }
)  # fmt: skip
# JSON of any shape. The names beyond OpenAI's own are those of vLLM, llama.cpp, Ollama and OpenRouter.
VALUES = frozenset(
    {
        "response_format", "tools", "tool_choice", "parallel_tool_calls", "functions", "function_call", "logprobs",
        "logit_bias", "metadata", "store", "modalities", "audio", "prediction", "web_search_options", "reasoning",
        "thinking", "chat_template_kwargs", "stop_token_ids", "ignore_eos", "guided_json", "guided_choice",
        "structured_outputs", "cache_prompt", "json_schema", "options", "provider", "models", "transforms",
        "plugins", "include_reasoning", "enable_thinking", "extra_body", "stream", "stream_options",
    }
)  # fmt: skip
KNOWN_PARAMETERS = NUMBERS | WORDS | VALUES


def parameter_value(name: str, text: str) -> Any:
    """What a parameter that arrives as text (a rendered template, a CSV cell) means.

    A number for the parameters that are numbers, the text itself for those that are words, and for all
    others what the text says as JSON, or the text where it is no JSON. Blank text is ``None``: not set.

    Raises:
        RenderError: The parameter is a number and the text is none.
    """
    stripped = text.strip()
    if not stripped:
        return None
    if name in WORDS:
        return text if name == "stop" else stripped
    try:
        value = json.loads(stripped, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        value = stripped
    if name in NUMBERS and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise RenderError(f"the parameter {name} is {stripped[:40]!r}, which is not a number")
    return value


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")
