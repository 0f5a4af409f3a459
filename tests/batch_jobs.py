"""Jobs in batch mode against a simulator in another thread: one call after the other, as cron makes them."""

import csv
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from batchllm.batch.waiting import Waiting
from batchllm.errors import NotReady
from batchllm.job import Job, assemble
from batchllm.journal import BatchRecord, JournalReader
from batchllm.presets import BatchFacts
from batchllm.runner import Result, run_job
from batchllm.simulator import BatchSettings, Simulator, SimulatorSettings, start_in_thread

QUICK = Waiting(first_s=0.01, most_s=0.05, unknown_s=0.0)
FACTS = BatchFacts(max_requests=50_000, max_bytes=200_000_000, windows=("24h",))


@contextmanager
def simulated(**batches: Any) -> Iterator[Simulator]:
    """A simulator whose batches take no time unless told otherwise."""
    settings = SimulatorSettings(batches=BatchSettings(**{"seconds": 0.0, **batches}))
    with start_in_thread(settings) as running:
        yield running


class BatchJob:
    """A job over ``rows`` rows of one folder; each ``call`` is the command, once."""

    def __init__(self, folder: Path, base_url: str, *, rows: int = 30, **flags: Any) -> None:
        self.folder = folder
        self.input = folder / "in.csv"
        self.output = folder / "out.csv"
        self.flags = {"provider": "simulator", "base_url": base_url, "output": str(self.output), **flags}
        self.facts = FACTS
        with self.input.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "text"])
            writer.writerows([number, f"The thing number {number} is great"] for number in range(rows))

    def job(self, **flags: Any) -> Job:
        given = {"input": str(self.input), "via": "batch", **self.flags, **flags}
        return assemble(given.pop("task", "classify"), given, os.environ)

    def call(self, *, wait: bool = False, **flags: Any) -> Result:
        waiting = replace(QUICK, wait=wait)
        with (
            patch("batchllm.runner.run.waiting_for", lambda job, wait: waiting),
            patch("batchllm.batch.loop.facts_of", lambda job: self.facts),
        ):
            return run_job(self.job(**flags))

    def until_done(self, calls: int = 60, **flags: Any) -> Result:
        """The same command until it does not say "not ready" any more."""
        for _ in range(calls):
            try:
                return self.call(**flags)
            except NotReady:
                continue
        raise AssertionError(f"not ready after {calls} calls")

    def begin(self, **flags: Any) -> None:
        """The first call, which is never ready."""
        try:
            self.call(**flags)
        except NotReady:
            return
        raise AssertionError("the first call was ready")

    def until_next_batch(self, calls: int = 60, **flags: Any) -> None:
        """The same command until another batch was made, or it says something else than "not ready"."""
        made = len(self.batches)
        for _ in range(calls):
            try:
                self.call(**flags)
            except NotReady:
                if len(self.batches) > made:
                    raise
            else:
                return
        raise AssertionError(f"no other batch after {calls} calls")

    @property
    def batches(self) -> list[BatchRecord]:
        with JournalReader.open(self.output.with_name("out.csv.journal")) as reader:
            return reader.batches()

    @property
    def answers(self) -> list[dict[str, str]]:
        with self.output.open(newline="") as file:
            return list(csv.DictReader(file))

    def counts(self) -> Any:
        with JournalReader.open(self.output.with_name("out.csv.journal")) as reader:
            return reader.counts()

    def requests(self) -> list[Any]:
        with JournalReader.open(self.output.with_name("out.csv.journal")) as reader:
            return list(reader.planned())
