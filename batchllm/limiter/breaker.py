"""A circuit breaker for outages (M. Nygard, "Release It!"). Refusals for a limit are the gate's.

The endpoint is down when half of at least 20 results within 30 s failed, after eight failures in a row, or when no
connection can be made before the first success. Then one probe is sent at a time: a second later at first, and later
after a tenth of the outage so far, at most a minute. Failures meanwhile are no attempts of their rows. After a success
the run goes on with a quarter of the requests in flight, and doubles them.
"""

import logging
import math
import random

log = logging.getLogger("batchllm.limiter")

WINDOW_S = 30
LEAST_RESULTS = 20
IN_A_ROW = 8
FIRST_PROBE_S = 1.0
LONGEST_PROBE_S = 60.0
PROBE_SHARE = 0.1
NEVER_WORKED_S = 30.0


class Breaker:
    """Closed while the endpoint works, open in an outage.

    Args:
        rng: Source of jitter.
        max_outage_s: How long an outage may last; at most half a minute before the first success. Infinite: for ever.

    Attributes:
        opened_at: When the outage began; ``None`` without an outage.
        closed_at: When the last outage ended.
        probe_at: When the next probe may be sent.
        probing: A probe is in flight.
        last_failure: The message of the last failure.
        given_up: The outage has lasted too long, and its last probe has failed.
    """

    def __init__(self, rng: random.Random, max_outage_s: float) -> None:
        self._rng = rng
        self._max_outage_s = max_outage_s
        self._seconds: dict[int, list[int]] = {}  # second: [good, bad]
        self._in_a_row = 0
        self._worked = False
        self._gap_s = FIRST_PROBE_S
        self.opened_at: float | None = None
        self.closed_at = float("-inf")
        self.probe_at = 0.0
        self.probing = False
        self.last_failure = ""
        self.given_up = False

    def succeeded(self, now: float, sent_at: float, *, probe: bool) -> bool:
        """Records an answer; returns whether it ends an outage."""
        self._worked = True
        self._in_a_row = 0
        self._count(now, 0)
        if self.opened_at is None or not (probe or sent_at > self.opened_at):
            return False
        log.debug("breaker: closed at %.3f after %.1f s", now, now - self.opened_at)
        self.opened_at = None
        self.closed_at = now
        self.probing = False
        self._seconds.clear()
        return True

    def failed(self, now: float, sent_at: float, message: str, *, connection: bool, probe: bool) -> bool:
        """Records a failure of the endpoint; returns whether it starts an outage.

        Args:
            now: The time now.
            sent_at: When the request was sent; one sent before the last outage ended is ignored.
            message: What failed.
            connection: No connection could be made.
            probe: The request was the probe.
        """
        self.last_failure = message
        if self.opened_at is not None:
            if probe:
                self._gap_s = min(LONGEST_PROBE_S, FIRST_PROBE_S + PROBE_SHARE * (now - self.opened_at))
                self._next_probe(now)
            return False
        if sent_at < self.closed_at:
            return False
        self._in_a_row += 1
        self._count(now, 1)
        good, bad = (sum(counts[i] for counts in self._seconds.values()) for i in (0, 1))
        many = good + bad >= LEAST_RESULTS and bad >= good
        if not (many or self._in_a_row >= IN_A_ROW or (connection and not self._worked)):
            return False
        log.debug("breaker: open at %.3f, %d good and %d bad, %d in a row", now, good, bad, self._in_a_row)
        self.opened_at = now
        self._gap_s = FIRST_PROBE_S
        self._next_probe(now)
        return True

    @property
    def gives_up_at(self) -> float | None:
        """When the outage has lasted too long; ``None`` without an outage."""
        if self.opened_at is None:
            return None
        unlimited = self._worked or self._max_outage_s == math.inf
        return self.opened_at + (self._max_outage_s if unlimited else min(self._max_outage_s, NEVER_WORKED_S))

    def _next_probe(self, now: float) -> None:
        """Sets the time of the next probe; the last one is sent when the longest outage is over, and decides."""
        last = self.gives_up_at
        assert last is not None, "a probe is only planned in an outage"
        self.probing = False
        self.given_up = now >= last
        self.probe_at = now + self._gap_s * self._rng.uniform(0.8, 1.0)
        if now < last < self.probe_at:
            self.probe_at = last

    def probe_gone(self, now: float) -> None:
        """Allows another probe, because this one was cancelled."""
        self.probing = False
        self.probe_at = now

    def _count(self, now: float, which: int) -> None:
        second = int(now)
        counts = self._seconds.get(second)
        if counts is None:
            counts = self._seconds[second] = [0, 0]
            for old in [s for s in self._seconds if s <= second - WINDOW_S]:
                del self._seconds[old]
        counts[which] += 1
