"""Durations and instants in all the forms that endpoints write them in."""

import math
import re
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_S = 86_400.0

_GO = re.compile(
    r"(\d+(?:\.\d+)?)\s*(ms|us|µs|ns|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d)(?![a-zµ])"
)
_UNIT_S = {"ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def seconds(text: str, date: str | None = None) -> float | None:
    """Reads a duration or an instant, however an endpoint wrote it, as seconds from now.

    Understands bare numbers, Go durations (``6m0s``, ``12ms``), RFC 3339 and HTTP dates (held against the
    response's own ``Date``, or the local clock where it has none), epochs in seconds and milliseconds. Never raises.

    Args:
        text: The value as it came.
        date: The ``Date`` header of the same response.

    Returns:
        Seconds from 0 to a day, or ``None`` for anything that is not a sane time (NaN, negative, garbage).
    """
    text = text.strip().strip('"')
    if not text or len(text) > 64:
        return None
    try:
        value = float(text)
    except ValueError:
        parts = _GO.findall(text.lower())
        if parts and not _GO.sub("", text.lower()).replace("and", "").strip(" ,"):
            return _bounded(sum(float(n) * _UNIT_S[u if u in _UNIT_S else u[0]] for n, u in parts))
        instant = _instant(text)
    else:
        if not value > 1e9:
            return _bounded(value)
        instant = value / 1000.0 if value > 1e11 else value
    sent = _instant(date) if date else None
    return None if instant is None else _bounded(max(0.0, instant - (time.time() if sent is None else sent)))


def _bounded(value: float) -> float | None:
    return min(value, LONGEST_S) if math.isfinite(value) and value >= 0.0 else None


def _instant(text: str) -> float | None:
    """A date as seconds since the epoch."""
    try:
        parsed = datetime.fromisoformat(text) if text[:4].isdigit() else parsedate_to_datetime(text)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError, OSError):
        return None
