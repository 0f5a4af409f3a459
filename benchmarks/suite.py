"""What every part of the suite is given: how much to measure, where, and how to run a contender."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from processes import Broken, Run, batchllm_run, remove_output, run
from rows import problem_of
from servers import Server


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured. The small form holds the suite's correctness, not the product's speed."""

    rows: int = 50_000
    repeats: int = 5
    concurrency: tuple[int, ...] = (64, 128)
    makespan_rows: int = 4_000
    makespan_concurrency: int = 400
    makespan_latency_s: float = 0.5
    scale_rows: int = 1_000_000
    scale_latency_s: float = 0.0
    startup_repeats: int = 15
    dry_run_words: int = 12_000_000
    idle_settle_s: float = 6.0
    idle_s: float = 20.0


SMALL = Size(
    rows=600,
    repeats=1,
    concurrency=(64,),
    makespan_rows=200,
    makespan_concurrency=50,
    makespan_latency_s=0.1,
    scale_rows=2_000,
    scale_latency_s=0.03,
    startup_repeats=1,
    dry_run_words=100_000,
    idle_settle_s=3.0,
    idle_s=1.0,
)


@dataclass(slots=True)
class Bench:
    """One run of the suite.

    Attributes:
        size: How much.
        folder: Where inputs, outputs, journals and logs lie.
        peers_pythons: Pythons of environments that have peers' packages.
        small: Whether this is the small form.
        notes: What the report must say beside its table.
    """

    size: Size
    folder: Path
    peers_pythons: Sequence[Path] = ()
    small: bool = False
    notes: list[str] = field(default_factory=list)

    def output(self, name: str) -> Path:
        """The path of an output, with nothing there."""
        path = self.folder / f"{name}.csv"
        remove_output(path)
        return path

    def batchllm(self, source: Path, server: Server, *more: str) -> Run:
        """A whole run of batchllm, its output checked and removed."""
        output = self.output("batchllm")
        measured = run(batchllm_run(source, output, server.base_url, *more), self.folder)
        self.check(source, output, server)
        return measured

    def contender(self, command: Sequence[str], source: Path, server: Server) -> Run:
        """A whole run of another program, its output checked and removed.

        Args:
            command: The program; the input, the output and the server are put behind it.
            source: The input.
            server: The server.
        """
        output = self.output("contender")
        measured = run([*command, str(source), str(output), "--base-url", server.base_url], self.folder)
        self.check(source, output, server)
        return measured

    def check(self, source: Path, output: Path, server: Server) -> None:
        """Holds an output against its input and removes it.

        Raises:
            Broken: A cell changed, or an answer is missing, or is another row's.
        """
        if problem := problem_of(source, output, tagged=server.tagged):
            raise Broken(problem)
        remove_output(output)


Pair = tuple[Run, Run]


def pairs(repeats: int, first: Callable[[], Run], second: Callable[[], Run]) -> list[Pair]:
    """Two contenders in turn, so that what else the machine does meets both."""
    return [(first(), second()) for _ in range(repeats)]
