"""How long a pause of the endpoint is borne, and the sentence that ends the run."""

from datetime import datetime, timedelta

from batchllm.errors import Unavailable
from batchllm.limiter.gate import Gate
from batchllm.records import Pace


class PauseLimit:
    """The longest pauses that the user allows.

    Args:
        lane: Whose pauses, for the message.
        pace: The user's settings.

    Attributes:
        max_wait_s: The longest pause that the endpoint may ask for.
    """

    __slots__ = ("_lane", "_max_outage_s", "max_wait_s")

    def __init__(self, lane: str, pace: Pace) -> None:
        self._lane = lane
        self.max_wait_s = pace.max_wait_s
        self._max_outage_s = pace.max_outage_s

    def longest_s(self, reason: str) -> float:
        """How long everything may be refused, by the reason of the refusals."""
        return self.max_wait_s if reason == "rate_limit" else self._max_outage_s

    def check(self, now: float, gate: Gate, reason: str) -> None:
        """Ends the run where a pause is too long.

        Raises:
            Unavailable: The endpoint asks for a longer pause than is allowed, or has refused everything for too long.
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
    """When a pause is over, by the local clock: ``14:32``, with the date where it is another day."""
    now = datetime.now().astimezone()
    then = now + timedelta(seconds=pause_s)
    return f"{then:%H:%M}" if then.date() == now.date() else f"{then:%Y-%m-%d %H:%M}"
