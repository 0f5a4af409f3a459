"""Each bug of naive limiters, and each cause of a standstill, is seeded once.

The test that names it must fail, or it proves nothing.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests import limiter_naive_bugs as naive
from tests import limiter_standstills as standstills
from tests import test_limiter_bugs as bugs
from tests import test_limiter_dispatcher as dispatched
from tests import test_limiter_gate as gates
from tests import test_limiter_header_pacer as header_pacers
from tests import test_limiter_headers as shown
from tests import test_limiter_pace as paced
from tests import test_limiter_rate_estimate as estimates
from tests import test_limiter_refusals as meant
from tests import test_runner_online as online
from tests.limiter_naive_bugs import Patch
from tests.limiter_worlds.spec import DAY_S, Limit, Spec
from tests.limiter_worlds.world import Outcome, run

pytestmark = pytest.mark.proof

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
    (naive.stale_timestamps, bugs.test_01_no_timestamp_is_older_than_its_request),
    (naive.herd, bugs.test_02_no_herd_goes_at_the_edge_of_a_window),
    (naive.full_bucket, bugs.test_03_no_burst_at_the_start_nor_after_an_idle_time),
    (naive.code_compared_with_text, bugs.test_04_a_refusal_is_read_by_status_and_by_code),
    (naive.slot_held_in_backoff, bugs.test_06_backing_off_holds_no_slot),
    (naive.everybody_finds_out, bugs.test_07_one_event_costs_no_more_refusals_than_are_in_flight),
    (naive.retry_outside_the_pace, bugs.test_08_a_retry_takes_the_pace_again),
    (naive.all_at_the_end_of_the_gate, bugs.test_09_after_a_pause_requests_go_at_the_pace),
    (
        naive.too_large_waits_for_ever,
        bugs.test_10_what_can_never_fit_is_given_back_and_what_is_merely_large_goes,
    ),
    (naive.pay_before, bugs.test_11_one_large_row_does_not_stop_all_others),
    (naive.smallest_first, bugs.test_12_no_large_row_starves_behind_small_ones),
    (naive.wall_clock, bugs.test_13_a_jump_of_the_wall_clock_changes_nothing),
    (naive.no_catching_up, bugs.test_14_early_and_late_timers_lose_nothing_and_never_spin),
    (naive.leaked_probe, bugs.test_15_what_is_cancelled_leaves_nothing_behind),
    (naive.debt_as_time, bugs.test_16_a_new_rate_carries_the_debt_as_an_amount),
    (naive.refund_of_what_is_kept, bugs.test_17_nothing_is_given_back_that_the_endpoint_keeps),
    (naive.refusals_are_attempts, bugs.test_18_refusals_never_use_up_a_row_s_attempts),
    (naive.quota_is_a_rate, bugs.test_19_a_spent_quota_is_never_tried_again),
    (naive.whole_seconds_only, bugs.test_20_a_pause_is_read_in_all_its_forms),
    (naive.stale_refusals_count, bugs.test_21_fifty_late_refusals_are_one_event_and_one_cut),
    (naive.grows_while_idle, bugs.test_22_a_starved_input_changes_neither_pace_nor_concurrency),
    (naive.latency_is_the_judge, bugs.test_23_longer_answers_do_not_shrink_concurrency),
    (naive.any_200_is_an_answer, bugs.test_24_a_web_page_or_an_error_with_200_is_no_answer),
    (naive.flights_are_kept, bugs.test_25_the_limiter_keeps_nothing_of_what_is_done),
    (naive.full_bucket, bugs.test_27_a_restart_costs_at_most_one_event),
    (naive.no_breaker, bugs.test_28_an_outage_takes_no_row_with_it),
    (standstills.estimate_of_one, a_spent_window_is_gone_on_with_when_it_turns),
    (
        standstills.estimate_of_one,
        partial(estimates.test_fewer_than_three_that_were_let_in_make_no_estimate, 1),
    ),
    (
        standstills.estimate_goes_on_at_once,
        partial(estimates.test_an_estimate_goes_to_the_next_run_when_it_rests_on_a_minute, 59.0, False),
    ),
    (
        standstills.estimate_goes_on_at_once,
        dispatched.test_an_estimate_of_less_than_a_minute_does_not_go_to_the_next_run,
    ),
    (
        standstills.debt_is_a_sum,
        paced.test_a_debt_is_the_last_request_at_the_present_rate_however_much_left_before,
    ),
    (standstills.burst_is_owed, paced.test_what_no_rate_held_back_moves_the_due_time_by_one_request_at_most),
    (standstills.due_time_of_an_old_pace, paced.test_a_rate_that_rises_is_felt_at_once),
    (standstills.due_time_of_an_old_pace, what_fits_goes_at_once),
    (
        standstills.sleeps_until_the_due_time,
        partial(
            dispatched.test_while_a_row_waits_for_a_pace_somebody_looks_twice_a_second,
            {"requests_per_minute": 1.0},
        ),
    ),
    (standstills.spent_window_is_a_rate, a_spent_window_is_gone_on_with_when_it_turns),
    (standstills.spent_window_is_a_rate, a_first_refusal_costs_its_pause),
    (standstills.every_refusal_is_a_limit, refusals_at_random_cost_about_a_pause_each),
    (standstills.every_refusal_is_a_limit, meant.test_one_refusal_among_many_that_were_let_in_means_nothing),
    (standstills.no_reset_no_limit, headers_without_a_reset_are_obeyed),
    (standstills.no_milliseconds, a_quota_that_is_spent_ends_the_job_and_is_not_asked_for),
    (standstills.no_milliseconds, shown.test_a_reset_in_milliseconds_since_1970_is_read),
    (
        standstills.pace_of_the_last_instant,
        online.test_the_pace_of_a_run_is_that_from_its_first_request_to_its_last,
    ),
    (
        standstills.stretched_over_a_minute,
        dispatched.test_a_job_that_fits_into_what_remains_is_not_stretched_over_a_minute,
    ),
    (standstills.stretched_over_a_minute, what_fits_goes_at_once),
    (
        standstills.levels_are_taken_as_they_are,
        header_pacers.test_what_has_left_since_the_newest_answer_is_taken_off,
    ),
    (
        standstills.lies_are_believed,
        header_pacers.test_a_level_that_stays_at_nothing_while_requests_are_let_in_is_no_level,
    ),
    (
        standstills.short_pauses_for_ever,
        gates.test_a_pause_whose_probe_is_refused_grows_even_where_less_is_asked_for,
    ),
    (standstills.gaps_double, gates.test_a_minute_of_refusals_costs_between_ten_and_25_probes),
    (standstills.no_cap, meant.test_refusals_whenever_as_many_are_in_flight_are_a_cap),
    (standstills.noise_for_ever, meant.test_where_everything_is_refused_noise_is_forgotten_soon),
    (standstills.estimate_for_ever, estimates.test_after_its_span_the_pace_doubles_every_span),
    (
        standstills.proof_is_forgotten,
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
