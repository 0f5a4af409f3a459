"""The gate: one pause for everybody, one probe, and gaps between probes that cost a tenth of a block."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.limiter.gate import FIRST_GAP_S, LATER, LATER_S, LONGEST_GAP_S, Gate


def refuse(
    gate: Gate,
    now: float,
    *,
    sent_at: float | None = None,
    pause_s: float | None = None,
    probe: bool = False,
    limit_known: bool = False,
) -> bool:
    """A refusal of what left a tenth of a second ago, unless said otherwise."""
    left = now - 0.1 if sent_at is None else sent_at
    return gate.refused(now, left, pause_s, probe=probe, limit_known=limit_known)


def probes_of_a_block(
    latency_s: float, block_s: float, pause_s: float | None, *, limit_known: bool
) -> list[float]:
    """When probes leave while everything is refused; the last one leaves after the block."""
    gate, probes = Gate(), []
    refuse(gate, 0.0, pause_s=pause_s, limit_known=limit_known)
    while gate.until < block_s:
        now = gate.until
        probes.append(now)
        gate.probing(now)
        refuse(gate, now + latency_s, sent_at=now, pause_s=pause_s, probe=True, limit_known=limit_known)
    return [*probes, gate.until]


def test_a_burst_of_refusals_is_one_pause() -> None:
    gate = Gate()
    opened = [refuse(gate, 1.0 + 0.001 * i, sent_at=0.9) for i in range(50)]
    assert opened == [True] + [False] * 49
    assert (gate.closed_at, gate.refusals) == (1.0, 50)
    assert gate.until == pytest.approx(1.0 + FIRST_GAP_S)


def test_a_refusal_of_what_left_before_the_gate_opened_is_stale() -> None:
    gate = Gate()
    refuse(gate, 1.0)
    gate.open(2.0)
    assert not refuse(gate, 2.1, sent_at=1.9)
    assert not gate.closed
    assert refuse(gate, 2.2, sent_at=2.05)
    assert gate.closed


@given(st.floats(0.02, 3600.0))
def test_a_pause_that_is_asked_for_is_kept_to_the_instant(pause_s: float) -> None:
    gate = Gate()
    refuse(gate, 5.0, pause_s=pause_s)
    assert gate.until == 5.0 + pause_s


@given(st.lists(st.floats(0.0, 600.0), min_size=1, max_size=20))
def test_of_several_pauses_that_are_asked_for_the_longest_is_kept(pauses: list[float]) -> None:
    gate = Gate()
    for pause_s in pauses:
        refuse(gate, 1.0, sent_at=0.5, pause_s=pause_s)
    assert gate.until == pytest.approx(1.0 + max(0.02, *pauses))


def test_a_pause_whose_probe_is_refused_grows_even_where_less_is_asked_for() -> None:
    at = probes_of_a_block(0.05, 20.0, 0.02, limit_known=False)
    gaps = [b - a for a, b in pairwise(at)]
    assert gaps == sorted(gaps)
    assert gaps[-1] > 1.0


@given(st.floats(0.001, 0.5), st.floats(1.0, 3000.0), st.booleans())
def test_what_a_block_costs_beyond_its_end_is_a_tenth_of_it_and_a_little_more(
    latency_s: float, block_s: float, limit_known: bool
) -> None:
    at = probes_of_a_block(latency_s, block_s, None, limit_known=limit_known)
    most_s = max(LONGEST_GAP_S[limit_known], LATER_S[limit_known] + LATER * (block_s + latency_s))
    assert at[-1] - block_s <= most_s + latency_s + 1e-6


def test_a_minute_of_refusals_costs_between_ten_and_25_probes() -> None:
    assert 10 <= len(probes_of_a_block(0.1, 60.0, None, limit_known=False)) - 1 <= 25


def test_a_probe_that_is_not_refused_within_three_latencies_counts_as_let_in() -> None:
    gate = Gate()
    for _ in range(100):
        gate.observe_latency(0.5)
    refuse(gate, 1.0)
    assert gate.quiet_at() is None
    gate.probing(2.0)
    assert gate.quiet_at() == pytest.approx(3.5, abs=0.01)


def test_a_probe_that_is_gone_makes_room_for_another_one() -> None:
    gate = Gate()
    refuse(gate, 1.0)
    gate.probing(2.0)
    gate.probe_gone()
    assert gate.closed
    assert gate.quiet_at() is None


def test_a_pause_begins_with_the_shortest_gap_again() -> None:
    gate = Gate()
    refuse(gate, 0.0)
    for _ in range(10):
        gate.probing(gate.until)
        refuse(gate, gate.until + 0.1, probe=True)
    gate.open(gate.until)
    now = gate.opened_at + 5.0
    refuse(gate, now)
    assert gate.until - now == FIRST_GAP_S
    assert gate.refusals == 1
