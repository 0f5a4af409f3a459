"""Reads how long an endpoint asks to wait: durations, instants, reset headers, words in a message."""

import math
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from batchllm.error_body import ErrorBody

LONGEST_S = 86_400.0

_GO = re.compile(
    r"(\d+(?:\.\d+)?)\s*(ms|us|µs|ns|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d)(?![a-zµ])"
)
_UNIT_S = {"ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_TRY_AGAIN = re.compile(
    r"(?:try(?:ing)? again|retry(?:ing)?|resets?|wait)(?:[ -](?:in|after|at|for))?:?\s+"
    r"(\d{4}-\d\d-\d\d[T ][\d:.]+(?:Z|[+-]\d\d:?\d\d)?"
    r"|\d[\d.]*\s*[a-zµ]*(?:[\s,]*(?:and\s+)?\d[\d.]*\s*[a-zµ]+)*)",
    re.I,
)
_LIMIT_HEADER = re.compile(
    r"(?:x-rate-?limit|ratelimit|anthropic-ratelimit|x-tokenlimit)-(?:.*-)?reset(?:-.*)?"
)
_FIELD = re.compile(r"(?:^|[;,\s])(limit|remaining|reset|[rtqw])=(\d{1,15}(?:\.\d{1,6})?)", re.I)
_NAME = re.compile(r'^\s*"?([^";,=]{1,64})"?\s*;')
_FULL = {"r": "remaining", "t": "reset", "q": "limit", "w": "window"}


def retry_after(headers: Mapping[str, str], error: ErrorBody, *, refused: bool = False) -> float | None:
    """Returns the pause that a response asks for, in seconds.

    It comes from the headers, else from the body's fields and message, else, where a rate limit refused the request,
    from the reset of that limit. Limits that the headers give with remaining and reset are left to the limiter.

    Args:
        headers: Names in lower case.
        error: What the body says.
        refused: A rate limit refused the request.
    """
    date = headers.get("date")
    inner_date = error.headers.get("date", date)
    if (pause := _retry_after_header(headers, date)) is not None:
        return pause
    for delay in error.retry_delays:
        if (pause := seconds(delay, date)) is not None:
            return pause
    if (pause := _retry_after_header(error.headers, inner_date)) is not None:
        return pause
    for found in _TRY_AGAIN.finditer(error.message if error.is_json else ""):
        if (pause := seconds(found[1].strip(" .,"), date)) is not None:
            return pause
    if not refused:
        return None
    pause = reset_after_s(error.headers, inner_date, every_limit=True)
    return reset_after_s(headers, date, every_limit=False) if pause is None else pause


def _retry_after_header(headers: Mapping[str, str], date: str | None) -> float | None:
    """Reads ``Retry-After-Ms`` or ``Retry-After``, which is in seconds or an instant."""
    if (text := headers.get("retry-after-ms")) and (pause := seconds(text)) is not None:
        return pause / 1000.0
    if text := headers.get("retry-after"):
        pauses = [seconds(text, date), *(seconds(part, date) for part in text.split(","))]
        if valid := [pause for pause in pauses if pause is not None]:
            return max(valid)
    return None


def structured(headers: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Reads the IETF's ``RateLimit`` and ``RateLimit-Policy`` headers, in the forms of all drafts.

    Returns:
        The name of each limit (``""`` where it has none) to its ``limit``, ``remaining``, ``reset`` and ``window``.
    """
    found: dict[str, dict[str, str]] = {}
    for header in ("ratelimit-policy", "ratelimit"):
        value = headers.get(header, "")[:2000]
        for item in value.split(",") if ";" in value else [value]:
            fields = {_FULL.get(name.lower(), name.lower()): number for name, number in _FIELD.findall(item)}
            if fields:
                name = _NAME.match(item)
                found.setdefault(name[1].strip().lower() if name else "", {}).update(fields)
    return found


def reset_after_s(headers: Mapping[str, str], date: str | None, *, every_limit: bool) -> float | None:
    """Returns the seconds until the exhausted limit of a refusal is reset.

    Args:
        headers: Names in lower case.
        date: The ``Date`` header of the response.
        every_limit: Include limits given with limit, remaining and reset, which the limiter reads by itself.
    """
    shown = [
        (headers.get(name.replace("reset", "limit")), headers.get(name.replace("reset", "remaining")), value)
        for name, value in headers.items()
        if _LIMIT_HEADER.fullmatch(name)
    ]
    shown += [
        (fields.get("limit"), fields.get("remaining"), fields["reset"])
        for fields in structured(headers).values()
        if "reset" in fields
    ]
    exhausted, unknown = [], []
    for limit, remaining, reset in shown:
        pause = seconds(reset, date)
        if pause is None or (limit and remaining and not every_limit):
            continue
        if not remaining:
            unknown.append(pause)
        elif seconds(remaining) == 0.0:
            exhausted.append(pause)
    return max(exhausted) if exhausted else min(unknown, default=None)


def seconds(text: str, date: str | None = None) -> float | None:
    """Reads a duration or an instant in any form as seconds from now; never raises.

    The forms are bare numbers, Go durations (``6m0s``, ``12ms``), RFC 3339 and HTTP dates, and epochs in seconds or
    milliseconds. Instants are relative to the response's own ``Date``, or to the local clock where it has none.

    Args:
        text: The value as received.
        date: The ``Date`` header of the same response.

    Returns:
        Seconds from 0 to a day, or ``None`` for anything that is not a valid time (NaN, negative, garbage).
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
    """Parses a date into seconds since the epoch."""
    try:
        parsed = datetime.fromisoformat(text) if text[:4].isdigit() else parsedate_to_datetime(text)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError, OSError):
        return None
