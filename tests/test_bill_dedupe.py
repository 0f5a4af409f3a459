"""No double work: equal rows, under kills too, and the answers of other jobs."""

import json
import random
from pathlib import Path

import pytest

from batchllm.counters import RunCounters
from batchllm.journal import Journal, State
from batchllm.plan.plan import Plan
from batchllm.records import Answer, Row
from batchllm.simulator import Simulator
from tests.bill_jobs import BillingClient, Builder, VirtualJob, cost_of, flow_of, read_summary, write_prices
from tests.command import Command
from tests.fakes import answered
from tests.journal_jobs import save
from tests.tables import column
from tests.virtual_time import run_virtual

HALF = [f"text {index // 2}" for index in range(80)]
"""Half of these equal the row before."""

SHUFFLED = random.Random(3).sample(HALF, len(HALF))


def write_texts(path: Path, texts: list[str]) -> Path:
    path.write_text("text\n" + "".join(f"{text}\n" for text in texts), "utf-8")
    return path


@pytest.mark.parametrize("texts", [HALF, SHUFFLED], ids=["beside each other", "shuffled"])
def test_half_the_rows_equal_half_the_requests(texts: list[str], tmp_path: Path) -> None:
    client = BillingClient(random.Random(1), faults=0.0)
    job = VirtualJob(tmp_path, texts, client, dedupe=True)
    assert job.run() is None
    assert client.requests == 40
    assert set(job.states) == {State.ANSWERED}
    assert (job.counters.answered, job.counters.duplicates, job.counters.finished_before) == (40, 40, 0)


@pytest.mark.parametrize("seed", range(30))
def test_half_the_rows_equal_half_the_requests_under_kills_too(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    client = BillingClient(chance, faults=0.0)
    job = VirtualJob(tmp_path, chance.sample(HALF, len(HALF)), client, dedupe=True)
    for _ in range(chance.randint(1, 5)):
        job.run(kill_at=chance.uniform(0.5, 6.0))
    job.finish()
    assert len(job.states) == 80
    assert len(client.times_sent) == 40
    assert client.requests <= 40 + job.flying_at_kills, "only what was in flight at a kill is sent twice"


@pytest.mark.parametrize("seed", range(5))
def test_equal_rows_are_sent_once_under_faults_too(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    client = BillingClient(chance, faults=0.3)
    job = VirtualJob(tmp_path, chance.sample(HALF, len(HALF)), client, dedupe=True)
    job.finish()
    assert len(client.times_sent) == 40


@pytest.mark.parametrize("ended", [State.ANSWERED, State.FAILED])
@pytest.mark.parametrize("retry_failed", [False, True])
def test_a_row_known_from_a_dead_run_is_not_sent_after_its_twin_has_its_end(
    ended: State, retry_failed: bool, tmp_path: Path
) -> None:
    rows = [Row(index, index + 2, {"text": f"text {index % 19}"}, []) for index in range(20)]
    keys = [Builder().build(row).key for row in rows]

    async def look() -> list[int]:
        with Journal.open(tmp_path / "j", threaded=False) as dead:
            dead.begin_plan("plan", dedupe=True)
            await dead.admit([(row.index, key, None) for row, key in zip(rows, keys, strict=True)])
        with Journal.open(tmp_path / "j", threaded=False) as journal:
            journal.begin_plan("plan", dedupe=True)
            plan = Plan(
                rows,
                flow_of(Builder()),
                journal,
                known=journal.planned(),
                counters=RunCounters(),
                retry_failed=retry_failed,
            )
            sent = []
            async for items in plan.batches():
                for item in items:
                    sent.append(item.request.row_index)
                    (attempt_id,) = await journal.intend([item.request_id])
                    await save(journal, attempt_id, answered())
                    journal.record_outcome(item.request_id, ended, attempt_id, 1)
                    plan.settled(item, Answer(), ended)
            return sent

    assert run_virtual(look()) == list(range(19))


def test_without_dedupe_every_row_pays_for_itself_and_the_summary_says_for_how_many(
    batchllm: Command, tmp_path: Path, server: Simulator
) -> None:
    source = write_texts(tmp_path / "in.csv", HALF)
    words = ("run", "-p", "{{ text }}", source, "--provider", "simulator", "--base-url", server.base_url, "--prices",
             write_prices(tmp_path), "--summary", tmp_path / "s.json", "-o", tmp_path / "o.csv",
             "--no-early-stop")  # fmt: skip
    said = batchllm(*words)
    assert said.status == 0, said.err
    assert server.ledger.requests == 80
    summary = read_summary(tmp_path / "s.json")
    bill = float(cost_of(server.ledger.prompt_tokens, server.ledger.completion_tokens))
    assert (summary["duplicate_rows"], summary["deduplicated_rows"]) == (40, 0)
    assert summary["duplicate_rows_cost"] == pytest.approx(bill / 2)
    assert "Equal to an earlier row: 40 rows, $" in said.err
    assert "--dedupe" in said.err


def test_with_dedupe_all_rows_have_the_answer_and_the_summary_says_what_that_saved(
    batchllm: Command, tmp_path: Path, server: Simulator
) -> None:
    source = write_texts(tmp_path / "in.csv", HALF)
    words = ("run", "-p", "{{ text }}", source, "--provider", "simulator", "--base-url", server.base_url, "--prices",
             write_prices(tmp_path), "--summary", tmp_path / "s.json", "-o", tmp_path / "o.csv", "--dedupe", "--add",
             "cost", "--no-early-stop")  # fmt: skip
    said = batchllm(*words)
    assert said.status == 0, said.err
    assert server.ledger.requests == 40
    answers, costs = column(tmp_path / "o.csv", "response"), column(tmp_path / "o.csv", "cost")
    assert all(answers)
    assert answers[0::2] == answers[1::2]
    bill = float(cost_of(server.ledger.prompt_tokens, server.ledger.completion_tokens))
    assert sum(map(float, costs)) == pytest.approx(bill)
    assert set(map(float, costs[1::2])) == {0.0}
    summary = read_summary(tmp_path / "s.json")
    assert summary["saved_by_dedupe"] == pytest.approx(bill)
    assert summary["cost"] == pytest.approx(bill)
    assert (summary["duplicate_rows"], summary["deduplicated_rows"], summary["answered_before"]) == (
        40,
        40,
        0,
    )


def test_the_dry_run_counts_equal_rows_and_sends_half_of_them(batchllm: Command, tmp_path: Path) -> None:
    source = write_texts(tmp_path / "in.csv", SHUFFLED)
    words = ("run", "-p", "{{ text }}", source, "--provider", "simulator", "--dry-run")
    assert "80, 40 equal to an earlier one\nTo send: 80 requests" in batchllm(*words).out
    assert "80, 40 equal to an earlier one\nTo send: 40 requests" in batchllm(*words, "--dedupe").out


# -- other jobs ---------------------------------------------------------------------------------------------------


def test_equal_requests_take_the_answers_of_other_jobs(
    batchllm: Command, tmp_path: Path, server: Simulator
) -> None:
    old = write_texts(tmp_path / "old.csv", ["one", "two", "three"])
    older = write_texts(tmp_path / "older.csv", ["five"])
    new = write_texts(tmp_path / "new.csv", ["four", "three", "one", "five"])
    at = ("--provider", "simulator", "--base-url", server.base_url, "--prices", write_prices(tmp_path))
    for source in (old, older):
        assert (
            batchllm("run", "-p", "{{ text }}", source, *at, "-o", source.with_suffix(".out.csv")).status == 0
        )
    before = float(cost_of(server.ledger.prompt_tokens, server.ledger.completion_tokens))
    words = ("run", "-p", "{{ text }}", new, *at, "-o", tmp_path / "new.out.csv", "--summary", tmp_path / "s.json",
             "--add", "cost", "--reuse", tmp_path / "old.out.csv", "--reuse", tmp_path / "older.out.csv")  # fmt: skip
    assert '"answered": 3' in batchllm(*words, "--dry-run", "--json").out
    said = batchllm(*words)
    assert said.status == 0, said.err
    assert server.ledger.requests == 5
    assert all(column(tmp_path / "new.out.csv", "response"))
    summary = read_summary(tmp_path / "s.json")
    bill = float(cost_of(server.ledger.prompt_tokens, server.ledger.completion_tokens)) - before
    assert (summary["answered_before"], summary["requests"]) == (3, 1)
    assert summary["cost"] == pytest.approx(bill)
    assert summary["saved_by_journal"] > 0
    costs = column(tmp_path / "new.out.csv", "cost")
    assert list(map(float, costs[1:])) == [0.0, 0.0, 0.0]
    assert float(costs[0]) == pytest.approx(bill)
    assert batchllm(*words).status == 0
    assert server.ledger.requests == 5


def test_a_job_with_another_prompt_has_nothing_to_take(
    batchllm: Command, tmp_path: Path, server: Simulator
) -> None:
    source = write_texts(tmp_path / "in.csv", ["one", "two"])
    at = ("--provider", "simulator", "--base-url", server.base_url)
    assert batchllm("run", "-p", "Say {{ text }}", source, *at, "-o", tmp_path / "a.csv").status == 0
    said = batchllm(
        "run", "-p", "{{ text }}", source, *at, "-o", tmp_path / "b.csv", "--reuse", tmp_path / "a.csv"
    )
    assert said.status == 0, said.err
    assert server.ledger.requests == 4


@pytest.mark.parametrize(
    ("before", "after", "left"),
    [(("--schema", "topic"), ("--schema", "topic"), 0), (("--samples", 2), ("--samples", 3), 2)],
)
def test_a_dry_run_knows_what_another_job_has_of_rows_of_several_requests(
    before: tuple[object, ...],
    after: tuple[object, ...],
    left: int,
    batchllm: Command,
    tmp_path: Path,
    server: Simulator,
) -> None:
    source = write_texts(tmp_path / "in.csv", ["one", "two"])
    words = ("run", "-p", "{{ text }}", source, "--provider", "simulator", "--base-url", server.base_url)
    assert batchllm(*words, *before, "-o", tmp_path / "a.csv").status == 0
    sent = server.ledger.requests
    again = (*words, *after, "-o", tmp_path / "b.csv", "--reuse", tmp_path / "a.csv")
    assert json.loads(batchllm(*again, "--dry-run", "--json").out)["requests"] == left
    assert batchllm(*again).status == 0
    assert server.ledger.requests == sent + left


def test_an_adopted_answer_is_no_part_of_the_budget(
    batchllm: Command, tmp_path: Path, server: Simulator
) -> None:
    source = write_texts(tmp_path / "in.csv", ["one", "two"])
    at = ("--provider", "simulator", "--base-url", server.base_url)
    assert batchllm("run", "-p", "{{ text }}", source, *at, "-o", tmp_path / "a.csv").status == 0
    write_texts(source, ["one", "two", "three"])
    said = batchllm("run", "-p", "{{ text }}", source, *at, "-o", tmp_path / "b.csv", "--reuse", tmp_path / "a.csv",
                    "--max-requests", 1)  # fmt: skip
    assert said.status == 0, said.err
    assert server.ledger.requests == 3


@pytest.mark.parametrize("name", ["nothing.csv", "o.csv"])
def test_an_output_without_a_journal_of_another_job_is_refused(
    name: str, batchllm: Command, tmp_path: Path
) -> None:
    source = write_texts(tmp_path / "in.csv", ["one"])
    words = ("run", "-p", "{{ text }}", source, "--provider", "simulator", "-o", tmp_path / "o.csv")
    said = batchllm(*words, "--reuse", tmp_path / name)
    assert said.status == 65
    assert name in said.err
    assert not (tmp_path / "o.csv").exists()
