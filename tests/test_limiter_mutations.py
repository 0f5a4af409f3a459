"""Each bug of naive limiters, and each cause of a standstill, is seeded once.

The test that names it must fail, or it proves nothing.
"""

import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from batchllm.counters import SendRate
from batchllm.limiter import (
    breaker,
    charge,
    concurrency,
    dimension,
    dispatcher,
    gate,
    header_pacer,
    headers,
    lane,
    limits,
    pace,
    rate_estimate,
    refusals,
)
from batchllm.limiter.queue import Queue
from batchllm.retry import Disposition, RetryPolicy, Verdict, policy, reading, seconds
from tests import test_limiter_bugs as bugs
from tests import test_limiter_dispatcher as dispatched
from tests import test_limiter_gate as gates
from tests import test_limiter_header_pacer as header_pacers
from tests import test_limiter_headers as shown
from tests import test_limiter_pace as paced
from tests import test_limiter_rate_estimate as estimates
from tests import test_limiter_refusals as meant
from tests import test_runner_online as online
from tests.limiter_worlds.spec import DAY_S, Limit, Spec
from tests.limiter_worlds.world import Outcome, run

pytestmark = pytest.mark.proof

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
            return None, self.queue.pop()
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
    patch.setattr(reading, "_QUOTA", re.compile(r"(?!)"))


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
    patch.setattr(reading, "_of_odd_success", lambda outcome, parsed: reading._ANSWERED)


def flights_are_kept(patch: Patch) -> None:
    real = dispatcher.Limiter.released

    def released(self: Any, now: float, item: Any) -> None:
        kept = dict(self._in_flight)
        real(self, now, item)
        self._in_flight.update(kept)

    patch.setattr(dispatcher.Limiter, "released", released)


def no_breaker(patch: Patch) -> None:
    patch.setattr(breaker.Breaker, "failed", lambda self, *a, **k: False)


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
    patch.setattr(refusals.Refusals, "judge_unexplained", lambda self, now, **more: refusals.Conclusion.WAIT)


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


FIRST_REFUSED = Spec(name="L1", rows=12, odd_first=1, odd_retry_after="1")
AT_RANDOM = Spec(name="L2", rows=300, noise=0.1)
SPENT = Spec(name="L3", rows=200, limits=(Limit("fixed", 600.0, used=1.0, phase=0.5),))
FITS = Spec(name="L4", rows=300, concurrency=32, headers="openai", limits=(Limit("bucket", 600.0, used=0.4),))
DAILY = Spec(
    name="L6", rows=30, headers="epoch_ms",
    limits=(Limit("fixed", 1000.0, window_s=DAY_S, used=1.0, phase=1.0 - 18_000.0 / DAY_S),),
)  # fmt: skip
NO_RESET = Spec(name="no reset", rows=1500, headers="litellm", limits=(Limit("bucket", 600.0),))


def passed(spec: Spec) -> Outcome:
    """How a world went that finishes within its bounds."""
    outcome = run(spec)
    assert not outcome.fails, outcome
    return outcome


def a_first_refusal_costs_its_pause() -> None:
    assert passed(FIRST_REFUSED).last_s < 5.0


def refusals_at_random_cost_about_a_pause_each() -> None:
    outcome = run(AT_RANDOM)
    assert not outcome.unfinished
    assert outcome.excess_s <= 1.0
    assert outcome.last_s < 60.0


def a_spent_window_is_gone_on_with_when_it_turns() -> None:
    assert passed(SPENT).last_s < 45.0


def what_fits_goes_at_once() -> None:
    assert passed(FITS).last_s < 10.0


def a_quota_that_is_spent_ends_the_job_and_is_not_asked_for() -> None:
    outcome = passed(DAILY)
    assert outcome.ended == "quota"
    assert outcome.refused <= 2


def headers_without_a_reset_are_obeyed() -> None:
    assert passed(NO_RESET).refused <= 2


WORLDS = [
    a_first_refusal_costs_its_pause,
    refusals_at_random_cost_about_a_pause_each,
    a_spent_window_is_gone_on_with_when_it_turns,
    what_fits_goes_at_once,
    a_quota_that_is_spent_ends_the_job_and_is_not_asked_for,
    headers_without_a_reset_are_obeyed,
]

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
    (estimate_of_one, a_spent_window_is_gone_on_with_when_it_turns),
    (estimate_of_one, partial(estimates.test_fewer_than_three_that_were_let_in_make_no_estimate, 1)),
    (
        estimate_goes_on_at_once,
        partial(estimates.test_an_estimate_goes_to_the_next_run_when_it_rests_on_a_minute, 59.0, False),
    ),
    (
        estimate_goes_on_at_once,
        dispatched.test_an_estimate_of_less_than_a_minute_does_not_go_to_the_next_run,
    ),
    (
        debt_is_a_sum,
        paced.test_a_debt_is_the_last_request_at_the_present_rate_however_much_left_before,
    ),
    (burst_is_owed, paced.test_what_no_rate_held_back_moves_the_due_time_by_one_request_at_most),
    (due_time_of_an_old_pace, paced.test_a_rate_that_rises_is_felt_at_once),
    (due_time_of_an_old_pace, what_fits_goes_at_once),
    (
        sleeps_until_the_due_time,
        partial(
            dispatched.test_while_a_row_waits_for_a_pace_somebody_looks_twice_a_second,
            {"requests_per_minute": 1.0},
        ),
    ),
    (spent_window_is_a_rate, a_spent_window_is_gone_on_with_when_it_turns),
    (spent_window_is_a_rate, a_first_refusal_costs_its_pause),
    (every_refusal_is_a_limit, refusals_at_random_cost_about_a_pause_each),
    (every_refusal_is_a_limit, meant.test_one_refusal_among_many_that_were_let_in_means_nothing),
    (no_reset_no_limit, headers_without_a_reset_are_obeyed),
    (no_milliseconds, a_quota_that_is_spent_ends_the_job_and_is_not_asked_for),
    (no_milliseconds, shown.test_a_reset_in_milliseconds_since_1970_is_read),
    (pace_of_the_last_instant, online.test_the_pace_of_a_run_is_that_from_its_first_request_to_its_last),
    (
        stretched_over_a_minute,
        dispatched.test_a_job_that_fits_into_what_remains_is_not_stretched_over_a_minute,
    ),
    (stretched_over_a_minute, what_fits_goes_at_once),
    (levels_are_taken_as_they_are, header_pacers.test_what_has_left_since_the_newest_answer_is_taken_off),
    (
        lies_are_believed,
        header_pacers.test_a_level_that_stays_at_nothing_while_requests_are_let_in_is_no_level,
    ),
    (short_pauses_for_ever, gates.test_a_pause_whose_probe_is_refused_grows_even_where_less_is_asked_for),
    (gaps_double, gates.test_a_minute_of_refusals_costs_between_ten_and_25_probes),
    (no_cap, meant.test_refusals_whenever_as_many_are_in_flight_are_a_cap),
    (noise_for_ever, meant.test_where_everything_is_refused_noise_is_forgotten_soon),
    (estimate_for_ever, estimates.test_after_its_span_the_pace_doubles_every_span),
    (
        proof_is_forgotten,
        estimates.test_one_estimate_below_what_was_proven_is_not_believed_and_a_second_one_is,
    ),
]


def _name(test: Any) -> str:
    return str(getattr(test, "func", test).__name__)


@pytest.mark.parametrize(("seed", "test"), SEEDED, ids=[f"{_name(t)[:30]}-{m.__name__}" for m, t in SEEDED])
def test_a_seeded_bug_is_caught_by_the_test_that_names_it(
    seed: Callable[[Patch], None], test: Callable[[], None], monkeypatch: Patch
) -> None:
    seed(monkeypatch)
    with pytest.raises(AssertionError):
        test()


@pytest.mark.parametrize("world", WORLDS)
def test_a_world_of_a_seeded_bug_passes_without_it(world: Callable[[], None]) -> None:
    world()
