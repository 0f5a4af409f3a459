"""What refusals teach about a limit that many workers share; it is learned once, where the limit is divided.

The limit is what all workers together were let in with from the end of one pause to the end of the next, divided by
that time, as in ``limiter.rate_estimate``. A limit that the user gave is better evidence than a few refusals: its
margin widens first. Where a limit is neither given nor shown by headers, nothing limits the pace until the first
refusal. Reports are as old as the time between two of them, and a refusal at one worker reaches the others with their
next lease: until then they may be refused too. Refusals at random that close a gate again and again make the
estimate too low; it doubles in every span that passes without one.
"""

import math

from batchllm.limiter.rate_estimate import BELOW, MIN_ACCEPTED, RateEstimate
from batchllm.limiter.terms import MINUTE_S

FIRST_MARGIN = 0.005
WIDER = 1.5
WIDEST_MARGIN = 0.05
CLEAN_S = 1800.0
"""After so long without a pause, the margin below a given limit is gone."""
PROBES = 3
"""So many refusals in one pause overrule a limit that the user gave."""


class LearnedLimit:
    """The requests a minute that an endpoint grants, by what it lets in and what it refuses. It is told the time."""

    def __init__(self) -> None:
        self._accepted = 0.0
        self._refused = 0
        self._began: float | None = None
        self._resumed = False
        self._paused_at: float | None = None
        self._margin = 0.0
        self._estimate: RateEstimate | None = None

    def limit(self, now: float, told: float) -> float:
        """Returns the limit per minute that is divided.

        Args:
            now: The time now.
            told: The limit that the user gave, or that headers show; infinite without one.
        """
        if self._margin and self._paused_at is not None and now - self._paused_at > CLEAN_S:
            self._margin = 0.0
        found = math.inf if self._estimate is None else MINUTE_S * self._estimate.pace(now)
        return min(told * (1.0 - self._margin), found)

    def inherit(self, limit: float, now: float) -> None:
        """Takes the limit that another holder, which died, has divided."""
        if self._estimate is None:
            self._estimate = RateEstimate(limit / MINUTE_S / BELOW, MINUTE_S, now, 1.0)

    def add(self, now: float, accepted: float, refused: int) -> None:
        """Records what a worker was let in with, and what it was refused, since its last report."""
        if self._began is None and accepted > 0.0:
            self._began = now
        self._accepted += accepted
        self._refused += refused

    def paused(self, now: float) -> None:
        """Records that a pause for all has begun."""
        self._paused_at = now

    def resumed(self, now: float, told: float) -> None:
        """Learns from a pause that is over, and begins another stretch."""
        if told < math.inf and self._margin < WIDEST_MARGIN and self._refused < PROBES:
            self._margin = min(WIDEST_MARGIN, max(FIRST_MARGIN, WIDER * self._margin))
        elif self._began is None or self._accepted < MIN_ACCEPTED or now <= self._began:
            if self._estimate is None and told == math.inf:
                self._estimate = RateEstimate.soft_start(now, 1.0)
        else:
            measured_s = now - self._began
            rate = self._accepted / measured_s
            if self._estimate is None or not self._resumed:
                self._estimate = RateEstimate(rate, measured_s, now, 1.0)
            else:
                self._estimate.learn(rate, measured_s, now, refusals=max(1, self._refused))
        self._began, self._resumed = now, True
        self._accepted, self._refused = 0.0, 0
