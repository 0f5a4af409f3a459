"""The bugs of naive limiters, each as a function that seeds it."""

import re
import time
from typing import Any

import pytest

from batchllm.limiter import (
    breaker,
    charge,
    concurrency,
    dimension,
    dispatcher,
    gate,
    lane,
    limits,
    pace,
)
from batchllm.limiter.queue import Queue
from batchllm.retry import Disposition, RetryPolicy, Verdict, policy, reading
from tests import test_limiter_bugs as bugs

Patch = pytest.MonkeyPatch


def stale_timestamps(patch: Patch) -> None:
    """The time is noted from before the wait."""
    patch.setattr(pace.Pacer, "ready_at", lambda self, rate: self._last - 60.0)


def herd(patch: Patch) -> None:
    """Whoever has waited goes, without looking again."""
    real = limits.LaneLimits.paced_until

    def paced_until(self: Any, now: float) -> tuple[float, str]:
        at, name = real(self, now)
        return (now if at < now + 60.0 else at), name

    patch.setattr(limits.LaneLimits, "paced_until", paced_until)


def full_bucket(patch: Patch) -> None:
    """A bucket of a minute that starts full, and fills while idle."""
    patch.setattr(dimension, "CATCH_UP_S", 60.0)


def code_compared_with_text(patch: Patch) -> None:
    """Only ``error.code == "429"`` is a refusal."""
    real = reading._of_error

    def of_error(status: int, error: Any, outcome: Any) -> Verdict:
        return real(status if status != 429 or error.code == "429" else 500, error, outcome)

    patch.setattr(reading, "_of_error", of_error)


def slot_held_in_backoff(patch: Patch) -> None:
    """A failed row keeps its slot while it backs off, and the row behind it waits."""
    patch.setattr(Queue, "head", lambda self: None if self._later else _head(self))


def _head(queue: Any) -> Any:
    return queue._again[0] if queue._again else queue._fresh[0] if queue._fresh else None


def everybody_finds_out(patch: Patch) -> None:
    """No gate: every worker meets the refusal itself."""
    patch.setattr(gate.Gate, "closed", property(lambda self: False))


def retry_outside_the_pace(patch: Patch) -> None:
    """What goes again takes nothing of the pace."""
    real = lane.Lane._admit

    def admit(self: Any, now: float, head: Any, too_large: Any) -> Any:
        if self.queue._again:
            tried = self.queue._again[0]
            self.queue.remove(tried)
            return None, tried
        return real(self, now, head, too_large)

    patch.setattr(lane.Lane, "_admit", admit)


def all_at_the_end_of_the_gate(patch: Patch) -> None:
    """What was held back during a pause is caught up with at once."""
    patch.setattr(pace.Pacer, "restart", lambda self, now: setattr(self, "_last", now - 30.0))

    def take(self: Any, now: float, amount: float, rate: float) -> None:
        self._last += self._amount / rate
        self._amount = amount

    patch.setattr(pace.Pacer, "take", take)


def too_large_waits_for_ever(patch: Patch) -> None:
    patch.setattr(limits.LaneLimits, "never_fits", lambda self, amounts: None)


def pay_before(patch: Patch) -> None:
    """The line stands still behind the first row that does not fit."""
    real = Queue.look_ahead
    patch.setattr(Queue, "look_ahead", lambda self: iter([next(real(self))]))


def smallest_first(patch: Patch) -> None:
    """Whatever fits goes, however long the head has waited."""
    patch.setattr(lane, "MAX_OVERTAKEN_S", float("inf"))


def wall_clock(patch: Patch) -> None:
    real = dispatcher.Limiter.poll
    zero = time.monotonic()
    patch.setattr(dispatcher.Limiter, "poll", lambda self, now: real(self, now + time.time() % 7 + zero * 0))


def no_catching_up(patch: Patch) -> None:
    """Every late timer loses what it was late."""
    patch.setattr(dimension, "CATCH_UP_S", 0.0)


def leaked_probe(patch: Patch) -> None:
    """A cancelled probe is waited for."""
    patch.setattr(gate.Gate, "probe_gone", lambda self: None)
    patch.setattr(gate.Gate, "quiet_at", lambda self: None if self._probe_sent is None else float("inf"))


def debt_as_time(patch: Patch) -> None:
    """What is owed is an instant, whatever becomes of the rate."""
    real = pace.Pacer.take

    def take(self: Any, now: float, amount: float, rate: float) -> None:
        real(self, now, amount, rate)
        self._last, self._amount = self._last + amount / rate, 0.0

    patch.setattr(pace.Pacer, "take", take)


def refund_of_what_is_kept(patch: Patch) -> None:
    real = charge.Charge.__init__

    def init(self: Any, kind: str) -> None:
        real(self, kind)
        self.settles = True

    patch.setattr(charge.Charge, "__init__", init)


def refusals_are_attempts(patch: Patch) -> None:
    real = RetryPolicy.delay_s

    def delay_s(self: Any, attempts: int, maybe: int, verdict: Verdict) -> float | None:
        if verdict.disposition is Disposition.REFUSED:
            verdict = Verdict(Disposition.TRANSIENT, verdict.reason)
        return real(self, attempts, maybe, verdict)

    patch.setattr(policy.RetryPolicy, "delay_s", delay_s)


def quota_is_a_rate(patch: Patch) -> None:
    patch.setattr(reading, "QUOTA", re.compile(r"(?!)"))


def whole_seconds_only(patch: Patch) -> None:
    patch.setattr(bugs, "seconds", lambda text, date=None: float(int(text)) if text.isdigit() else None)


def stale_refusals_count(patch: Patch) -> None:
    real = gate.Gate.refused
    patch.setattr(
        gate.Gate,
        "refused",
        lambda self, now, sent_at, pause_s, **more: real(self, now, now, pause_s, **more),
    )


def grows_while_idle(patch: Patch) -> None:
    real = concurrency.Concurrency._climb

    def climb(self: Any, now: float, goodput: float) -> None:
        self._full = True
        real(self, now, goodput)

    patch.setattr(concurrency.Concurrency, "_climb", climb)


def latency_is_the_judge(patch: Patch) -> None:
    def climb(self: Any, now: float, goodput: float) -> None:
        if self.latency_s is not None and self.latency_s > 1.5 * getattr(self, "fastest", self.latency_s):
            self._set(max(1, self.cap // 2), now, "slower")
        self.fastest = min(getattr(self, "fastest", 1e9), self.latency_s or 1e9)

    patch.setattr(concurrency.Concurrency, "_climb", climb)


def any_200_is_an_answer(patch: Patch) -> None:
    patch.setattr(reading, "_of_success", lambda outcome: reading._ANSWERED)


def flights_are_kept(patch: Patch) -> None:
    real = dispatcher.Limiter.released

    def released(self: Any, now: float, item: Any) -> None:
        kept = dict(self._in_flight)
        real(self, now, item)
        self._in_flight.update(kept)

    patch.setattr(dispatcher.Limiter, "released", released)


def no_breaker(patch: Patch) -> None:
    patch.setattr(breaker.Breaker, "failed", lambda self, *a, **k: False)
