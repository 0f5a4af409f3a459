"""What is asked of each class and of all worlds together, and the table that says by how much it is missed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from .world import Outcome


@dataclass(frozen=True, slots=True)
class Figure:
    """One bound.

    Attributes:
        what: ``refused``, ``block`` (refusals per minute of block), ``after`` (refusals once something was let
            in), ``share`` (of the quota) ``found`` (refusals per request after three minutes) or
            ``found slow`` (the same at less than 200 requests a minute).
        at: The quantile that is held against it: 0.5 for the median, 0.1 for nine worlds of ten at least.
        bound: At most; for ``share``, at least.
    """

    what: str
    at: float
    bound: float


def _shares(median: float, most: float, noise: float = 0.0) -> list[Figure]:
    return [Figure("share", 0.5, median * (1.0 - noise)), Figure("share", 0.1, most * (1.0 - noise))]


NONE = [Figure("refused", 0.95, 0.0)]
SPENT = [Figure("block", 0.95, 25.0)]
SEARCHED = [
    Figure("refused", 0.5, 40.0), Figure("refused", 0.9, 60.0),
    Figure("found", 0.5, 1 / 1000), Figure("found slow", 0.5, 1 / 300),
]  # fmt: skip
TOLD, SHOWN, SILENT = _shares(0.99, 0.99), _shares(0.98, 0.90), _shares(0.95, 0.85)
FIGURES: dict[str, list[Figure]] = {
    "told right, empty": NONE + TOLD,
    "told right, half": SPENT + TOLD,
    "told right, spent": [*SPENT, Figure("after", 0.95, 0.0), *TOLD],
    "told right, lawful headers": NONE + TOLD,
    "told too low": NONE + TOLD,
    "lawful headers, empty": NONE + SHOWN,
    "lawful headers, half": NONE + SHOWN,
    "lawful headers, spent": [*SPENT, Figure("after", 0.95, 0.0), *SHOWN],
    "nothing told, empty": SEARCHED + SILENT,
    "nothing told, half": SEARCHED + SILENT,
    "nothing told, spent": [*SPENT, Figure("after", 0.5, 40.0), Figure("after", 0.9, 60.0), *SILENT],
    "nothing told, noise 2 %": _shares(0.95, 0.85, 0.02),
    "nothing told, noise 10 %": _shares(0.95, 0.85, 0.1),
    "nothing told, noise 30 %": _shares(0.95, 0.85, 0.3),
    "told right, noise 2 %": NONE + _shares(0.99, 0.99, 0.02),
    "told right, noise 10 %": NONE + _shares(0.99, 0.99, 0.1),
    "lawful headers, noise 10 %": NONE + _shares(0.98, 0.90, 0.1),
}
SHORT: dict[tuple[str, str, float], float] = {
    ("told right, noise 2 %", "share", 0.1): 0.93,
    ("told right, noise 10 %", "share", 0.5): 0.87,
    ("told right, noise 10 %", "share", 0.1): 0.78,
    ("lawful headers, noise 10 %", "refused", 0.95): 30.0,
    ("lawful headers, noise 10 %", "share", 0.1): 0.70,
    ("nothing told, empty", "found", 0.5): 0.006,
    ("nothing told, empty", "found slow", 0.5): 0.02,
    ("nothing told, empty", "share", 0.1): 0.78,
    ("nothing told, half", "refused", 0.9): 85.0,
    ("nothing told, noise 2 %", "share", 0.1): 0.50,
    ("nothing told, noise 30 %", "share", 0.1): 0.40,
}
"""Figures that fall short of what is asked, by class, measure and quantile: what is reached, and no worse."""
OVERALL = {"never finishes": 1 / 200, "over by 1 s": 1 / 16, "over by 10 s": 1 / 80}


def _slow(outcome: Outcome) -> bool:
    return any(limit.of == "requests" and limit.amount < 200.0 for limit in outcome.spec.limits)


_MEASURES: dict[str, Callable[[Outcome], float | None]] = {
    "refused": lambda o: float(o.refused),
    "block": lambda o: o.refused_first / max(1.0, o.block_s / 60.0) if o.block_s else None,
    "after": lambda o: float(o.refused - o.refused_first),
    "share": lambda o: o.share,
    "found": lambda o: None if _slow(o) else o.found,
    "found slow": lambda o: o.found if _slow(o) else None,
}


def quantile(values: Sequence[float], at: float) -> float:
    """The quantile by linear interpolation; of one value, that value."""
    ordered = sorted(values)
    place = at * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def overall(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """How many worlds never finish, and how many stand still too long or take too long."""
    return {
        "never finishes": sum(o.unfinished for o in outcomes),
        "over by 1 s": sum(o.excess_s > 1.0 for o in outcomes),
        "over by 10 s": sum(o.excess_s > 10.0 for o in outcomes),
        "too slow": sum(not o.unfinished and o.slow_s > 0.0 for o in outcomes),
        "fails": sum(o.fails for o in outcomes),
    }


def misses(outcomes: Sequence[Outcome], *, short: Mapping[tuple[str, str, float], float] = {}) -> list[str]:
    """Each figure that is missed, and by how much; a bound over all is missed by at least one world more.

    Args:
        outcomes: Of the worlds.
        short: Bounds that stand in for what is asked, as in ``SHORT``.
    """
    found = []
    counted = overall(outcomes)
    for what, share in OVERALL.items():
        if counted[what] > share * len(outcomes):
            found.append(f"all: {what} {counted[what]} of {len(outcomes)}, asked {share * len(outcomes):.1f}")
    for name, of_class in by_class(outcomes).items():
        for figure in FIGURES.get(name, ()):
            values = [v for o in of_class if (v := _MEASURES[figure.what](o)) is not None]
            if values:
                value = quantile(values, figure.at)
                bound = short.get((name, figure.what, figure.at), figure.bound)
                less = figure.what == "share"
                if value < bound - 1e-9 if less else value > bound + 1e-9:
                    found.append(
                        f"{name}: {figure.what} p{100 * figure.at:g} {value:.4g}, asked"
                        f" {'at least' if less else 'at most'} {bound:.4g} ({len(values)} worlds)"
                    )
    return found


def by_class(outcomes: Iterable[Outcome]) -> dict[str, list[Outcome]]:
    """The outcomes of each class."""
    found: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault(outcome.spec.name, []).append(outcome)
    return found


def table(outcomes: Sequence[Outcome]) -> str:
    """The table by class."""
    lines = [
        "| class | worlds | never finish | over 1 s | over 10 s | worst s | too slow | refused p10 / p50 / p90 / max"
        " | share p10 / p50 / p90 / max |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    order = sorted(by_class(outcomes).items())
    for name, some in [*order, ("all", list(outcomes))]:
        counted = overall(some)
        refused = [float(o.refused) for o in some]
        shares = [o.share for o in some if o.share is not None]
        lines.append(
            f"| {name} | {len(some)} | {counted['never finishes']} | {counted['over by 1 s']} |"
            f" {counted['over by 10 s']} | {max(o.excess_s for o in some):.1f} | {counted['too slow']} |"
            f" {_spread(refused, '.0f')} | {_spread(shares, '.3f')} |"
        )
    return "\n".join(lines)


def _spread(values: Sequence[float], form: str) -> str:
    if not values:
        return "-"
    return " / ".join(format(quantile(values, at), form) for at in (0.1, 0.5, 0.9, 1.0))
