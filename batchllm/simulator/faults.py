"""Chance that repeats: which fault strikes a request, and how long its answer takes.

Every draw is a hash of the seed and the number of the request, so the same requests in the same order meet
the same fate in every run. The hash is splitmix64 (Steele, Lea and Flood, 2014).
"""

from collections.abc import Mapping
from math import exp
from statistics import NormalDist

_MASK = (1 << 64) - 1
_NORMAL = NormalDist()
_FAULT, _LATENCY = 1, 2  # one stream of draws each


def uniform(seed: int, number: int, stream: int = 0) -> float:
    """A number from the open interval (0, 1), always the same for the same arguments."""
    z = (seed * 0x9E3779B97F4A7C15 + number * 0xD1B54A32D192ED03 + stream * 0x8CB92BA72F3D8DD7 + 1) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return (((z ^ (z >> 31)) >> 11) + 0.5) / (1 << 53)


class Chance:
    """The draws of one server."""

    def __init__(
        self, seed: int, error_rate: Mapping[str, float], latency_s: float, latency_sigma: float
    ) -> None:
        self._seed = seed
        self._rates = tuple(error_rate.items())
        self._median_s = latency_s
        self._sigma = latency_sigma

    def fault(self, number: int) -> str | None:
        """The fault that strikes request ``number``, if one does."""
        if not self._rates:
            return None
        draw = uniform(self._seed, number, _FAULT)
        for kind, rate in self._rates:
            draw -= rate
            if draw < 0:
                return kind
        return None

    def latency_s(self, number: int) -> float:
        """Seconds that the answer to request ``number`` takes."""
        if not self._median_s:
            return 0.0
        draw = uniform(self._seed, number, _LATENCY)
        return self._median_s * exp(self._sigma * _NORMAL.inv_cdf(draw))
