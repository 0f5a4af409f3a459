"""One refusal pauses the endpoint for everybody: one epoch, one gate, one probe.

A refusal of a request that left before the gate closed, or before the last one opened, is stale: it says
nothing new, so a burst of fifty refusals is one event. When the gate's time is up one request goes as a probe.
Refusals come back fast and answers slowly, so a probe that has not been refused within three times the usual
refusal's latency is taken as accepted, and nobody waits for a slow answer.
"""

FIRST_GAP_S = 0.25
LONGEST_GAP_S = 10.0
SHORTEST_PAUSE_S = 0.02
QUIET_S = 0.3


class Gate:
    """Open, closed until an instant, or waiting for its probe."""

    __slots__ = (
        "_gap_s",
        "_probe_sent",
        "_refusal_latency_s",
        "closed_at",
        "opened_at",
        "refusals",
        "until",
    )

    def __init__(self) -> None:
        self.closed_at: float | None = None  # start of the running epoch
        self.opened_at = float("-inf")  # end of the last one
        self.until = float("-inf")  # when a probe may go
        self.refusals = 0  # of the running or last epoch
        self._probe_sent: float | None = None
        self._gap_s = FIRST_GAP_S
        self._refusal_latency_s = 0.1

    @property
    def closed(self) -> bool:
        """Whether an epoch is running."""
        return self.closed_at is not None

    def refused(self, now: float, sent_at: float, pause_s: float | None, *, probe: bool) -> bool:
        """Takes note of a refusal; ``True`` when it opens a new epoch.

        Args:
            now: When it arrived.
            sent_at: When its request left.
            pause_s: What the endpoint asked for.
            probe: Whether it was the probe's.
        """
        self._refusal_latency_s += 0.2 * (now - sent_at - self._refusal_latency_s)
        if self.closed_at is None:
            if sent_at < self.opened_at and not probe:
                return False
            self.closed_at = now
            self.refusals = 1
            self._gap_s = FIRST_GAP_S
            self._close(now, pause_s)
            return True
        self.refusals += 1
        if probe:
            self._probe_sent = None
            self._gap_s = min(LONGEST_GAP_S, 1.6 * self._gap_s)
            self._close(now, pause_s)
        elif pause_s is not None:
            self.until = max(self.until, now + pause_s)
        return False

    def _close(self, now: float, pause_s: float | None) -> None:
        self.until = now + (self._gap_s if pause_s is None else max(SHORTEST_PAUSE_S, pause_s))

    def probing(self, now: float) -> None:
        """The probe leaves."""
        self._probe_sent = now

    def probe_gone(self) -> None:
        """The probe brought neither an acceptance nor a refusal (no connection): another one may go."""
        self._probe_sent = None

    def accepted(self, now: float) -> None:
        """The probe was not refused: the epoch is over."""
        self.closed_at = None
        self._probe_sent = None
        self.opened_at = now

    def quiet_at(self) -> float | None:
        """When the probe counts as accepted unless it is refused first; ``None``: no probe is out."""
        if self._probe_sent is None:
            return None
        return self._probe_sent + max(QUIET_S, 3.0 * self._refusal_latency_s)
