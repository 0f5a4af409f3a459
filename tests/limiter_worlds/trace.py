"""One world, told second by second."""

from .spec import Spec
from .world import Maker, World, product


def traced(spec: Spec, make: Maker = product, most_lines: int = 200) -> str:
    """Runs a world and says what went in each second in which something happened, and how it ended."""
    world = World(spec, make)
    outcome = world.run()
    counts = world.endpoint.counts
    seconds: dict[int, list[int]] = {}
    for at, _ in counts.let_in:
        seconds.setdefault(int(at), [0, 0])[0] += 1
    for at in counts.limited:
        seconds.setdefault(int(at), [0, 0])[1] += 1
    lines = [
        f"{second:6d} s  let in {both[0]:4d}  refused {both[1]:4d}"
        for second, both in sorted(seconds.items())
    ]
    if len(lines) > most_lines:
        lines = [*lines[: most_lines // 2], "   …", *lines[-most_lines // 2 :]]
    chance = f"refused by chance {counts.by_chance}, faults {counts.faults}, sends {outcome.sends}"
    return "\n".join([*lines, chance, str(outcome), str(spec)])
