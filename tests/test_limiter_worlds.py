"""The limiter in random worlds: it finishes, it never stands still, it is fast, and it is seldom refused.

The proof runs 2,000 worlds. ``python -m tests.limiter_worlds`` runs others, and one world by its line.
"""

import pytest

from tests.limiter_worlds.classes import CLASSES, ORDER, spec_of
from tests.limiter_worlds.figures import FIGURES, OVERALL, SHORT, misses, overall, table
from tests.limiter_worlds.session import run_all
from tests.limiter_worlds.shrink import shrunk
from tests.limiter_worlds.world import Outcome

FEW, FEW_FROM = 60, 7
PROOF, PROOF_FROM = 2000, 10_000


def worst_of(outcomes: list[Outcome]) -> str:
    """The table, and the worst world as a line that can be run again."""
    failing = [outcome for outcome in outcomes if outcome.fails]
    worst = max(failing, key=lambda o: (o.unfinished, o.excess_s, o.slow_s), default=None)
    said = f"\n{worst}\n{shrunk(worst.spec, most_runs=60)}" if worst else ""
    return table(outcomes) + said


def test_every_class_has_its_share_of_the_worlds() -> None:
    drawn = [spec_of(seed).name for seed in range(len(ORDER))]
    assert set(drawn) == set(CLASSES)
    assert all(drawn.count(name) == times for name, (_, times) in CLASSES.items())
    assert set(FIGURES) <= set(CLASSES)


def test_in_few_worlds_the_limiter_finishes_and_does_not_stand_still() -> None:
    outcomes = run_all([spec_of(seed) for seed in range(FEW_FROM, FEW_FROM + FEW)])
    counted = overall(outcomes)
    assert counted["never finishes"] == 0, worst_of(outcomes)
    assert counted["over by 1 s"] <= FEW * OVERALL["over by 1 s"] + 1, worst_of(outcomes)
    assert counted["over by 10 s"] <= 1, worst_of(outcomes)


@pytest.fixture(scope="module")
def proof() -> list[Outcome]:
    """The outcomes of the worlds of the proof."""
    return run_all([spec_of(seed) for seed in range(PROOF_FROM, PROOF_FROM + PROOF)])


@pytest.mark.proof
@pytest.mark.timeout(900)
@pytest.mark.parametrize("what", OVERALL)
def test_over_all_worlds_the_share_that_fails_is_small(proof: list[Outcome], what: str) -> None:
    assert overall(proof)[what] <= OVERALL[what] * PROOF, worst_of(proof)


@pytest.mark.proof
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", FIGURES)
def test_a_class_reaches_its_figures_or_falls_no_shorter_than_is_known(
    proof: list[Outcome], name: str
) -> None:
    assert [missed for missed in misses(proof, short=SHORT) if missed.startswith(f"{name}:")] == []
