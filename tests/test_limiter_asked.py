"""Pauses that random refusals ask for: only their rows keep them, and a pause of a real limit is everybody's."""

from statistics import median

from tests.limiter_worlds.spec import Spec
from tests.limiter_worlds.world import World

SEEDS = range(24)


def _seconds(seed: int) -> float:
    """How long 300 rows take at a server that refuses and fails as PyPI's llmock does when it is told to."""
    spec = Spec(
        seed=seed, rows=300, prompt_tokens=20, max_tokens=100, latency_s=0.1, latency_sigma=0.0,
        noise=0.1, busy=0.055, faults=0.06, chance_retry_after="1", refusal_s=0.1,
    )  # fmt: skip
    world = World(spec)
    assert world.run().ended == "done"
    return world.clock.now


def test_random_refusals_that_ask_for_a_second_do_not_hold_up_the_others() -> None:
    seconds = sorted(_seconds(seed) for seed in SEEDS)
    assert median(seconds) <= 15.0, seconds
    assert seconds[-1] <= 75.0, seconds
