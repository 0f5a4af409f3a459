"""Reads the rate limits in the headers of a response, in every form in use; never raises.

Names differ (``x-ratelimit-limit-requests``, ``x-rate-limit-…``, ``ratelimit-limit``,
``anthropic-ratelimit-input-tokens-remaining``, ``x-tokenlimit-…``, with or without ``-day``), and so do values. Parsed
names are cached, because every response is read.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from batchllm.limiter.terms import DAY_S, INPUT_TOKENS, MINUTE_S, OUTPUT_TOKENS, REQUESTS, TOKENS
from batchllm.retry import seconds, structured


@dataclass(frozen=True, slots=True)
class Level:
    """One limit as a response shows it.

    Attributes:
        dimension: ``requests``, ``tokens``, ``input_tokens`` or ``output_tokens``.
        limit: The limit per period.
        remaining: What is left of it; ``None`` if the headers do not say.
        reset_s: Seconds until a leaky bucket is full, or until the next window of a counter.
        period_s: The period, if the header's name says it.
    """

    dimension: str
    limit: float
    remaining: float | None
    reset_s: float | None
    period_s: float | None

    @property
    def used(self) -> float | None:
        """What is taken of the limit; ``None`` if the headers do not say."""
        return None if self.remaining is None else self.limit - self.remaining


_PREFIX = re.compile(r"^(?:x-rate-?limit|ratelimit|anthropic-ratelimit|x-tokenlimit)-")
_PERIODS = {"minute": MINUTE_S, "day": DAY_S, "hour": 3600.0}
_NUMBER = re.compile(r"\s*(\d{1,15}(?:\.\d{1,6})?)(?![\w.])")
_MOST_SETS = 256
_HeaderField = tuple[tuple[str, float | None], str]
_fields_of: dict[
    tuple[str, ...], tuple[tuple[str, _HeaderField], ...]
] = {}  # an endpoint sends few sets of names


def _parse_name(name: str) -> _HeaderField | None:
    """Parses a header's name into (dimension, period) and one of ``limit``, ``remaining`` and ``reset``."""
    prefix = _PREFIX.match(name)
    if not prefix:
        return None
    words = set(name[prefix.end() :].split("-"))
    field = words & {"limit", "remaining", "reset"}
    if len(field) != 1 or words - field - _PERIODS.keys() - {
        "requests", "tokens", "input", "output", "project", "req", "tok",
    }:  # fmt: skip
        return None
    period = next((length for word, length in _PERIODS.items() if word in words), None)
    if "tokens" in words or "tok" in words or "tokenlimit" in prefix[0]:
        dimension = INPUT_TOKENS if "input" in words else OUTPUT_TOKENS if "output" in words else TOKENS
    else:
        dimension = REQUESTS
    return (f"project-{dimension}" if "project" in words else dimension, period), field.pop()


def read(headers: Mapping[str, str]) -> list[Level]:
    """Returns the limits that headers show; ignores values that make no sense.

    Args:
        headers: The headers, with names in lower case.
    """
    names = tuple(headers)
    fields = _fields_of.get(names)
    if fields is None:
        if len(_fields_of) >= _MOST_SETS:
            _fields_of.clear()
        fields = _fields_of[names] = tuple(
            (name, f) for name in names if (f := _parse_name(name)) is not None
        )
    found: dict[tuple[str, float | None], dict[str, str]] = {}
    for name, (key, field) in fields:
        found.setdefault(key, {})[field] = headers[name]
    if "ratelimit" in headers:
        for limit, values in structured(headers).items():
            window = _number(values.get("window"))
            found.setdefault((TOKENS if "token" in limit else REQUESTS, window), {}).update(values)
    return [level for key, values in found.items() if (level := _level(key, values, headers)) is not None]


def _level(key: tuple[str, float | None], values: dict[str, str], headers: Mapping[str, str]) -> Level | None:
    limit = _number(values.get("limit"))
    if not limit:
        return None
    remaining = _number(values.get("remaining"))
    if remaining is not None and remaining > limit:
        remaining = None
    reset = values.get("reset")
    reset_s = seconds(reset, headers.get("date")) if reset else None
    return Level(key[0].removeprefix("project-"), limit, remaining, reset_s, key[1])


def _number(text: str | None) -> float | None:
    """Returns a finite number that is not negative, or ``None``."""
    found = _NUMBER.match(text) if text else None
    if not found:
        return None
    value = float(found[1])
    return value if math.isfinite(value) else None
