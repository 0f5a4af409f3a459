"""Each bug of naive limiters is seeded once; the test that names it must fail, or it proves nothing."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from batchllm.limiter import breaker, charge, concurrency, dimension, dispatcher, gate, lane, limits, pace
from batchllm.limiter.queue import Queue
from batchllm.retry import Fate, RetryPolicy, Verdict, policy, reading
from tests import test_limiter_bugs as bugs

Patch = pytest.MonkeyPatch


def stale_timestamps(patch: Patch) -> None:
    """The time is noted from before the wait."""
    patch.setattr(pace.Pacer, "ready_at", lambda self: self._due - 60.0)


def herd(patch: Patch) -> None:
    """Whoever has waited goes, without looking again."""
    real = limits.Limits.paced_until

    def paced_until(self: Any, now: float, waiting: int | None) -> tuple[float, str]:
        at, name = real(self, now, waiting)
        return (now if at < now + 60.0 else at), name

    patch.setattr(limits.Limits, "paced_until", paced_until)


def full_bucket(patch: Patch) -> None:
    """A bucket of a minute that starts full, and fills while idle."""
    patch.setattr(dimension, "CATCH_UP_S", 60.0)


def code_compared_with_text(patch: Patch) -> None:
    """Only ``error.code == "429"`` is a refusal."""
    real = reading._of_error

    def of_error(status: int, parsed: Any, outcome: Any) -> Verdict:
        code = reading._problem(parsed)[0]
        return real(status if status != 429 or code == "429" else 500, parsed, outcome)

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

    def admit(self: Any, now: float, head: Any, dry: bool, too_large: Any) -> Any:
        if self.queue._again:
            return None, self.queue.pop()
        return real(self, now, head, dry, too_large)

    patch.setattr(lane.Lane, "_admit", admit)


def all_at_the_end_of_the_gate(patch: Patch) -> None:
    """What was held back during a pause is caught up with at once."""
    patch.setattr(pace.Pacer, "restart", lambda self, now: setattr(self, "_due", now - 30.0))
    patch.setattr(
        pace.Pacer, "take", lambda self, now, amount: setattr(self, "_due", self._due + amount / self.rate)
    )


def too_large_waits_for_ever(patch: Patch) -> None:
    patch.setattr(lane.Lane, "_never_fits", lambda self, amounts: None)


def pay_before(patch: Patch) -> None:
    """The line stands still behind the first row that does not fit."""
    real = Queue.ahead
    patch.setattr(Queue, "ahead", lambda self: iter([next(real(self))]))


def smallest_first(patch: Patch) -> None:
    """Whatever fits goes, however long the head has waited."""
    patch.setattr(lane, "PATIENCE_S", float("inf"))


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
    patch.setattr(pace.Pacer, "set_rate", lambda self, rate, now: setattr(self, "rate", rate))


def refund_of_what_is_kept(patch: Patch) -> None:
    real = charge.Charge.__init__

    def init(self: Any, kind: str) -> None:
        real(self, kind)
        self.settles = True

    patch.setattr(charge.Charge, "__init__", init)


def refusals_are_attempts(patch: Patch) -> None:
    real = RetryPolicy.delay_s

    def delay_s(self: Any, attempts: int, maybe: int, verdict: Verdict) -> float | None:
        if verdict.fate is Fate.REFUSED:
            verdict = Verdict(Fate.TRANSIENT, verdict.reason)
        return real(self, attempts, maybe, verdict)

    patch.setattr(policy.RetryPolicy, "delay_s", delay_s)


def quota_is_a_rate(patch: Patch) -> None:
    patch.setattr(reading, "_QUOTA", reading.re.compile(r"(?!)"))


def whole_seconds_only(patch: Patch) -> None:
    patch.setattr(bugs, "seconds", lambda text, date=None: float(int(text)) if text.isdigit() else None)


def stale_refusals_count(patch: Patch) -> None:
    real = gate.Gate.refused
    patch.setattr(
        gate.Gate,
        "refused",
        lambda self, now, sent_at, pause_s, probe: real(self, now, now, pause_s, probe=probe),
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
    patch.setattr(reading, "_of_odd_success", lambda outcome, parsed: reading._ANSWERED)


def flights_are_kept(patch: Patch) -> None:
    real = dispatcher.Limiter.released

    def released(self: Any, now: float, item: Any) -> None:
        kept = dict(self._flights)
        real(self, now, item)
        self._flights.update(kept)

    patch.setattr(dispatcher.Limiter, "released", released)


def no_breaker(patch: Patch) -> None:
    patch.setattr(breaker.Breaker, "failed", lambda self, *a, **k: False)


SEEDED: list[tuple[Callable[[Patch], None], Callable[[], None]]] = [
    (stale_timestamps, bugs.test_01_no_timestamp_is_older_than_its_request),
    (herd, bugs.test_02_no_herd_goes_at_the_edge_of_a_window),
    (full_bucket, bugs.test_03_no_burst_at_the_start_nor_after_an_idle_time),
    (code_compared_with_text, bugs.test_04_a_refusal_is_read_by_status_and_by_code),
    (slot_held_in_backoff, bugs.test_06_backing_off_holds_no_slot),
    (everybody_finds_out, bugs.test_07_one_event_costs_no_more_refusals_than_are_in_flight),
    (retry_outside_the_pace, bugs.test_08_a_retry_takes_the_pace_again),
    (all_at_the_end_of_the_gate, bugs.test_09_after_a_pause_requests_go_at_the_pace),
    (too_large_waits_for_ever, bugs.test_10_what_can_never_fit_is_given_back_and_what_is_merely_large_goes),
    (pay_before, bugs.test_11_one_large_row_does_not_stop_all_others),
    (smallest_first, bugs.test_12_no_large_row_starves_behind_small_ones),
    (wall_clock, bugs.test_13_a_jump_of_the_wall_clock_changes_nothing),
    (no_catching_up, bugs.test_14_early_and_late_timers_lose_nothing_and_never_spin),
    (leaked_probe, bugs.test_15_what_is_cancelled_leaves_nothing_behind),
    (debt_as_time, bugs.test_16_a_new_rate_carries_the_debt_as_an_amount),
    (refund_of_what_is_kept, bugs.test_17_nothing_is_given_back_that_the_endpoint_keeps),
    (refusals_are_attempts, bugs.test_18_refusals_never_use_up_a_row_s_attempts),
    (quota_is_a_rate, bugs.test_19_a_spent_quota_is_never_tried_again),
    (whole_seconds_only, bugs.test_20_a_pause_is_read_in_all_its_forms),
    (stale_refusals_count, bugs.test_21_fifty_late_refusals_are_one_event_and_one_cut),
    (grows_while_idle, bugs.test_22_a_starved_input_changes_neither_pace_nor_concurrency),
    (latency_is_the_judge, bugs.test_23_longer_answers_do_not_shrink_concurrency),
    (any_200_is_an_answer, bugs.test_24_a_web_page_or_an_error_with_200_is_no_answer),
    (flights_are_kept, bugs.test_25_the_limiter_keeps_nothing_of_what_is_done),
    (full_bucket, bugs.test_27_a_restart_costs_at_most_one_event),
    (no_breaker, bugs.test_28_an_outage_takes_no_row_with_it),
]


@pytest.mark.parametrize(("seed", "test"), SEEDED, ids=[f"{t.__name__[:7]}-{m.__name__}" for m, t in SEEDED])
def test_a_seeded_bug_is_caught_by_the_test_that_names_it(
    seed: Callable[[Patch], None], test: Callable[[], None], monkeypatch: Patch
) -> None:
    seed(monkeypatch)
    with pytest.raises((AssertionError, IndexError, StopIteration, ValueError, TypeError, KeyError)):
        test()
