"""Asking once more for an answer that could not be used."""

from collections.abc import Callable

from batchllm.exact import loads
from batchllm.records import Answer, ChatRequest
from batchllm.template import dumps


def reask(request: ChatRequest, answer: Answer, count: Callable[[str], int] | None = None) -> ChatRequest:
    """The request that goes on from an answer that does not validate, with the validator's words.

    It keeps the key: for the journal it is another attempt at the same request.

    Args:
        request: What was sent.
        answer: What came, with ``text`` and ``error``.
        count: Counts tokens, where somebody needs them.
    """
    body = loads(request.body)
    complaint = f"This cannot be used: {answer.error}. Answer again with nothing but JSON that is right."
    body["messages"] += [
        {"role": "assistant", "content": answer.text},
        {"role": "user", "content": complaint},
    ]
    added = 0 if count is None else count(answer.text) + count(complaint) + 8
    return request._replace(body=dumps(body), prompt_tokens=request.prompt_tokens + added)
