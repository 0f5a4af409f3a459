"""Formulas of a line or two: intervals, agreement beyond chance, and a test for paired answers."""

import math
from collections.abc import Iterable
from statistics import NormalDist

_Z = NormalDist().inv_cdf(0.975)
_NEGLIGIBLE = 1e-18


def wilson_interval(correct: int, rows: int) -> tuple[float, float]:
    """Returns the 95 % interval of a share, by Wilson's score without continuity correction.

    Wilson, "Probable inference, the law of succession, and statistical inference" (1927). It stays within 0 and 1,
    and is sound for few rows and for shares near either end.

    Args:
        correct: How many of the rows.
        rows: The number of rows, at least one.
    """
    share, z2 = correct / rows, _Z * _Z
    middle = share + z2 / (2 * rows)
    half = _Z * math.sqrt(share * (1 - share) / rows + z2 / (4 * rows * rows))
    low, high = (middle - half) / (1 + z2 / rows), (middle + half) / (1 + z2 / rows)
    return (0.0 if correct == 0 else low), (1.0 if correct == rows else high)


def cohen_kappa(agreed: int, rows: int, counts: Iterable[tuple[int, int]]) -> float | None:
    """Returns Cohen's kappa, the agreement beyond chance; ``None`` where chance alone agrees everywhere.

    Cohen, "A coefficient of agreement for nominal scales" (1960).

    Args:
        agreed: Rows with the same label on both sides.
        rows: The number of rows, at least one.
        counts: For each label, how often it occurs on either side.
    """
    by_chance = sum(left * right for left, right in counts)
    if by_chance == rows * rows:
        return None
    return (agreed * rows - by_chance) / (rows * rows - by_chance)


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Returns the two-sided p-value of McNemar's exact test: the chance of a difference at least as large.

    It is the binomial test of the rows that exactly one of two outputs has right, against one half.

    Args:
        only_first, only_second: Rows that only one of them has right.
    """
    rows, fewer = only_first + only_second, min(only_first, only_second)
    if 2 * fewer == rows:
        return 1.0
    log_term = math.lgamma(rows + 1) - math.lgamma(fewer + 1) - math.lgamma(rows - fewer + 1)
    term = math.exp(log_term - rows * math.log(2))
    total = 0.0
    for count in range(fewer, -1, -1):  # each term is smaller than the one before
        total += term
        if term < total * _NEGLIGIBLE:
            break
        term *= count / (rows - count + 1)
    return min(1.0, 2 * total)


def ratio(part: float, whole: float) -> float:
    """Returns a share; 0 where there is nothing to have a share of, as scikit-learn has it by default."""
    return part / whole if whole else 0.0


def mean(values: Iterable[float]) -> float:
    """Returns the mean of values; 0 where there are none."""
    found = list(values)
    return ratio(math.fsum(found), len(found))
