"""Conversations: turns in order, each with what was said before it, whatever fails and wherever a run stops."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batchllm.counters import RunCounters
from batchllm.errors import Interrupted
from batchllm.flows import job_flow
from batchllm.flows.conversation import BROKEN, conversation_of
from batchllm.journal import Journal, RowRecord, State
from batchllm.limiter import Limiter
from batchllm.online.loop import OnlineLoop
from batchllm.plan import plan
from batchllm.plan.plan import BATCH, Plan
from batchllm.records import ChatRequest, Pace, Row
from batchllm.request import RequestBuilder
from batchllm.retry import RetryPolicy
from tests.fakes import FakeClient, Outcome, answered, chat_body, status
from tests.request_jobs import make_job
from tests.virtual_time import run_virtual

FILTERED = answered(None, finish_reason="content_filter")


def rows_of(*turns: tuple[str | None, str]) -> list[Row]:
    """Rows from conversation and text."""
    return [Row(i, i + 2, {"thread": name, "text": text}, []) for i, (name, text) in enumerate(turns)]


class Hall:
    """Runs over the same rows and the same journal, one after the other, in virtual time.

    Attributes:
        bodies: What was sent in all runs: row and messages, the system message left out.
        plan: The plan of the last run.
    """

    def __init__(
        self, folder: Path, rows: Sequence[Row], *, pace: Pace | None = None, **settings: Any
    ) -> None:
        self.rows = rows
        self.bodies: list[tuple[int, list[dict[str, Any]]]] = []
        self.client = FakeClient()
        self.counters = RunCounters()
        self.plan: Plan
        self.read = 0
        self._path = folder / "out.journal"
        self._pace = pace or Pace(concurrency=8, max_attempts=2)
        self._job = make_job(conversation="thread", **settings)
        self._numbers = Counter[int]()

    def run(
        self,
        bad: dict[int, Outcome] | None = None,
        *,
        stop_at: float | None = None,
        retry_failed: bool = False,
        latency_s: float = 1.0,
    ) -> "Hall":
        """One run; ``bad`` rows get that outcome, every other request an answer of its own."""

        def script(request: ChatRequest, attempt: int) -> Outcome:
            row = request.row_index
            self.bodies.append((row, orjson.loads(request.body)["messages"][1:]))
            self._numbers[row] += 1
            return (bad or {}).get(row) or answered(f"answer to {row}, no. {self._numbers[row]}")

        self.client = FakeClient(script, latency_s=latency_s)
        self.counters = RunCounters(rows=len(self.rows))
        run_virtual(self._run(stop_at, retry_failed))
        return self

    async def _run(self, stop_at: float | None, retry_failed: bool) -> None:
        loop = asyncio.get_running_loop()
        journal = Journal.open(self._path, threaded=False)
        record = journal.begin_plan("plan")
        builder = RequestBuilder(self._job, ("thread", "text"), self.rows, None)
        self.plan = Plan(
            self._reading(),
            job_flow(self._job, builder, lambda: self.rows),
            journal,
            known=journal.planned() if record.continued else iter(()),
            counters=self.counters,
            retry_failed=retry_failed,
        )
        sender = OnlineLoop(
            client=self.client,
            limiter=Limiter(self._pace, charge="max_tokens", now=loop.time()),
            journal=journal,
            retry=RetryPolicy(self._pace.max_attempts, random.Random(1)),
            counters=self.counters,
            settled=self.plan.settled,
        )
        if stop_at is not None:
            loop.call_at(stop_at, lambda: sender.run_stop.stop(Interrupted(15)))
        try:
            await sender.run(self.plan.batches())
        finally:
            await journal.flush()
            self.entries = list(journal.reader().outcomes())
            journal.close()

    def _reading(self) -> Iterator[Row]:
        self.read = 0
        for row in self.rows:
            self.read += 1
            yield row

    @property
    def notes(self) -> dict[int, str | None]:
        """The reason of each row that was not sent."""
        return {
            entry.row_index: entry.unsent_reason for entry in self.entries if entry.unsent_reason is not None
        }

    @property
    def said(self) -> dict[int, str]:
        """What each row was answered, as the journal has it."""
        return {entry.row_index: _text(entry) for entry in self.entries if entry.state is State.ANSWERED}


def _text(entry: RowRecord) -> str:
    text: str = orjson.loads(entry.body)["choices"][0]["message"]["content"]
    return text


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def test_each_turn_has_the_earlier_turns_and_their_answers_before_it(tmp_path: Path) -> None:
    hall = Hall(tmp_path, rows_of(("a", "one"), ("b", "eins"), ("a", "two"), ("a", "three"), ("b", "zwei")))
    sent = dict(hall.run().bodies)
    assert sent[0] == [user("one")]
    assert sent[2] == [user("one"), assistant("answer to 0, no. 1"), user("two")]
    assert sent[3] == [*sent[2], assistant("answer to 2, no. 1"), user("three")]
    assert sent[4] == [user("eins"), assistant("answer to 1, no. 1"), user("zwei")]
    assert len(hall.bodies) == 5


def test_conversations_run_side_by_side_and_turns_one_after_the_other(tmp_path: Path) -> None:
    rows = rows_of(*[(f"c{number % 5}", f"turn {number // 5}") for number in range(20)])
    hall = Hall(tmp_path, rows).run()
    by_time: dict[int, list[int]] = {}
    for at, row in hall.client.sent:
        by_time.setdefault(round(at), []).append(row)
    assert hall.client.most_in_flight == 5
    assert max(by_time) <= 5, "four turns of a second each, and the first request alone"
    for rows_at in by_time.values():
        assert len({row % 5 for row in rows_at}) == len(rows_at), "two turns of one conversation at once"


def test_rows_without_a_value_stand_alone(tmp_path: Path) -> None:
    hall = Hall(tmp_path, rows_of(("", "x"), (None, "y"), ("  ", "z"))).run()
    assert sorted(hall.bodies) == [(0, [user("x")]), (1, [user("y")]), (2, [user("z")])]


def test_values_of_json_are_conversations_by_what_they_are() -> None:
    assert conversation_of(Row(0, 1, {"c": 7}, b""), "c") == "7"
    assert conversation_of(Row(0, 1, {"c": [1, "x"]}, b""), "c") == '[1,"x"]'
    assert conversation_of(Row(0, 1, {}, b""), "c") is None


def test_a_row_with_an_empty_text_is_no_turn(tmp_path: Path) -> None:
    hall = Hall(tmp_path, rows_of(("a", "one"), ("a", " "), ("a", "two"))).run()
    assert dict(hall.bodies)[2] == [user("one"), assistant("answer to 0, no. 1"), user("two")]
    assert hall.counters.skipped == 1


@pytest.mark.parametrize("bad", [FILTERED, status(400, "no"), status(500)])
def test_a_failed_turn_fails_the_later_turns_of_its_conversation_only(tmp_path: Path, bad: Outcome) -> None:
    hall = Hall(tmp_path, rows_of(("a", "1"), ("b", "1"), ("a", "2"), ("b", "2"), ("a", "3"), ("b", "3")))
    hall.run({2: bad})
    assert sorted(hall.said) == [0, 1, 3, 5]
    assert hall.notes == {
        4: "conversation\nnot sent: row 3, an earlier turn of its conversation, has no answer"
    }
    assert hall.counters.failed_by_reason[BROKEN] == 1
    assert 4 not in dict(hall.bodies)


def test_a_turn_that_cannot_be_sent_fails_the_later_ones_too(tmp_path: Path) -> None:
    rows = rows_of(("a", "fine"), ("a", "half a pair: \ud800"), ("a", "fine"))
    hall = Hall(tmp_path, rows).run()
    assert [note.partition("\n")[0] for note in hall.notes.values() if note] == ["bad_text", BROKEN]


def test_the_next_run_goes_on_where_a_turn_got_no_answer(tmp_path: Path) -> None:
    hall = Hall(tmp_path, rows_of(("a", "1"), ("a", "2"), ("a", "3")))
    hall.run({1: status(500)})
    assert sorted(hall.said) == [0]
    hall.bodies.clear()
    hall.run()
    assert [row for row, _ in hall.bodies] == [1, 2]
    assert hall.bodies[1][1] == [
        user("1"), assistant("answer to 0, no. 1"), user("2"), assistant("answer to 1, no. 3"), user("3")
    ]  # fmt: skip
    assert hall.notes == {}


def test_a_turn_that_failed_for_good_keeps_its_conversation_broken_until_it_is_asked_for_again(
    tmp_path: Path,
) -> None:
    hall = Hall(tmp_path, rows_of(("a", "1"), ("a", "2")))
    hall.run({0: FILTERED})
    hall.run()
    assert len(hall.bodies) == 1
    assert list(hall.notes) == [1]
    hall.run(retry_failed=True)
    assert [row for row, _ in hall.bodies] == [0, 0, 1]
    assert hall.said == {0: "answer to 0, no. 2", 1: "answer to 1, no. 1"}


@pytest.mark.parametrize("stop_at", [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5])
def test_a_run_that_was_stopped_goes_on_in_the_middle_of_its_conversations(
    tmp_path: Path, stop_at: float
) -> None:
    rows = rows_of(*[(f"c{number % 3}", f"turn {number}") for number in range(12)])
    hall = Hall(tmp_path, rows, pace=Pace(concurrency=2))
    with pytest.raises(Interrupted):
        hall.run(stop_at=stop_at)
    hall.run()
    assert Counter(row for row, _ in hall.bodies) == Counter(range(12)), "each turn was paid once"
    check_histories(hall)
    assert hall.counters.finished == 12


def check_histories(hall: Hall) -> None:
    """Every request has just what its conversation had said and been answered before it."""
    history: dict[str | None, list[dict[str, str]]] = {}
    sent = dict(hall.bodies)
    for row in hall.rows:
        name = conversation_of(row, "thread")
        before = history.setdefault(name, []) if name is not None else []
        if row.index in hall.said:
            assert sent[row.index] == [*before, user(row.values["text"])]
            before += [user(row.values["text"]), assistant(hall.said[row.index])]


@settings(max_examples=40, deadline=None)
@example([("a", "x"), ("a", ""), ("a", "y")], {0: FILTERED}, None, 1)
@given(
    turns=st.lists(
        st.tuples(st.sampled_from(["a", "b", "c", ""]), st.sampled_from(["x", "y", ""])), max_size=24
    ),
    bad=st.dictionaries(
        st.integers(0, 23), st.sampled_from([FILTERED, status(500), status(400)]), max_size=3
    ),
    stop_at=st.one_of(st.none(), st.floats(0.1, 9.0)),
    waiting=st.sampled_from([1, 3, 100]),
)
def test_whatever_fails_and_wherever_it_stops_no_turn_is_lost_or_out_of_its_place(
    tmp_path_factory: pytest.TempPathFactory,
    turns: list[tuple[str, str]],
    bad: dict[int, Outcome],
    stop_at: float | None,
    waiting: int,
) -> None:
    hall = Hall(tmp_path_factory.mktemp("hall"), rows_of(*turns), pace=Pace(concurrency=3, max_attempts=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "MOST_WAITING", waiting)
        try:
            hall.run(bad, stop_at=stop_at)
        except Interrupted:
            pass
        hall.run()
    check_histories(hall)
    paid = Counter(row for row, _ in hall.bodies)
    assert all(count == 1 for row, count in paid.items() if bad.get(row) != status(500))
    broken: set[str] = set()
    for row in hall.rows:
        name, text = row.values["thread"], row.values["text"]
        if not text:
            assert hall.notes[row.index] == "skipped"
        elif name and name in broken:
            assert (hall.notes[row.index] or "").startswith(BROKEN)
        elif row.index not in hall.said:
            broken.add(name)
            assert row.index in bad
    conversations = hall.plan._conversations
    assert conversations._open == {} and conversations.waiting == 0, (
        "nothing of a conversation that ended stays"
    )


def test_no_more_rows_are_read_than_may_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "MOST_WAITING", 30)
    hall = Hall(tmp_path, rows_of(*[("one long talk", f"turn {number}") for number in range(2000)]))
    with pytest.raises(Interrupted):
        hall.run(stop_at=3.5)
    assert hall.read <= 30 + BATCH
    assert len(hall.bodies) == 4


def test_a_turn_that_becomes_due_while_another_is_noted_as_not_sent_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    admit = Journal.admit

    async def slowly(journal: Journal, items: Sequence[Any], **more: Any) -> Any:
        admitted = await admit(journal, items, **more)
        if any(key is None for _, key, _ in items):
            await asyncio.sleep(2.0)
        return admitted

    monkeypatch.setattr(Journal, "admit", slowly)
    rows = rows_of(("a", "one"), ("a", "two"), ("b", "one"), ("b", "two"))
    hall = Hall(tmp_path, rows, pace=Pace(concurrency=1, max_attempts=2)).run({0: FILTERED})
    assert set(hall.notes) == {1} and set(hall.said) == {2, 3}


def test_a_waiting_turn_holds_no_slot(tmp_path: Path) -> None:
    rows = rows_of(*[("long", f"turn {number}") for number in range(6)], *[("", f"{n}") for n in range(6)])
    hall = Hall(tmp_path, rows, pace=Pace(concurrency=2)).run()
    alone = [at for at, row in hall.client.sent if row >= 6]
    assert max(alone) <= 7, "the single rows went beside the long conversation"


def test_a_tool_call_stays_in_the_history(tmp_path: Path) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    body = orjson.loads(chat_body(None, finish_reason="tool_calls"))
    body["choices"][0]["message"]["tool_calls"] = [call]
    outcome = answered()._replace(body=orjson.dumps(body))
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    hall = Hall(tmp_path, rows_of(("a", "look"), ("a", "and?")), tools=tools).run({0: outcome})
    assert dict(hall.bodies)[1] == [
        user("look"),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        user("and?"),
    ]
