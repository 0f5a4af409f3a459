"""Makes a failing world smaller while it fails at least as badly."""

from collections.abc import Iterator
from dataclasses import replace

from .spec import Limit, Spec
from .world import Maker, Outcome, product, run

_PLAIN = Spec()
_FEATURES = (
    "late_share", "late_s", "faults", "outage", "odd_first", "odd_retry_after", "stranger", "stranger_s", "clients",
    "noise", "lie", "retry_after", "headers", "told_rpm", "told_tpm", "concurrency", "size_sigma", "latency_sigma",
    "prompt_tokens", "charge", "latency_s",
)  # fmt: skip


def kind_of(outcome: Outcome) -> str:
    """How a world fails; ``""`` where it does not."""
    if outcome.unfinished:
        return outcome.ended
    return "stands still" if outcome.excess_s > 1.0 else "slow" if outcome.slow_s > 0.0 else ""


def badness(outcome: Outcome) -> int:
    """0 for a world that does not fail, then slow, standing still, never finished."""
    return 3 if outcome.unfinished else ("", "slow", "stands still").index(kind_of(outcome))


def _simpler(spec: Spec) -> Iterator[Spec]:
    for rows in (spec.rows // 10, spec.rows // 2, spec.rows * 3 // 4, spec.rows - 1):
        if 1 <= rows < spec.rows:
            yield replace(spec, rows=rows)
    for feature in _FEATURES:
        plain = getattr(_PLAIN, feature)
        if getattr(spec, feature) != plain:
            yield replace(spec, **{feature: plain})
    for index, limit in enumerate(spec.limits):
        before, after = spec.limits[:index], spec.limits[index + 1 :]
        yield replace(spec, limits=before + after)
        for simpler in _simpler_limits(limit):
            yield replace(spec, limits=(*before, simpler, *after))
    if spec.seed != 1:
        yield replace(spec, seed=1)
    rounder = float(f"{spec.latency_s:.1g}")
    if rounder != spec.latency_s:
        yield replace(spec, latency_s=rounder)
    if spec.told_rpm is not None and (told := float(f"{spec.told_rpm:.1g}")) != spec.told_rpm:
        yield replace(spec, told_rpm=told)


def _simpler_limits(limit: Limit) -> Iterator[Limit]:
    for phase in (0.0, 0.5):
        if limit.phase not in (0.0, phase):
            yield replace(limit, phase=phase)
    for used in (0.0, 1.0):
        if limit.used not in (0.0, used):
            yield replace(limit, used=used)
    if limit.used == 1.0:
        yield replace(limit, used=0.0)
    if limit.kind != "cap":
        for amount in (60.0, 600.0, float(f"{limit.amount:.1g}")):
            if limit.of == "requests" and amount != limit.amount and limit.amount not in (60.0, 600.0):
                yield replace(limit, amount=amount)


def shrunk(spec: Spec, make: Maker = product, most_runs: int = 200) -> Spec:
    """The simplest world found that fails as badly as this one.

    Args:
        spec: A failing world.
        make: Makes the limiter.
        most_runs: How many worlds may be tried.
    """
    least = badness(run(spec, make))
    if not least:
        return spec
    runs = 0
    while True:
        for simpler in _simpler(spec):
            runs += 1
            if runs > most_runs:
                return spec
            if badness(run(simpler, make)) >= least:
                spec = simpler
                break
        else:
            return spec
