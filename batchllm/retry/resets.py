"""When an exhausted limit comes back, by the headers that a refusal carries."""

import re
from collections.abc import Mapping

from batchllm.retry.durations import seconds

_LIMIT_HEADER = re.compile(
    r"(?:x-rate-?limit|ratelimit|anthropic-ratelimit|x-tokenlimit)-(?:.*-)?reset(?:-.*)?"
)
_FIELD = re.compile(r"(?:^|[;,\s])(limit|remaining|reset|[rtqw])=(\d{1,15}(?:\.\d{1,6})?)", re.I)
_NAME = re.compile(r'^\s*"?([^";,=]{1,64})"?\s*;')
_FULL = {"r": "remaining", "t": "reset", "q": "limit", "w": "window"}


def structured(headers: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The limits of the IETF's ``RateLimit`` and ``RateLimit-Policy`` headers, in the forms of all drafts.

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


def told_reset_s(headers: Mapping[str, str], date: str | None, *, whole: bool) -> float | None:
    """Seconds until the limit is back that a refusal's headers show as exhausted.

    Args:
        headers: Names in lower case.
        date: The ``Date`` header of the response.
        whole: Read limits too that are shown with limit, remaining and reset, which the limiter reads by itself.
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
        if pause is None or (limit and remaining and not whole):
            continue
        if not remaining:
            unknown.append(pause)
        elif seconds(remaining) == 0.0:
            exhausted.append(pause)
    return max(exhausted) if exhausted else min(unknown, default=None)
