"""Every disk that a power cut may leave is recovered by a clean run, and held against the invariants."""

import random
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.durability.checker import check_crash
from tests.durability.injection import CONCURRENCY, RunCounters, finish
from tests.durability.powercut import STRACE, Disk, Operation, read_trace
from tests.durability.scenario import Scenario
from tests.durability.workers import WORKERS, Driver

Image = dict[str, bytes]


def record(
    scenario: Scenario, *, status: int = 0, inject: Sequence[str] = (), **order: object
) -> list[Operation]:
    """The file operations of one run of a job.

    Args:
        scenario: The job.
        status: What the run has to end with.
        inject: Options of strace for a fault during the run.
        order: The driver's order.
    """
    trace = scenario.folder.parent / f"{scenario.folder.name}.trace"
    with Driver([*STRACE, *inject, "-o", str(trace)]) as driver:
        run = driver.run(scenario.folder, **order)
        assert run.status == status, run
    return read_trace(trace, scenario.folder)


def disk_before(folder: Path) -> Disk:
    """A disk that holds what is in a folder now."""
    disk = Disk()
    for path in sorted(folder.iterdir()):
        disk.put(path.name, path.read_bytes())
    return disk


def images_of(disk: Disk, operations: Sequence[Operation], *, torn: int) -> Iterator[tuple[str, Image]]:
    """After every operation: nothing of the unsynced, everything, and ``torn`` random disks; equal ones once."""
    seen: set[int] = set()
    for number, operation in enumerate(operations):
        disk.apply(operation)
        where = f"after operation {number} ({operation.kind} {operation.path})"
        candidates = [
            ("nothing unsynced", disk.image(None)),
            ("everything", disk.image(None, everything=True)),
        ]
        for draw in range(torn):
            choice = random.Random(number * 1000 + draw)
            candidates.append((f"torn {draw}", disk.image(choice)))
        for kind, image in candidates:
            digest = hash(tuple(sorted(image.items())))
            if digest not in seen:
                seen.add(digest)
                yield f"{where}, {kind}", image


def recover_all(images: Sequence[tuple[str, Image]], folder: Path) -> RunCounters:
    """Recovers every image; two workers share them."""
    total = RunCounters()
    with ThreadPoolExecutor(WORKERS) as pool:
        shares = [images[number::WORKERS] for number in range(WORKERS)]
        for counters in pool.map(_share, shares, [folder] * WORKERS):
            total.add(counters)
    return total


def _share(images: Sequence[tuple[str, Image]], folder: Path) -> RunCounters:
    counters = RunCounters()
    with Driver() as clean:
        for number, (where, image) in enumerate(images):
            with tempfile.TemporaryDirectory(dir=folder) as name:
                scenario = Scenario(Path(name))
                for file, content in image.items():
                    (scenario.folder / file).write_bytes(content)
                found = check_crash(scenario, concurrency=CONCURRENCY)
                most_maybe = 2 * CONCURRENCY + 4
                found += finish(scenario, clean, most_maybe=most_maybe, rerun=number % 8 == 0)
                counters.fired += 1
                counters.violations += [f"{where}: {violation}" for violation in found]
    return counters
