"""What a lane needs of a limit that many runs share."""

import math

from batchllm.leases.client import LeaseClient
from batchllm.leases.messages import HEADROOM, TTL_S, Use
from batchllm.limiter.lease import LaneDemand
from batchllm.limiter.terms import MINUTE_S, REQUESTS, TOKENS
from batchllm.records import Pace

OVER_S = 5.0
"""The time over which what it sends is averaged."""
LEAST_RPM = MINUTE_S / TTL_S
"""What a lane needs at least while anything waits: a request in the time of a lease."""


class DemandMeter:
    """Measures what one lane sends, and says what it needs."""

    def __init__(self) -> None:
        self._at = -math.inf
        self._last = (0.0, 0.0)
        self._rates = (0.0, 0.0)

    def use(
        self, now: float, demand: LaneDemand, pace: Pace, client: LeaseClient, key: str, *, last: bool = False
    ) -> Use:
        """Returns what the lane needs.

        Args:
            now: The time now, in seconds.
            demand: What the limiter says of it.
            pace: The whole limits.
            client: What it holds.
            key: The key of the lane there.
            last: Nothing more is to come than what waits, and what requests in flight lead to.
        """
        sent = (float(demand.granted), demand.tokens)
        elapsed_s = now - self._at
        if elapsed_s > 0.0:
            kept = math.exp(-elapsed_s / OVER_S)
            self._rates = tuple(  # type: ignore[assignment]
                kept * rate + (1.0 - kept) * MINUTE_S * (after - before) / elapsed_s
                for rate, before, after in zip(self._rates, self._last, sent, strict=True)
            )
            self._at, self._last = now, sent
        holds = client.holds(now, key)
        size = demand.tokens_per_request
        least = LEAST_RPM if demand.waiting else 0.0
        rpm: float | None = max(HEADROOM * self._rates[0], least)
        tpm: float | None = max(HEADROOM * self._rates[1], least * size)
        unknown = not demand.granted or demand.binding in ("lease", "pause")
        if (unknown and demand.waiting) or demand.binding == REQUESTS:
            rpm = None
        if (unknown and demand.waiting) or demand.binding == TOKENS or not size:
            tpm = None
        if last and not demand.waiting:
            rpm = tpm = 0.0
        return Use(
            limit_rpm=pace.requests_per_minute,
            limit_tpm=pace.tokens_per_minute,
            shown_rpm=demand.shown_rpm,
            shown_tpm=demand.shown_tpm,
            demand_rpm=rpm,
            demand_tpm=tpm,
            holds_rpm=holds[0],
            holds_tpm=holds[1],
            divided_rpm=client.divided_rpm(key),
            tokens_per_request=size,
            sent=demand.granted,
            refused=demand.refused,
            pauses=demand.pauses,
            paused_s=demand.paused_s,
        )
