"""What happens after a refusal: one pause for all requests, then one probe.

A burst of fifty refusals is one event: a refusal of a request sent before the gate closed, or before it last opened,
says nothing new. When the pause is over, one request goes as a probe. Refusals come back fast and answers slowly, so a
probe that has not been refused within three times the usual latency of a refusal counts as accepted, and nothing waits
for a slow answer. Where the endpoint gives no time, the gaps between probes grow with the time for which everything
has been refused, so that they waste about a tenth of it.
"""

from datetime import datetime, timedelta

from batchllm.errors import Unavailable
from batchllm.records import Pace

FIRST_GAP_S = 0.25
GROWTH = 1.6
SHORTEST_PAUSE_S = 0.02
QUIET_S = 0.3
LONGEST_GAP_S = {True: 0.8, False: 3.0}
"""The longest gap at first, by whether a limit is known (given or shown)."""
LATER_S = {True: 0.8, False: 0.5}
LATER = 0.1
"""Later a gap is at most this share of the time for which everything has been refused, plus ``LATER_S``."""
MAX_UNNEEDED = 2
SHORT_S = 1.5
"""A requested pause up to this length may be a shorter one, rounded up to a second."""


class Gate:
    """Open, closed until an instant, or waiting for the outcome of its probe.

    Attributes:
        closed_at: Start of the present pause; ``None`` while the gate is open.
        opened_at: End of the last pause.
        until: When a probe may go.
        refusals: Refusals in the present or last pause.
        probes_refused: How many of them were probes.
        refusal_latency_s: The usual latency of a refusal.
    """

    def __init__(self) -> None:
        self.closed_at: float | None = None
        self.opened_at = float("-inf")
        self.until = float("-inf")
        self.refusals = 0
        self.probes_refused = 0
        self._probe_sent: float | None = None
        self._gap_s = FIRST_GAP_S
        self.refusal_latency_s = 0.1

    @property
    def closed(self) -> bool:
        """Whether all requests wait."""
        return self.closed_at is not None

    @property
    def quiet_s(self) -> float:
        """Seconds after which a request that has not been refused counts as accepted."""
        return max(QUIET_S, 3.0 * self.refusal_latency_s)

    def refused(
        self, now: float, sent_at: float, pause_s: float | None, *, probe: bool, limit_known: bool
    ) -> bool:
        """Records a refusal that concerns all requests; returns whether it closed the gate.

        Args:
            now: When the refusal arrived.
            sent_at: When its request was sent.
            pause_s: The pause that the endpoint requested, if any.
            probe: Whether the request was the probe.
            limit_known: Whether a limit was given or shown.
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
            # The requested pause has been too short once, so the gap counts as well.
            self._close(now, max(pause_s or 0.0, self._gap_s))
        elif pause_s is not None:
            self.until = max(self.until, now + pause_s)
        return False

    def observe_latency(self, latency_s: float) -> None:
        """Records how long a refusal took to come back."""
        self.refusal_latency_s += 0.2 * (latency_s - self.refusal_latency_s)

    def _close(self, now: float, pause_s: float | None) -> None:
        self.until = now + (self._gap_s if pause_s is None else max(SHORTEST_PAUSE_S, pause_s))

    def probing(self, now: float) -> None:
        """Records that the probe is sent."""
        self._probe_sent = now

    def probe_gone(self) -> None:
        """Allows another probe, because this one brought neither an answer nor a refusal."""
        self._probe_sent = None

    def open(self, now: float) -> None:
        """Ends the pause."""
        self.closed_at = None
        self._probe_sent = None
        self.opened_at = now

    def quiet_at(self) -> float | None:
        """Returns when the probe counts as accepted unless it is refused first; ``None`` if no probe is out."""
        return None if self._probe_sent is None else self._probe_sent + self.quiet_s


class RequestedPauses:
    """Decides whether the pauses that refusals request concern all requests, where no limit is given or shown.

    A refusal at random requests a pause as well, and then only its own row has a reason to wait. A requested pause was
    unneeded if requests sent after the refused one were accepted meanwhile, or if the refused pace is one that is known
    to be accepted. After two unneeded pauses the gate ignores requested pauses, and probes as if none had been
    requested, until one turns out to be real. The refused row itself always waits for as long as it was told.

    Attributes:
        requested: Whether the present or last pause was requested by the endpoint.
        unneeded: Unneeded pauses since the last real one.
    """

    def __init__(self) -> None:
        self.requested = False
        self.unneeded = 0

    @property
    def ignored(self) -> bool:
        """Whether the gate ignores requested pauses."""
        return self.unneeded >= MAX_UNNEEDED

    def probe_refused(self) -> None:
        """Records that the probe after the pause was refused, so the pause was real."""
        if self.requested:
            self.unneeded = 0

    def over(self, *, unneeded: bool) -> None:
        """Records the end of a pause."""
        if self.requested and unneeded:
            self.unneeded += 1

    def may_be_rounded(self, paused_s: float, probes: int) -> bool:
        """Returns whether a pause of this length, with so many refused probes, may have been longer than needed."""
        return self.requested and paused_s < SHORT_S * (1 + probes)


class PauseLimit:
    """Ends the run when a pause exceeds what the user allows.

    Args:
        lane: The lane's name, for the message.
        pace: The user's settings.

    Attributes:
        max_wait_s: The longest pause that the endpoint may request.
    """

    def __init__(self, lane: str, pace: Pace) -> None:
        self._lane = lane
        self.max_wait_s = pace.max_wait_s
        self._max_outage_s = pace.max_outage_s

    def longest_s(self, reason: str) -> float:
        """Returns how long everything may be refused for this reason."""
        return self.max_wait_s if reason == "rate_limit" else self._max_outage_s

    def check(self, now: float, gate: Gate, reason: str) -> None:
        """Checks the present pause.

        Raises:
            Unavailable: The endpoint requests a longer pause than is allowed, or has refused everything for too long.
        """
        if gate.closed_at is None or gate.until <= now:
            return
        pause_s, closed_s = gate.until - now, now - gate.closed_at
        if pause_s > self.max_wait_s:
            raise Unavailable(
                f"the endpoint asks for a pause of {pause_s:,.0f} s for {self._lane}, until {_clock(pause_s)}, and "
                f"--max-wait is {self.max_wait_s:,.0f} s; the same command goes on later"
            )
        if closed_s > self.longest_s(reason):
            raise Unavailable(
                f"the endpoint has refused every request for {self._lane} for {closed_s:,.0f} s; "
                "the same command goes on later"
            )


def _clock(pause_s: float) -> str:
    """Returns the local time at which a pause ends: ``14:32``, with the date if it is another day."""
    now = datetime.now().astimezone()
    then = now + timedelta(seconds=pause_s)
    return f"{then:%H:%M}" if then.date() == now.date() else f"{then:%Y-%m-%d %H:%M}"
