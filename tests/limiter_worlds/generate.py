"""The generator: class and seed to a world. Every class has a fixed share of the worlds."""

import random
from collections.abc import Callable
from math import exp, log
from typing import Any

from .spec import DAY_S, Limit
from .tells import DIALECTS

Draw = random.Random
Parts = dict[str, Any]

PLAIN = ("bucket", "fixed")


def _log_uniform(rng: Draw, least: float, most: float) -> float:
    return exp(rng.uniform(log(least), log(most)))


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def _rpm(rng: Draw) -> float:
    return float(int(_rounded(_log_uniform(rng, 60.0, 3000.0))))


def _rows(rng: Draw, rpm: float) -> int:
    """Half of the jobs are of any size, half of 2.5 to 8 minutes (the share of the quota needs these)."""
    if rng.random() < 0.5:
        return round(_log_uniform(rng, 3.0, 5000.0))
    return max(3, min(5000, round(rpm * _log_uniform(rng, 2.5, 8.0))))


def base(rng: Draw) -> Parts:
    """What every world has: latency, sizes, and ``-c`` or not."""
    parts: Parts = {
        "latency_s": _rounded(_log_uniform(rng, 0.05, 8.0)),
        "latency_sigma": rng.choice((0.1, 0.3, 0.6, 1.0)),
        "prompt_tokens": rng.choice((50, 200, 1000)),
        "size_sigma": rng.choice((0.0, 0.0, 0.8)),
        "charge": rng.choice(("estimate", "max_tokens")),
    }
    if rng.random() < 0.4:
        parts["concurrency"] = round(_log_uniform(rng, 8.0, 400.0))
    if rng.random() < 0.15:
        parts |= {"late_share": 0.03, "late_s": _rounded(_log_uniform(rng, 1.0, 20.0))}
    return parts


def _requests(
    rng: Draw, history: str = "empty", kinds: tuple[str, ...] = PLAIN, window_s: float = 60.0
) -> Parts:
    """A limit of requests a minute, in windows of any length, and a job for it."""
    rpm, kind = _rpm(rng), rng.choice(kinds)
    used = {"empty": 0.0, "half": round(rng.uniform(0.3, 0.8), 2), "spent": 1.0}[history]
    phase = round(rng.random(), 3)
    amount = max(1.0, float(round(rpm * window_s / 60.0)))
    limit = Limit(kind, amount, window_s=window_s, used=used, phase=phase)
    return {"limits": (limit,), "rows": _rows(rng, rpm)}


def _rows_without_a_limit(rng: Draw) -> Parts:
    return {"limits": (), "rows": round(_log_uniform(rng, 3.0, 2000.0))}


def _told(parts: Parts, factor: float = 1.0) -> Parts:
    limit = parts["limits"][0]
    return {"told_rpm": _rounded(limit.amount * 60.0 / limit.window_s * factor)}


def headers_with_reset(rng: Draw) -> Parts:
    """A dialect of headers that has resets, with or without a Retry-After beside it."""
    return {"headers": rng.choice(DIALECTS), "retry_after": rng.choice(("", "true"))}


def _of_rows(parts: Parts, share: float) -> Parts:
    return {"rows": max(3, round(parts["rows"] * share))}


def _stranger(rng: Draw) -> Parts:
    steps = tuple(round(rng.uniform(0.0, 0.7), 2) for _ in range(rng.choice((1, 2, 4))))
    return {"stranger": steps, "stranger_s": rng.choice((20.0, 60.0, 120.0))}


def told(
    history: str = "empty", factor: tuple[float, float] = (1.0, 1.0), **more: Any
) -> Callable[[Draw], Parts]:
    """A limit that the user names, rightly or not; no header."""

    def build(rng: Draw) -> Parts:
        parts = _requests(rng, history)
        said = _told(parts, rng.uniform(*factor))
        return parts | said | {"retry_after": rng.choice(("", "true"))} | more

    return build


def lawful(history: str = "empty", kinds: tuple[str, ...] = PLAIN, **more: Any) -> Callable[[Draw], Parts]:
    """True headers with a reset."""
    return lambda rng: _requests(rng, history, kinds) | headers_with_reset(rng) | more


def silent(history: str = "empty", **more: Any) -> Callable[[Draw], Parts]:
    """No header, no limit told; what refusals say is in ``more``."""
    return lambda rng: _requests(rng, history) | more


def shared(build: Callable[[Draw], Parts], clients: int) -> Callable[[Draw], Parts]:
    """Several of ours on one limit, each with its part of the rows."""

    def among(rng: Draw) -> Parts:
        parts = build(rng)
        return parts | _of_rows(parts, 1.0 / clients) | {"clients": clients}

    return among


def beside(build: Callable[[Draw], Parts]) -> Callable[[Draw], Parts]:
    """Beside a stranger."""
    return lambda rng: build(rng) | _stranger(rng)


def both(*builds: Callable[[Draw], Parts]) -> Callable[[Draw], Parts]:
    """The parts of all, the later ones first."""

    def merged(rng: Draw) -> Parts:
        parts: Parts = {}
        for build in builds:
            parts |= build(rng)
        return parts

    return merged


def unlimited(**more: Any) -> Callable[[Draw], Parts]:
    """No limit at all."""
    return lambda rng: {"rows": round(_log_uniform(rng, 3.0, 5000.0))} | more


def small(history: str) -> Callable[[Draw], Parts]:
    """A job of 3 to 300 rows where nothing is told."""
    return lambda rng: _requests(rng, history) | {"rows": round(_log_uniform(rng, 3.0, 300.0))}


def other_windows(how: str) -> Callable[[Draw], Parts]:
    """Sliding windows of a minute (``sliding``), or buckets of 1 to 60 s and windows of 1 to 10 s (``short``)."""

    def build(rng: Draw) -> Parts:
        if how == "sliding":
            return _requests(rng, rng.choice(("empty", "half", "spent")), ("log", "counter"))
        kind = rng.choice(("bucket", "fixed", "log"))
        window_s = float(round(_log_uniform(rng, 1.0, 60.0 if kind == "bucket" else 10.0)))
        return _requests(rng, rng.choice(("empty", "spent")), (kind,), window_s)

    return build


def known(build: Callable[[Draw], Parts]) -> Callable[[Draw], Parts]:
    """The user names the limit rightly."""

    def with_told(rng: Draw) -> Parts:
        parts = build(rng)
        return parts | _told(parts)

    return with_told


def capped(slots: int, limited: bool = False) -> Callable[[Draw], Parts]:
    """A cap of requests in flight, refused with 429; with or without a limit of requests."""

    def build(rng: Draw) -> Parts:
        parts = _requests(rng) if limited else _rows_without_a_limit(rng)
        cap = Limit("cap", float(slots))
        return parts | {"limits": (*parts["limits"], cap), "retry_after": rng.choice(("", "1"))}

    return build


def _tokens_of(parts: Parts, rpm: float) -> float:
    prompt: float = parts["prompt_tokens"] * exp(0.5 * parts["size_sigma"] ** 2)
    mean = prompt + 200 if parts["charge"] == "estimate" else max(prompt, 200.0)
    return max(20.0 * (200.0 + prompt), _rounded(mean * rpm))


def tokens(*, shown: bool = False, said: bool = False, requests: bool = False) -> Callable[[Draw], Parts]:
    """A limit of tokens a minute binds; with ``requests``, one of requests is near it."""

    def build(rng: Draw) -> Parts:
        parts = base(rng)
        rpm, kind = _rpm(rng), rng.choice(PLAIN)
        phase = round(rng.random(), 3)
        limits = [Limit(kind, _tokens_of(parts, rpm), "tokens", phase=phase)]
        if requests:
            near = float(round(rpm * rng.uniform(0.7, 1.4)))
            limits.insert(0, Limit(kind, near, phase=phase))
        parts |= {"limits": tuple(limits), "rows": _rows(rng, rpm)}
        if shown:
            parts |= {"headers": rng.choice(("openai", "anthropic")), "retry_after": "true"}
        if said:
            parts["told_tpm"] = limits[-1].amount
            if requests:
                parts["told_rpm"] = limits[0].amount
        return parts

    return build


def daily(rng: Draw) -> Parts:
    """A quota of a day that is shown: it suffices, or comes back soon, or ends the job."""
    parts = _requests(rng)
    rows = parts["rows"]
    left = round(rows * rng.choice((0.3, 0.7, 1.5, 5.0))) + 1
    amount = float(max(left, round(_log_uniform(rng, 1000.0, 20_000.0))))
    back_s = rng.choice((_log_uniform(rng, 60.0, 1500.0), rng.uniform(20_000.0, 80_000.0)))
    day = Limit("fixed", amount, window_s=DAY_S, used=1.0 - left / amount, phase=1.0 - back_s / DAY_S)
    dialect = rng.choice(("day", "groq"))
    minute = parts["limits"] if dialect == "day" else ()
    return {
        "limits": (*minute, day),
        "rows": rows,
        "headers": dialect,
        "retry_after": rng.choice(("", "true")),
    }


def faulty(build: Callable[[Draw], Parts], *, outage: bool = False) -> Callable[[Draw], Parts]:
    """Faults at random, or a time in which nothing gets through."""

    def broken(rng: Draw) -> Parts:
        parts = build(rng)
        if outage:
            start = round(rng.uniform(0.0, 30.0), 1)
            return parts | {"outage": (start, round(_log_uniform(rng, 5.0, 120.0), 1))}
        return parts | {"faults": rng.choice((0.02, 0.05, 0.1))}

    return broken


def odd(build: Callable[[Draw], Parts]) -> Callable[[Draw], Parts]:
    """The first one to three answers are refusals."""
    return lambda rng: build(rng) | {"odd_first": rng.randint(1, 3), "odd_retry_after": rng.choice(("", "1"))}
