"""The sample of the statistics is even, and the same every time."""

from batchllm.formats.scan import Reservoir


def drawn(count: int, size: int = 100, seed: int = 0) -> list[int]:
    reservoir: Reservoir[int] = Reservoir(size, seed)
    for index in range(count):
        if index == reservoir.wanted:
            reservoir.take(index)
    return sorted(reservoir.items())


def test_a_short_stream_is_kept_whole() -> None:
    assert drawn(0) == []
    assert drawn(99) == list(range(99))
    assert drawn(100) == list(range(100))


def test_a_seed_draws_the_same_rows() -> None:
    assert drawn(5000) == drawn(5000)
    assert drawn(5000) != drawn(5000, seed=1)


def test_every_part_of_the_stream_is_drawn_alike() -> None:
    hits = [0] * 10
    for seed in range(400):
        for index in drawn(1000, size=20, seed=seed):
            hits[index // 100] += 1
    assert sum(hits) == 8000
    assert all(680 < count < 920 for count in hits), hits
