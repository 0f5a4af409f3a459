"""What an endpoint tells of its limits: headers in the dialects in use, true or lying, and Retry-After."""

from email.utils import formatdate
from math import ceil
from time import gmtime, strftime

from .servers import Grant
from .spec import DAY_S, Spec

EPOCH = 1_800_000_000.0  # the virtual clock's zero, in seconds since 1970
DIALECTS = ("openai", "anthropic", "plain", "epoch", "epoch_ms", "ietf")  # those with a reset
NO_RESET = "litellm"
DAILY = ("day", "groq")


def go_duration(seconds: float) -> str:
    """``1m30.5s``, ``12ms``: as Go prints a duration."""
    if seconds < 1.0:
        return f"{ceil(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60.0)
    hours, minutes = divmod(int(minutes), 60)
    return (
        f"{hours}h{minutes}m{rest:.3f}s" if hours else f"{minutes}m{rest:.3f}s" if minutes else f"{rest:.3f}s"
    )


def shown(grant: Grant, spec: Spec, now: float) -> tuple[float, float, float]:
    """Limit, remaining and reset as the endpoint shows them, after its lies."""
    limit, free, reset_s = grant.limit.amount, max(0.0, grant.free(now)), grant.reset_s(now)
    if spec.lie == "free":
        return limit, limit, 0.0
    if spec.lie == "none":
        return limit, 0.0, grant.limit.window_s
    if spec.lie == "ten":
        return 10.0 * limit, 9.0 * limit + free, reset_s
    return limit, free, reset_s


def headers(grants: list[Grant], spec: Spec, now: float) -> dict[str, str]:
    """The headers of an answer or a refusal that is decided now."""
    dialect = spec.headers
    if not dialect:
        return {}
    told: dict[str, str] = {}
    for grant in grants:
        if grant.limit.kind == "cap":
            continue
        limit, remaining, reset_s = shown(grant, spec, now)
        of, day = grant.limit.of, grant.limit.window_s == DAY_S
        values = (str(int(limit)), str(int(remaining + 1e-6)))
        if dialect == "anthropic":
            names = [f"anthropic-ratelimit-{of}-{field}" for field in ("limit", "remaining", "reset")]
            reset = strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(ceil(EPOCH + now + reset_s)))
        elif dialect == "ietf":
            names = [f"ratelimit-{field}" for field in ("limit", "remaining", "reset")]
            reset = str(ceil(reset_s))
        elif dialect in ("plain", "epoch", "epoch_ms") and len(grants) == 1 and of == "requests":
            names = [f"x-ratelimit-{field}" for field in ("limit", "remaining", "reset")]
            reset = _instant(dialect, now, reset_s)
        else:
            suffix = "-day" if dialect == "day" and day else "-minute" if dialect == "day" else ""
            names = [f"x-ratelimit-{field}-{of}{suffix}" for field in ("limit", "remaining", "reset")]
            reset = go_duration(reset_s) if dialect in ("openai", "groq") else _instant(dialect, now, reset_s)
        if dialect == "groq" and of == "requests" and not day:
            continue  # its request headers are those of the day
        told[names[0]], told[names[1]] = values
        if dialect != NO_RESET:
            told[names[2]] = reset
    told["date"] = formatdate(int(EPOCH + now), usegmt=True)
    return told


def _instant(dialect: str, now: float, reset_s: float) -> str:
    if dialect == "epoch":
        return str(ceil(EPOCH + now + reset_s))
    if dialect == "epoch_ms":
        return str(ceil((EPOCH + now + reset_s) * 1000.0))
    return str(ceil(reset_s))


def retry_after(rule: str, wait_s: float) -> dict[str, str]:
    """The header of a refusal: none, true (whole seconds, rounded up), or always the same."""
    if not rule:
        return {}
    return {"retry-after": str(max(1, ceil(wait_s))) if rule == "true" else rule}


def pause_s(told: dict[str, str], grants: list[Grant], amounts: list[float], spec: Spec, now: float) -> float:
    """The pause that a refusal asks for: its Retry-After, else the reset of a limit it shows as too small."""
    if "retry-after" in told:
        return float(told["retry-after"])
    if not spec.headers or spec.headers == NO_RESET:
        return 0.0
    resets = [0.0]
    for grant, amount in zip(grants, amounts, strict=True):
        if grant.limit.kind != "cap":
            _, remaining, reset_s = shown(grant, spec, now)
            if int(remaining + 1e-6) < amount:
                resets.append(reset_s)
    return max(resets)
