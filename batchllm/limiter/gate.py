"""One refusal pauses the endpoint for everybody: one gate, one probe.

A refusal of a request that left before the gate closed, or before it last opened, is stale: it says nothing new, so
a burst of fifty refusals is one event. When the pause is over one request goes as a probe. Refusals come back fast
and answers slowly, so a probe that has not been refused within three times the usual refusal's latency counts as let
in, and nobody waits for a slow answer. Without a time given the gaps between probes grow with the time for which
everything has been refused: what is lost by them is a tenth of it.
"""

FIRST_GAP_S = 0.25
GROWTH = 1.6
SHORTEST_PAUSE_S = 0.02
QUIET_S = 0.3
LONGEST_GAP_S = {True: 0.8, False: 3.0}
"""How long the gaps grow at first: where a limit was given or shown, and where nothing is known of it."""
LATER_S = {True: 0.8, False: 0.5}
LATER = 0.1
"""Later on a gap is a tenth of the time for which everything has been refused, and a little more."""


class Gate:
    """Open, closed until an instant, or waiting for its probe."""

    __slots__ = (
        "_gap_s",
        "_probe_sent",
        "closed_at",
        "opened_at",
        "probes_refused",
        "refusal_latency_s",
        "refusals",
        "until",
    )

    def __init__(self) -> None:
        self.closed_at: float | None = None  # start of the present pause
        self.opened_at = float("-inf")  # end of the last one
        self.until = float("-inf")  # when a probe may go
        self.refusals = 0  # of the present or last pause
        self.probes_refused = 0  # of them
        self._probe_sent: float | None = None
        self._gap_s = FIRST_GAP_S
        self.refusal_latency_s = 0.1

    @property
    def closed(self) -> bool:
        """Whether everybody waits."""
        return self.closed_at is not None

    @property
    def quiet_s(self) -> float:
        """After how long a request that was not refused counts as let in."""
        return max(QUIET_S, 3.0 * self.refusal_latency_s)

    def refused(
        self, now: float, sent_at: float, pause_s: float | None, *, probe: bool, limit_known: bool
    ) -> bool:
        """Takes note of a refusal that means something; ``True`` when it closes the gate.

        Args:
            now: When it arrived.
            sent_at: When its request left.
            pause_s: What the endpoint asked for.
            probe: Whether it was the probe's.
            limit_known: A limit was given or shown.
        """
        if self.closed_at is None:
            if sent_at < self.opened_at and not probe:
                return False
            self.closed_at = now
            self.refusals = 1
            self.probes_refused = 0
            self._gap_s = FIRST_GAP_S
            self._close(now, pause_s)
            return True
        self.refusals += 1
        if probe:
            self.probes_refused += 1
            self._probe_sent = None
            later_s = LATER_S[limit_known] + LATER * (now - self.closed_at)
            self._gap_s = min(GROWTH * self._gap_s, max(LONGEST_GAP_S[limit_known], later_s))
            self._close(
                now, max(pause_s or 0.0, self._gap_s)
            )  # what was asked for was too short once already
        elif pause_s is not None:
            self.until = max(self.until, now + pause_s)
        return False

    def observe_latency(self, latency_s: float) -> None:
        """A refusal came back after this long."""
        self.refusal_latency_s += 0.2 * (latency_s - self.refusal_latency_s)

    def _close(self, now: float, pause_s: float | None) -> None:
        self.until = now + (self._gap_s if pause_s is None else max(SHORTEST_PAUSE_S, pause_s))

    def probing(self, now: float) -> None:
        """The probe leaves."""
        self._probe_sent = now

    def probe_gone(self) -> None:
        """The probe brought neither an answer nor a refusal (no connection): another one may go."""
        self._probe_sent = None

    def open(self, now: float) -> None:
        """The probe was let in: the pause is over."""
        self.closed_at = None
        self._probe_sent = None
        self.opened_at = now

    def quiet_at(self) -> float | None:
        """When the probe counts as let in unless it is refused first; ``None``: no probe is out."""
        return None if self._probe_sent is None else self._probe_sent + self.quiet_s
