"""The causes of a standstill, each as a function that seeds it."""

from typing import Any

import pytest

from batchllm.counters import SendRate
from batchllm.limiter import (
    dimension,
    gate,
    header_pacer,
    headers,
    lane,
    limits,
    pace,
    rate_estimate,
    refusals,
)
from batchllm.retry import seconds

Patch = pytest.MonkeyPatch


def estimate_of_one(patch: Patch) -> None:
    """L1, L3: whatever was let in, over whatever time, is the limit."""
    patch.setattr(limits, "MIN_ACCEPTED", 0)


def estimate_goes_on_at_once(patch: Patch) -> None:
    """L1: the next run begins with an estimate of seconds."""
    patch.setattr(limits, "LEARNED_S", 0.0)


def debt_is_a_sum(patch: Patch) -> None:
    """L4: everything that left is owed, and is paid at a fiftieth of the pace."""

    def take(self: Any, now: float, amount: float, rate: float) -> None:
        owed = max(0.0, self._amount - (now - self._last) * 0.02 * rate)
        self._last, self._amount = now, owed + amount

    patch.setattr(pace.Pacer, "take", take)


def burst_is_owed(patch: Patch) -> None:
    """L4: what no rate held back moves the due time all the same."""
    real = pace.Pacer.take

    def take(self: Any, now: float, amount: float, rate: float) -> None:
        due = max(now, self._last + self._amount / rate)
        real(self, now, amount, rate)
        if rate == float("inf"):
            self._last = due + 0.1 * amount

    patch.setattr(pace.Pacer, "take", take)


def due_time_of_an_old_pace(patch: Patch) -> None:
    """L5: the due time of the next request is fixed when the last one leaves, at the pace of that instant."""

    def take(self: Any, now: float, amount: float, rate: float) -> None:
        slowest = min(rate, 1.0)
        self._last, self._amount = max(now, self._last) + amount / slowest, 0.0

    patch.setattr(pace.Pacer, "take", take)


def sleeps_until_the_due_time(patch: Patch) -> None:
    """L4, L5: nobody looks again before the instant that was computed once."""
    patch.setattr(lane, "LONGEST_SLEEP_S", float("inf"))


def spent_window_is_a_rate(patch: Patch) -> None:
    """L3: two requests in a spent window are taken for the limit."""

    def soft_start(cls: Any, now: float, usual: float) -> Any:
        return cls(2.0 * usual / 60.0, 60.0, now, usual)

    patch.setattr(rate_estimate.RateEstimate, "soft_start", classmethod(soft_start))


def every_refusal_is_a_limit(patch: Patch) -> None:
    """L2: a refusal at random lowers the pace."""
    patch.setattr(refusals.Refusals, "refused", lambda self, now, queued, **more: refusals.RefusalKind.LIMIT)
    patch.setattr(refusals.Refusals, "judge_unexplained", lambda self, *a, **k: refusals.Conclusion.WAIT)


def no_reset_no_limit(patch: Patch) -> None:
    """Headers that name no reset are not read."""
    real = headers.read
    patch.setattr(headers, "read", lambda told: [x for x in real(told) if x.reset_s is not None])


def no_milliseconds(patch: Patch) -> None:
    """L6: a reset in milliseconds since 1970 is not read."""
    patch.setattr(
        headers, "seconds", lambda text, date=None: None if len(text) == 13 else seconds(text, date)
    )


def pace_of_the_last_instant(patch: Patch) -> None:
    """L8: the summary's pace is that of the last two requests."""

    def count(self: Any, now: float) -> None:
        self.first_s, self.last_s, self.requests = self.last_s, now, min(2, self.requests + 1)

    patch.setattr(SendRate, "count", count)


def stretched_over_a_minute(patch: Patch) -> None:
    """L9: what is shown as left is spent over a minute, not at once."""
    patch.setattr(dimension, "TAU_S", 60.0)


def levels_are_taken_as_they_are(patch: Patch) -> None:
    """What has left since the answer that shows the level is not taken off."""
    patch.setattr(header_pacer.HeaderPacer, "take", lambda self, now, amount: None)


def lies_are_believed(patch: Patch) -> None:
    """Nothing is left, says every answer, and nothing goes."""
    patch.setattr(header_pacer.HeaderPacer, "_judge", lambda self, remaining, *, accepted: None)


def short_pauses_for_ever(patch: Patch) -> None:
    """A pause that was too short is asked for and kept again and again."""
    real = gate.Gate.refused

    def refused(self: Any, now: float, sent_at: float, pause_s: float | None, **more: Any) -> bool:
        opened = real(self, now, sent_at, pause_s, **more)
        if pause_s is not None:
            self.until = now + pause_s
        return opened

    patch.setattr(gate.Gate, "refused", refused)


def gaps_double(patch: Patch) -> None:
    """The gaps between probes double for as long as a block lasts."""
    patch.setattr(gate, "GROWTH", 2.0)
    patch.setattr(gate, "LATER", 1.0)


def no_cap(patch: Patch) -> None:
    """A cap of requests in flight is taken for a rate."""
    patch.setattr(refusals.Refusals, "_capped", lambda self, now, queued: False)


def noise_for_ever(patch: Patch) -> None:
    """What has refused at random is never believed again."""
    patch.setattr(refusals, "MIN_REFUSED_IN_A_ROW", 1_000_000)
    patch.setattr(refusals.Refusals, "_is_more", lambda self, known: False)


def estimate_for_ever(patch: Patch) -> None:
    """L1: nothing raises a pace that was found."""
    patch.setattr(rate_estimate.RateEstimate, "pace", lambda self, now: rate_estimate.BELOW * self.rate)


def proof_is_forgotten(patch: Patch) -> None:
    """One weak estimate undoes what was held for minutes."""
    real = rate_estimate.RateEstimate.learn

    def learn(self: Any, rate: float, measured_s: float, now: float, *, refusals: int) -> None:
        self.proven_rate = 0.0
        real(self, rate, measured_s, now, refusals=refusals)
        self.rate = rate

    patch.setattr(rate_estimate.RateEstimate, "learn", learn)
