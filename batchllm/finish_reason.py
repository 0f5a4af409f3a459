"""One vocabulary for why an answer ended, whatever word an endpoint has for it.

The words are those of Chat Completions: ``stop``, ``length``, ``tool_calls``, ``content_filter``, and ``error`` for an
answer that broke off. The others are Anthropic's, Gemini's, Cohere's, Mistral's, Bedrock's, DeepSeek's, Zhipu's and
those of the servers TGI, SGLang, TensorRT-LLM and llama.cpp.
"""

import re
from typing import Any

STANDARD = ("stop", "length", "tool_calls", "content_filter", "error")

_WORDS = {
    "stop": "end_turn stop_sequence stop_token stop_str stop_word stopped eos eos_token eos_found eot eog end_of_text "
    "end_of_turn endoftext end complete completed completion done finished finish normal natural success",
    "length": "max_tokens max_token max_length max_new_tokens max_output_tokens max_completion_tokens model_length "
    "max_context_length model_context_window_exceeded context_length context_length_exceeded context_window_exceeded "
    "token_limit token_limit_reached max_tokens_reached error_limit limit length_limit length_cap truncated "
    "incomplete output_length",
    "tool_calls": "tool_call tool_use tool function_call function_calls functions",
    "content_filter": "content_filtered contentfilter content_policy filtered safety recitation blocklist "
    "prohibited_content spii image_safety image_prohibited_content image_recitation refusal sensitive "
    "guardrail guardrails guardrail_intervened guardrail_blocked moderation blocked error_toxic language",
    "error": "network_error insufficient_system_resource internal_error server_error engine_error model_error "
    "inference_error failed failure aborted abort cancelled canceled cancel timeout user_cancel",
}
_STANDARD_OF = {word: name for name, words in _WORDS.items() for word in words.split()}
_STANDARD_OF |= {name: name for name in STANDARD}
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_PREFIX = re.compile(r"^finish_reason[._]")


def finish_word(reason: Any) -> str | None:
    """Returns why an answer ended in the vocabulary's word, an unknown word as it is; ``None`` where it is missing."""
    if not isinstance(reason, str):
        return None
    if known := _STANDARD_OF.get(reason):
        return known
    if not reason.strip():
        return None
    word = re.sub(r"[\s-]+", "_", _CAMEL.sub("_", reason.strip()[:100])).casefold()
    return _STANDARD_OF.get(_PREFIX.sub("", word), reason)
