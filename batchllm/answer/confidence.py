"""The probability that a model gave to a label, from the ``logprobs`` of its answer.

It is the product of the probabilities of the tokens that spell the label. Two forms are read: that of chat completions
(``{"content": [{"token", "logprob", "bytes"}, …]}``) and the older one (``{"tokens": […], "token_logprobs": […]}``).
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_DIGITS = 6
_Token = tuple[bytes, float]


def confidence(logprobs: Any, labels: Sequence[str]) -> float | None:
    """Returns the probability of the labels that an answer was read as; ``None`` where nothing says it.

    Where the answer spells a label in other words, all its tokens count.

    Args:
        logprobs: The choice's member of this name, which may be anything.
        labels: The labels, at least one.
    """
    tokens = list(_tokens(logprobs))
    if not tokens or not labels:
        return None
    text = b"".join(token for token, _ in tokens)
    spans = [_span(text, label) for label in labels]
    known = [span for span in spans if span is not None]
    total, start = 0.0, 0
    for token, logprob in tokens:
        end = start + len(token)
        if len(known) < len(spans) or any(start < last and first < end for first, last in known):
            total += logprob
        start = end
    return round(math.exp(min(0.0, total)), _DIGITS)


def _span(text: bytes, label: str) -> tuple[int, int] | None:
    """Where a label stands first, in bytes: as a whole word if it does so anywhere."""
    readable = text.decode("utf-8", "surrogateescape")
    word = re.escape(label)
    for pattern in (rf"(?<!\w){word}(?!\w)", word):
        found = re.search(pattern, readable, re.IGNORECASE)
        if found is not None:
            before = len(readable[: found.start()].encode("utf-8", "surrogateescape"))
            return before, before + len(found[0].encode("utf-8", "surrogateescape"))
    return None


def _tokens(logprobs: Any) -> Iterator[_Token]:
    """Yields the tokens with their logprobs; nothing where one of them is not as it should be."""
    if not isinstance(logprobs, Mapping):
        return
    content, tokens = logprobs.get("content"), logprobs.get("tokens")
    if isinstance(content, list):
        pairs = [_entry(entry) for entry in content]
    elif isinstance(tokens, list) and isinstance(logprobs.get("token_logprobs"), list):
        pairs = [_token(*pair) for pair in zip(tokens, logprobs["token_logprobs"], strict=False)]
    else:
        return
    if None not in pairs:
        yield from (pair for pair in pairs if pair is not None)


def _entry(entry: Any) -> _Token | None:
    if not isinstance(entry, Mapping):
        return None
    raw = entry.get("bytes")
    if isinstance(raw, list) and all(type(byte) is int and 0 <= byte < 256 for byte in raw):
        return _token(bytes(raw), entry.get("logprob"))
    return _token(entry.get("token"), entry.get("logprob"))


def _token(token: Any, logprob: Any) -> _Token | None:
    if isinstance(token, str):
        token = token.encode("utf-8", "replace")
    if not isinstance(token, bytes) or isinstance(logprob, bool) or not isinstance(logprob, int | float):
        return None
    return None if math.isnan(logprob) else (token, float(logprob))
