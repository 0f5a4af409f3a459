"""Random worlds of whole jobs: real commands, workers and holders that are killed, and a ledger that saw every request.

Each world draws a job, endpoints, a budget and deaths of its seed. It runs the same command until the job is finished,
with other endpoints now and then, and holds output and ledger against what the documentation promises::

    python -m tests.cluster_worlds --worlds 50 --first-seed 1000 [--alone | --shards | --documents]
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.world_jobs import DOCUMENTS, KINDS, SUFFIXES, WorldJob, decoded
from tests.world_processes import ROOT, World, nursery
from tests.world_server import COMPLETION_TOKENS, PROMPT_TOKENS, WorldLedger, endpoint

PRICE = (PROMPT_TOKENS * 0.15 + COMPLETION_TOKENS * 0.60) / 1e6
"""Dollars of an answer of gpt-4o-mini."""
MOST_COMMANDS = 14
SLACK_S = 1.0
"""How late a busy machine does what is due."""


class RandomWorld:
    """A world of a seed; ``run`` returns what was violated."""

    def __init__(
        self,
        seed: int,
        folder: Path,
        nursery_path: str,
        *,
        alone: bool,
        store: Any = None,
        kinds: Sequence[str] = KINDS,
    ) -> None:
        self.seed, self.folder, self.alone = seed, folder, alone
        self.chance = random.Random(seed)
        chance = self.chance
        self.job = WorldJob.drawn(folder, chance, 160, kinds)
        self.output = folder / f"out.{self.job.suffix}"
        self.flush_s = chance.choice((0.1, 0.5, 1.0))
        self.state_s = 0.5
        constants = {
            "batchllm.cluster.answer_log:FLUSH_S": self.flush_s,
            "batchllm.cluster.answer_log:FLUSH_ENTRIES": chance.choice((1, 8, 256)),
            "batchllm.cluster.answer_log:STATE_S": self.state_s,
            "batchllm.cluster.driver_claim:BEAT_S": 0.3,
            "batchllm.cluster.driver_claim:DEAD_S": 2.0,
        }
        environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder),
            "TMPDIR": str(folder / "tmp"),
            "OPENAI_API_KEY": "k",
        }
        (folder / "tmp").mkdir()
        prices = {"gpt-4o-mini": {"input_cost_per_token": 1.5e-07, "output_cost_per_token": 6e-07}}
        (folder / "prices.json").write_text(json.dumps(prices))
        (folder / "said").mkdir()
        self.work = str(folder / "work")
        if store is not None and chance.random() < 0.3:
            environ |= store.environment()
            self.work = f"s3://{store.new_bucket()}/job"
        workers = chance.choice((1, 2, 3))
        self.concurrency = workers * chance.choice((1, 2, 4))
        self.world = World(folder / "said", nursery_path, environ, constants, workers=workers)
        self.latency_s = chance.choice((0.02, 0.05, 0.1))
        self.fault_rate = chance.choice((0.0, 0.0, 0.03))
        self.problems: list[str] = []
        self.named: set[int] = set()
        self.kills: list[float] = []
        job = self.job
        self.story = [
            f"{'alone' if alone else 'cluster'} {job.kind}, {len(job.rows)} rows, {len(job.inputs)} of"
            f" {job.inputs[0].name} to {self.output.name}, {workers} workers, -c {self.concurrency}, {self.work[:3]}"
        ]
        self.twice = 0

    def run(self) -> list[str]:
        with ExitStack() as stack:
            self.ledger = WorldLedger(self.chance)
            self.urls = [
                stack.enter_context(endpoint(number, self.ledger, self.latency_s))
                for number in range(self.chance.choice((1, 1, 2, 3)))
            ]
            self._reference()
            if not self.problems:
                self._world()
        return self.problems

    def _world(self) -> None:
        self._commands()

    def _reference(self) -> None:
        """The same job on one machine, where nothing happens."""
        self.expected_output = self.folder / f"reference.{self.job.suffix}"
        calm = self.ledger
        status = self._command([0], {"output": str(self.expected_output)}, clustered=False)
        self.expected = calm.paid()
        self.rows_of = {each.key: each.row for each in calm.arrivals}
        if status not in (0, 1):
            self.problems.append(f"the reference ended with {status}: {self._said()}")
        self.expected_status = status
        calm.arrivals.clear()
        self.ledger.fault_rate = self.fault_rate

    def _commands(self) -> None:
        """Runs the command until the job is finished, whatever dies."""
        self._draw()
        self.began = time.time()
        if not self.alone:
            self.world.start("holder", False)
            time.sleep(0.1)
        for number in range(MOST_COMMANDS):
            endpoints = self.changes[min(number, len(self.changes) - 1)]
            options = dict(self.budgets[min(number, len(self.budgets) - 1)])
            raised = number >= len(self.budgets) - 1
            since = len(self.ledger.arrivals)
            orphans = self.world.living("worker")
            status = self._command(endpoints, options, clustered=not self.alone, deadly=True)
            self.story.append(
                f"{time.time() - self.began:.1f} s: {options} at {endpoints} ended with {status}"
            )
            self._check_budget(options, status)
            if not orphans:
                asked = {each.endpoint for each in self.ledger.arrivals[since:]}
                if strange := asked - set(endpoints):
                    self.problems.append(f"removed endpoints were asked: {strange}")
            if status in (0, 1):
                break
            if status == -9 or (status == 3 and not raised) or (status == 75 and "max_time" in options):
                continue
            self.problems.append(f"it ended with {status}: {self._said()}")
            return
        else:
            self.problems.append("it does not come to its end")
            return
        if status != self.expected_status:
            self.problems.append(f"exit status {status}, and not {self.expected_status}")
        self._wait_for_orphans()
        self._check_output(self.output)
        self._check_paid()
        before, content = len(self.ledger.arrivals), self.output.read_bytes()
        again = self._command(endpoints, options, clustered=not self.alone)
        if again != self.expected_status:
            self.problems.append(f"again: exit status {again}: {self._said()}")
        if len(self.ledger.arrivals) != before:
            self.problems.append(f"again: {len(self.ledger.arrivals) - before} requests")
        if self.output.read_bytes() != content:
            self.problems.append("again: another output")

    def _draw(self) -> None:
        """Draws deaths, budgets and endpoints."""
        chance, needed = self.chance, self.expected.total()
        victims = ("command",) if self.alone else ("worker", "worker", "workers", "command", "all", "holder")
        numbers = sorted(chance.randint(1, max(1, needed)) for _ in range(chance.choice((0, 1, 2, 3, 4))))
        self.deaths = [(number, chance.choice(victims)) for number in numbers]
        self.budgets: list[dict[str, Any]] = [{}]
        if chance.random() < 0.35 and needed > 20:
            share = max(5, int(needed * chance.uniform(0.2, 0.9)))
            much = 20 * needed
            name, least, most = chance.choice(
                (
                    ("max_requests", share, much),
                    ("max_cost", round(share * PRICE * 3, 6), 10),
                    ("max_total_tokens", share * 40, much * 1000),
                )
            )
            self.budgets = [{name: least}, {name: most}]
        elif chance.random() < 0.2:
            self.budgets = [{"max_time": "2s"}, {}]
        every = list(range(len(self.urls)))
        self.changes = [sorted(chance.sample(every, chance.randint(1, len(every)))) for _ in range(6)]
        if chance.random() < 0.3:
            self.changes = [every]
        self.story += [f"deaths {self.deaths}", f"budgets {self.budgets}", f"endpoints {self.changes}"]

    def _command(
        self, endpoints: Sequence[int], options: Mapping[str, Any], *, clustered: bool, deadly: bool = False
    ) -> int:
        """One command, to its end; returns its status."""
        options = {
            "output": str(self.output),
            "concurrency": self.concurrency,
            "prices": str(self.folder / "prices.json"),
            **options,
        }
        if clustered:
            options |= {"engine": "ray", "work": self.work, "workers": self.world.workers, "wait_lock": 60}
        file = self.folder / "job.toml"
        tables = "\n".join(
            f'[[endpoints]]\nbase_url = "{self.urls[each]}"\nmodel = "model-{each}"\nprovider = "openai"'
            for each in endpoints
        )
        if len(self.urls) == 1:
            options["base_url"], tables = self.urls[0], ""
        file.write_text(self.job.text(tables, **options))
        words = ["run", str(file), "--yes"]
        pid = self.pid = self.world.start("command", words)
        until = time.monotonic() + 90
        while (status := self.world.status(pid)) is None:
            if deadly:
                self._kill(pid)
            if time.monotonic() > until:
                for each in [pid, *self.world.living("worker")]:
                    self.world.tell("trace", each)
                time.sleep(0.5)
                self.problems.append(f"it hangs: {self._said()}")
                self.world.kill(pid)
            time.sleep(0.005)
        named = self.world.folder / f"named-{pid}"
        if named.exists():
            self.named |= set(json.loads(named.read_text()))
        return status

    def _kill(self, command: int) -> None:
        """Kills whose time has come."""
        if not self.deaths or sum(each.paid for each in self.ledger.arrivals) < self.deaths[0][0]:
            return
        victim = self.deaths[0][1]
        victims = {"command": [command], "holder": self.world.living("holder")}.get(victim)
        if victims is None:
            victims = self.world.living("worker")
            self.chance.shuffle(victims)
            victims = victims[:1] if victim == "worker" else victims
            victims += [command] if victim == "all" else []
        if not victims:
            return
        del self.deaths[0]
        for each in victims:
            if self.world.kill(each):
                self.story.append(f"{time.time() - self.began:.1f} s: killed {victim} {each}")
        self.kills.append(time.time())
        if victim == "holder":
            time.sleep(self.chance.choice((0.0, 0.5)))
            self.world.start("holder", True)

    def _said(self) -> str:
        return (self.world.folder / f"command-{self.pid}").read_text()[-1500:]

    def _wait_for_orphans(self) -> None:
        """Workers that outlived their command stop by themselves."""
        until = time.monotonic() + 10
        while (living := self.world.living("worker")) and time.monotonic() < until:
            time.sleep(0.05)
        if living:
            self.problems.append(f"{len(living)} workers outlive the job")

    def _check_budget(self, options: Mapping[str, Any], status: int) -> None:
        sent = len(self.ledger.arrivals)
        paid = sum(each.paid for each in self.ledger.arrivals)
        spent = {
            "max_requests": sent,
            "max_cost": paid * PRICE,
            "max_total_tokens": paid * (PROMPT_TOKENS + COMPLETION_TOKENS),
        }
        for name, value in spent.items():
            if value > options.get(name, value) * (1 + 1e-9):
                self.problems.append(f"{name} {options[name]}: {value} was spent")

    def _check_output(self, output: Path) -> None:
        found, wanted = decoded(output), decoded(self.expected_output)
        name, wished = "id", [each["id"] for each in self.job.rows]
        if self.job.kind == "documents":
            name, wished = "file", [str(path) for path in self.job.inputs]
        rows = [each[name] for each in found]
        if rows != wished:
            self.problems.append(f"rows are lost, twice or not in order: {rows}")
            return
        for row, (one, other) in enumerate(zip(found, wanted, strict=True)):
            for name in set(one) | set(other):
                if name not in ("attempts", "model") and one.get(name) != other.get(name):
                    self.problems.append(
                        f"row {row}: {name} is {one.get(name)!r}, and not {other.get(name)!r}"
                    )
            own = self.job.rows[row]["text"].partition(" of the table")[0].rpartition(" is ")[2]  # row 17
            if own and not one["error"] and own not in one.get("response", own):
                self.problems.append(f"row {row} has the answer of another: {one['response']!r}")

    def _check_paid(self) -> None:
        """What was paid twice was in flight, or in a flush, when somebody died or was replaced."""
        paid = self.ledger.paid()
        if missing := self.expected.keys() - paid.keys():
            self.problems.append(f"never asked: rows {sorted(self.rows_of[key] for key in missing)}")
        if more := paid.keys() - self.expected.keys():
            self.problems.append(f"asked without need: {len(more)} requests")
        ranges = self._dedupe_ranges()
        risky = self._risky()
        for key, count in paid.items():
            excess = count - max(self.expected[key], ranges.get(key, 1))
            if excess <= 0:
                continue
            self.twice += excess
            times = sorted(each.at_s for each in self.ledger.arrivals if each.key == key and each.paid)
            lost = sum(any(start <= at <= end for start, end in risky) for at in times[:-1])
            row = self.rows_of.get(key, -1)
            if lost < excess:
                self.problems.append(
                    f"row {row} is paid {count} times, at {[round(at - self.began, 2) for at in times]}; risky are"
                    f" {[(round(a - self.began, 2), round(b - self.began, 2)) for a, b in risky]}"
                )
            rows = {row} if self.job.kind != "dedupe" else self._equal_rows(row)
            if not {each + 1 for each in rows} & self.named:
                self.problems.append(
                    f"row {row} is paid {count} times and is not named: {sorted(self.named)}"
                )

    def _equal_rows(self, row: int) -> set[int]:
        return {number for number, each in enumerate(self.job.rows) if f"row {row} " in each["text"]}

    def _dedupe_ranges(self) -> dict[str, int]:
        """How many shards each request of equal rows is in."""
        if self.job.kind != "dedupe" or self.alone:
            return {}
        shards = json.loads(self._of_work("plan.json") or b"{}")["shards"]
        found = {}
        for key, row in self.rows_of.items():
            equal = self._equal_rows(row)
            found[key] = sum(
                any(each["first_row"] <= number < each["first_row"] + each["rows"] for number in equal)
                for each in shards
            )
        return found

    def _of_work(self, name: str) -> bytes | None:
        from unittest.mock import patch

        from batchllm.cluster.work import open_work

        with patch.dict(os.environ, self.world.environ):
            return open_work(self.work).get(name)

    def _risky(self) -> list[tuple[float, float]]:
        """The times at which what was paid may be paid again."""
        if self.alone:
            return [(at - self.latency_s * 2 - 0.5, at) for at in self.kills]
        before = self.flush_s + self.latency_s * 2 + SLACK_S
        found = [(at - before, at) for at in self.kills]
        for shard in json.loads(self._of_work("plan.json") or b"{}")["shards"]:
            number = 2
            while claim := self._of_work(f"shards/{shard['number']:06}/claim-{number:04}"):
                at = json.loads(claim)["time"]
                found.append((at - before, at + self.state_s + SLACK_S))
                number += 1
        return found


class ShardWorld(RandomWorld):
    """The shards of a job as runs of their own, and then one file of them."""

    def _world(self) -> None:
        self._draw()
        self.began = time.time()
        self.shards = self.chance.randint(2, 5)
        outputs: list[Path] = []
        named: dict[int, tuple[int, set[int]]] = {}
        order = self.chance.sample(range(1, self.shards + 1), self.shards)
        suffix = self.chance.choice((self.job.suffix, self.job.suffix, *SUFFIXES))
        for shard in order:
            options = {"output": str(self.folder / f"part.{suffix}"), "shard": f"{shard}/{self.shards}"}
            while (status := self._command(self.changes[0], options, clustered=False, deadly=True)) == -9:
                self.changes = self.changes[1:] + self.changes[:1]
            outputs.append(self.folder / f"part.shard-{shard}-of-{self.shards}.{suffix}")
            if status not in (0, 1):
                self.problems.append(f"shard {shard} ended with {status}: {self._said()}")
                return
            named[shard], self.named = (len(decoded(outputs[-1])), self.named), set()
            if shard != order[-1]:
                self._merge(outputs, 65)
        first = 0
        for _, (rows, found) in sorted(named.items()):  # a shard counts its rows from its first one
            self.named |= {first + row for row in found}
            first += rows
        self._merge([*outputs, outputs[0]], 65)
        bare = self.chance.random() < 0.3 and len(self.job.inputs) == 1  # merge takes one input
        if bare:
            for each in outputs:
                each.with_name(f"{each.name}.journal").unlink()
            outputs.sort()
        merged = self._merge(outputs, 0, ["--input", str(self.job.inputs[0])] if bare else [])
        if not self.problems:
            self._check_output(merged)
            self._check_paid()

    def _merge(self, outputs: Sequence[Path], wished: int, more: Sequence[str] = ()) -> Path:
        merged = self.folder / f"merged.{self.job.suffix}"
        self.pid = self.world.start("command", ["merge", *map(str, outputs), "-o", str(merged), *more])
        while (status := self.world.status(self.pid)) is None:
            time.sleep(0.01)
        if status != wished:
            self.problems.append(f"merge ended with {status}, and not {wished}: {self._said()}")
        if wished and merged.exists():
            self.problems.append("merge wrote something")
        return merged

    def _dedupe_ranges(self) -> dict[str, int]:
        return dict.fromkeys(self.rows_of, self.shards) if self.job.kind == "dedupe" else {}


def run_world(
    seed: int,
    nursery_path: str,
    *,
    alone: bool,
    store: Any = None,
    kinds: Sequence[str] = KINDS,
    kind: type[RandomWorld] = RandomWorld,
) -> RandomWorld:
    """Runs the world of a seed in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="world-") as folder:
        world = kind(seed, Path(folder), nursery_path, alone=alone, store=store, kinds=kinds)
        try:
            world.run()
        finally:
            for process in ("command", "worker", "holder"):
                for pid in world.world.living(process):
                    world.world.kill(pid)
        if world.problems and (kept := os.environ.get("KEEP_WORLDS")):
            shutil.copytree(
                folder, Path(kept) / str(seed), dirs_exist_ok=True, ignore=shutil.ignore_patterns("holder")
            )
    return world


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--worlds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--documents", action="store_true")
    parser.add_argument("--shards", action="store_true")
    parser.add_argument("--store", action="store_true")
    parser.add_argument("-v", action="store_true")
    given = parser.parse_args()
    bad = twice = 0
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = stack.enter_context(nursery(Path(folder)))
        store = None
        if given.store:
            from tests.object_store import running_store

            store = stack.enter_context(running_store(Path(folder)))
        for seed in range(given.first_seed, given.first_seed + given.worlds):
            began = time.monotonic()
            world = run_world(
                seed,
                path,
                alone=given.alone or given.shards or given.documents,
                store=store,
                kinds=DOCUMENTS if given.documents else KINDS,
                kind=ShardWorld if given.shards else RandomWorld,
            )
            twice += world.twice
            bad += bool(world.problems)
            counts = f"{len(world.kills)} kills, {world.twice} twice"
            print(seed, f"{time.monotonic() - began:.1f} s", world.story[0], counts, flush=True)
            if world.problems or given.v:
                print(*("   " + line for line in world.story[1:]), sep="\n")
                print(*("  !! " + problem[:1500] for problem in world.problems[:8]), sep="\n", flush=True)
    print(f"{given.worlds} worlds, {bad} with violations, {twice} requests paid twice")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
