"""Faults at chosen system calls: which points there are, and what must hold after each."""

import random
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.durability.checker import check_crash, check_finished, check_rerun
from tests.durability.scenario import Scenario
from tests.durability.workers import WORKERS, Driver, Run

CALLS = ("pwrite64", "write", "fdatasync", "fsync", "rename", "ftruncate", "unlink")
FIRES_AT = 500
"""The number of the call at which strace fires: more than any thread makes of one kind."""

CONCURRENCY = 6
KILL, ENOSPC, ENOSPC_ON, EIO, EIO_ON = "kill", "ENOSPC", "ENOSPC+", "EIO", "EIO+"


@dataclass(frozen=True)
class Point:
    """The k-th call of one kind in one thread."""

    fault: str
    lane: str
    call: str
    k: int

    def aim(self) -> tuple[str, str, int]:
        return self.call, self.lane, FIRES_AT - self.k

    def __str__(self) -> str:
        return f"{self.fault} at {self.call} {self.k} of the thread {self.lane}"


@dataclass
class RunCounters:
    """What a sweep found."""

    fired: int = 0
    missed: int = 0
    twice: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def add(self, other: "RunCounters") -> None:
        self.fired += other.fired
        self.missed += other.missed
        self.twice += other.twice
        self.statuses += other.statuses
        self.violations += other.violations

    def report(self) -> str:
        """A line for people, and the first violations."""
        head = f"{self.fired} points fired ({self.twice} with a second kill), {self.missed} missed, "
        return "\n".join([f"{head}{len(self.violations)} violations", *self.violations[:12]])


def strace_options(fault: str) -> list[str]:
    """What makes strace strike at call number ``FIRES_AT`` of each kind, once or from there on."""
    how = "signal=SIGKILL" if fault == KILL else f"error={fault.removesuffix('+')}"
    when = f"{FIRES_AT}+" if fault.endswith("+") else str(FIRES_AT)
    options = ["-e", f"trace={','.join(CALLS)}", "-e", "signal=none", "-o", "/dev/null"]
    if fault != KILL:
        options.append("--seccomp-bpf")
    for call in CALLS:
        options += ["-e", f"inject={call}:{how}:when={when}"]
    return options


def count_calls(folder: Path) -> dict[tuple[str, str], int]:
    """How often each thread of an undisturbed run makes each call."""
    folder.mkdir(parents=True, exist_ok=True)
    trace = folder / "trace"
    with Driver(["-e", f"trace={','.join(CALLS)}", "-o", str(trace)]) as driver:
        scenario = Scenario.make(folder / "counted")
        assert driver.run(scenario.folder).status == 0
    of_thread: dict[str, Counter[str]] = {}
    for line in trace.read_text("utf-8", "replace").splitlines():
        thread, _, call = line.partition(" ")
        name = call.strip().partition("(")[0]
        if name in CALLS:
            of_thread.setdefault(thread, Counter())[name] += 1
    # The driver's own threads, which warmed up, come first; of the run's two, the main one signs the lock first.
    lanes = zip(("main", "journal"), list(of_thread.values())[-2:], strict=True)
    counts = {(lane, call): count for lane, calls in lanes for call, count in calls.items()}
    assert max(counts.values()) < FIRES_AT
    return counts


def points_of(counts: dict[tuple[str, str], int], fault: str, *, every: int = 1) -> list[Point]:
    """The points of one fault: all, or of the frequent calls every ``every``-th."""
    points = []
    for (lane, call), count in counts.items():
        step = every if count > 12 else 1
        points += [Point(fault, lane, call, k) for k in range(1, count + 1, step)]
    return points


def sweep(points: Sequence[Point], folder: Path) -> RunCounters:
    """Strikes at every point and lets a clean run finish each job; two workers share the points."""
    total = RunCounters()
    shares = [points[number::WORKERS] for number in range(WORKERS)]
    with ThreadPoolExecutor(WORKERS) as pool:
        for counters in pool.map(_share, shares, [folder] * WORKERS):
            total.add(counters)
    return total


def _share(points: Sequence[Point], folder: Path) -> RunCounters:
    counters = RunCounters()
    with ExitStack() as stack:
        clean = stack.enter_context(Driver())
        faults = {point.fault for point in points}
        killing = {KILL} if KILL in faults else set()
        drivers = {fault: stack.enter_context(Driver(strace_options(fault))) for fault in faults | killing}
        for point in points:
            with tempfile.TemporaryDirectory(dir=folder) as name:
                scenario = Scenario.make(Path(name) / "job")
                _strike(point, scenario, drivers[point.fault], clean, counters)
    return counters


def _strike(point: Point, scenario: Scenario, faulty: Driver, clean: Driver, counters: RunCounters) -> None:
    """One point: the fault, perhaps a second one during recovery, then a clean run, then one more."""
    choice = random.Random(str(point))
    runs = [faulty.run(scenario.folder, aim=point.aim())]
    counters.statuses[runs[0]["ended"]] += 1
    found = list(_odd_end(point, runs[0], scenario))
    if runs[0].was_killed or runs[0].status:
        counters.fired += 1
        found += check_crash(scenario, concurrency=CONCURRENCY)
        if point.fault == KILL and choice.random() < 0.4:
            second = Point(KILL, "journal", choice.choice(("pwrite64", "fdatasync")), choice.randint(1, 20))
            runs.append(faulty.run(scenario.folder, aim=second.aim()))
            counters.twice += runs[-1].was_killed
            found += check_crash(scenario, concurrency=CONCURRENCY)
    elif point.fault == KILL:
        counters.missed += (
            1  # commits are grouped by time, so a run may need fewer calls than the counted one
        )
    else:
        counters.fired += 1  # the run went on in spite of the error
    found += finish(scenario, clean, most_maybe=(CONCURRENCY + 1) * len(runs) + 1, rerun=point.k % 4 == 0)
    counters.violations += [f"{point}: {violation}" for violation in found]


def finish(scenario: Scenario, clean: Driver, *, most_maybe: int, rerun: bool = True) -> Iterator[str]:
    """A clean run has to end 0 and leave everything right; another has to do nothing."""
    run = clean.run(scenario.folder)
    if run.status != 0:
        yield f"the clean run ended {run.status}: {run.get('message')}"
        return
    yield from check_finished(scenario, most_maybe=most_maybe)
    if rerun:
        before, asked = scenario.output.read_bytes(), len(_requests(scenario))
        again = clean.run(scenario.folder)
        if again.status != 0:
            yield f"the re-run ended {again.status}: {again.get('message')}"
        yield from check_rerun(scenario, before, asked)


def _requests(scenario: Scenario) -> list[dict[str, object]]:
    return [note for note in scenario.notes() if note["event"] == "request"]


def _odd_end(point: Point, run: Run, scenario: Scenario) -> Iterable[str]:
    """A fault ends a run with the status that its kind has, naming the file, or does not end it."""
    if point.fault == KILL:
        if run["ended"] not in (0, -9):
            yield f"ended {run['ended']}: {run.get('message')}"
        return
    expected = {0, 73, 74}
    if point.call in ("pwrite64", "write") and not _in_shared_memory(point):
        expected = {0, 73} if point.fault.startswith(ENOSPC) else {0, 74}
    if run["ended"] not in expected:
        yield f"ended {run['ended']}: {run.get('message')}"
    elif run["ended"] and str(scenario.folder) not in run["message"]:
        yield f"the message names no file: {run['message']}"


def _in_shared_memory(point: Point) -> bool:
    """The pages of a new journal, 14 writes, are followed by those of SQLite's shared memory.

    There SQLite reports every error as one of the disk; the product then looks at how full the disk is, and in
    these tests it is not.
    """
    return point.lane == "journal" and point.call == "pwrite64" and 14 < point.k <= 22
