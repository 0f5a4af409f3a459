"""Flows of several requests: what an edit of input or job pays, and what nobody may get."""

import itertools
import random
from pathlib import Path

import pytest

from batchllm.errors import UsageError
from batchllm.flows import Ask, Flow, Kept, RequestFailed, together
from batchllm.records import Answer, Row
from tests.fakes import answered
from tests.flow_jobs import READER, Endpoint, FlowJob, Table, later, request, table_of, three_steps

NEW = {"id": "new", "text": "text 3", "name": "somebody new", "city": "c1"}


def finished(folder: Path, table: Table, **flags: object) -> FlowJob:
    """A job whose first run has finished."""
    job = FlowJob(folder, Endpoint(), **flags)
    job.run(table, three_steps())
    job.check()
    return job


def test_every_row_has_the_last_answer_of_its_own_steps_and_the_sums_of_all(tmp_path: Path) -> None:
    table = table_of(20)
    job = finished(tmp_path, table)
    for row in job.answers:
        requests = len(job.endpoint.chain(row["response"]))
        assert (row["attempts"], row["prompt_tokens"], row["total_tokens"]) == (
            str(requests), str(5 * requests), str(8 * requests),
        )  # fmt: skip
    assert job.run(table, three_steps()) == 0


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("place", [0, 60, 120])
def test_an_inserted_row_pays_for_itself_alone(tmp_path: Path, place: int, seed: int) -> None:
    table = table_of(120, seed)
    job = finished(tmp_path, table)
    assert 1 <= job.run([*table[:place], NEW, *table[place:]], three_steps()) <= 3
    job.check()


def test_a_row_that_is_inserted_beside_its_like_displaces_nobody_whose_name_differs(tmp_path: Path) -> None:
    table = table_of(120)
    job = finished(tmp_path, table)
    assert 1 <= job.run([dict(table[5], id="twin"), *table], three_steps()) <= 3
    job.check()


@pytest.mark.parametrize("seed", [1, 2])
def test_a_shuffle_and_a_deletion_pay_nothing(tmp_path: Path, seed: int) -> None:
    table = table_of(120, seed)
    job = finished(tmp_path, table)
    random.Random(seed).shuffle(table)
    assert job.run(table, three_steps()) == 0
    job.check()
    assert job.run(table[1:60] + table[61:], three_steps()) == 0
    job.check()


def test_a_changed_second_step_keeps_the_first_and_pays_for_the_others(tmp_path: Path) -> None:
    table = table_of(120)
    job = finished(tmp_path, table)
    changed = three_steps(reply="answer")
    with pytest.raises(UsageError, match="accept-change"):
        job.run(table, changed, words="changed: ")
    paid = job.run(table, changed, words="changed: ", accept_change=True)
    assert paid == 2 * sum(len(job.endpoint.chain(row["response"])) == 3 for row in job.answers)
    job.check(reply="answer")
    assert job.run(table, changed, words="changed: ") == 0


def test_a_second_step_that_reads_another_column_keeps_the_first(tmp_path: Path) -> None:
    table = table_of(120)
    job = finished(tmp_path, table)
    reads = ("name", "city")
    changed = three_steps(reads=reads)
    paid = job.run(table, changed, words="changed: ", accept_change=True)
    assert paid == 2 * sum(len(job.endpoint.chain(row["response"])) == 3 for row in job.answers)
    job.check(reads=reads)


def test_a_changed_third_step_keeps_the_first_two(tmp_path: Path) -> None:
    table = table_of(120)
    job = finished(tmp_path, table)
    paid = job.run(table, three_steps(check="check of"), words="changed: ", accept_change=True)
    assert paid == sum(len(job.endpoint.chain(row["response"])) == 3 for row in job.answers)


def test_an_insertion_and_a_change_at_once_lose_no_first_step(tmp_path: Path) -> None:
    table = table_of(60)
    job = finished(tmp_path, table)
    changed = three_steps(reply="answer", reads=("city", "name"))
    job.run([NEW, *table], changed, words="changed: ", accept_change=True)
    topics = sum(content.startswith("topic") for content in job.endpoint.sent)
    assert topics == 61
    job.check(reads=("city", "name"), reply="answer")


def test_with_dedupe_equal_rows_share_everything_and_others_nothing(tmp_path: Path) -> None:
    table = [
        {"id": str(number), "text": "text 1", "name": f"name {number % 4}", "city": "c"}
        for number in range(24)
    ]
    job = finished(tmp_path, table, dedupe=True)
    assert len({row["response"] for row in job.answers}) <= 4
    assert len(job.endpoint.sent) <= 12
    by_name = {row["name"]: row["response"] for row in job.answers}
    assert all(row["response"] == by_name[row["name"]] for row in job.answers)
    assert job.run([NEW, *table], three_steps()) <= 3
    job.check()


def test_a_row_that_was_one_request_becomes_the_first_step(tmp_path: Path) -> None:
    def single(row: Row) -> Flow:
        built = request(row, f"topic of {row.values['text']}")
        answer: Answer = yield Ask("", built.key, READER, built)
        return answer

    table = table_of(30)
    job = FlowJob(tmp_path, Endpoint())
    assert job.run(table, single) == 30
    job.run(table, three_steps(), words="changed: ", accept_change=True)
    assert sum(content.startswith("topic") for content in job.endpoint.sent) == 30
    job.check()


def test_a_flow_that_asks_something_else_each_time_ends_in_a_sentence_and_not_in_payment(
    tmp_path: Path,
) -> None:
    clock = itertools.count()

    def untrue(row: Row) -> Flow:
        built = request(row, f"topic of {row.values['text']}")
        yield Ask("topic", built.key, READER, built)
        yield later(row, "reply", f"reply at {next(clock)}")
        answer: Answer = yield later(row, "check", f"check of {row.values['name']}")
        return answer

    table = table_of(6)
    job = FlowJob(tmp_path, Endpoint(), concurrency=1)
    send = job.endpoint.send

    async def dies(chat: object) -> object:
        if len(job.endpoint.sent) == 6:
            raise ZeroDivisionError
        return await send(chat)  # type: ignore[arg-type]

    job.endpoint.send = dies  # type: ignore[method-assign,assignment]
    with pytest.raises(ZeroDivisionError):
        job.run(table, untrue)
    job.endpoint.send = send  # type: ignore[method-assign]
    with pytest.raises(UsageError, match=r"row \d+.*at reply.*--accept-change"):
        job.run(table, untrue)
    assert len(job.endpoint.sent) == 6


def test_a_kept_value_is_computed_once(tmp_path: Path) -> None:
    """Even if it would come out differently the next time."""
    computed = itertools.count()

    def cut(row: Row) -> Flow:
        def compute() -> bytes:
            return b"%d" % next(computed)

        value: bytes = yield Kept("cuts", row.values["id"].encode(), compute)
        built = request(row, f"part {value.decode()} of {row.values['id']}")
        answer: Answer = yield Ask("part/1", built.key, READER, built)
        last: Answer = yield later(row, "combine", f"combine <{answer.text}>")
        return last

    table = table_of(10)
    job = FlowJob(tmp_path, Endpoint())
    assert job.run(table, cut) == 20
    assert job.run(table[::-1], cut) == 0


def test_a_failed_request_is_raised_in_the_flow_and_names_its_path(tmp_path: Path) -> None:
    def guarded(row: Row) -> Flow:
        built = request(row, f"topic of {row.values['text']}")
        yield Ask("topic", built.key, READER, built)
        try:
            answers: list[Answer] = yield [later(row, "bad", "bad"), later(row, "good", "good")]
        except RequestFailed as failed:
            assert failed.path == "bad"
            assert failed.answers[1].error is None
        else:
            return answers[0]  # a stand-in
        last: Answer = yield later(row, "bad/again", "bad")
        return last

    job = FlowJob(tmp_path, Endpoint())
    send = job.endpoint.send

    async def picky(chat: object) -> object:
        found = await send(chat)  # type: ignore[arg-type]
        return answered(None, finish_reason="content_filter") if job.endpoint.sent[-1] == "bad" else found

    job.endpoint.send = picky  # type: ignore[method-assign,assignment]
    job.run(table_of(3), guarded)
    assert all(row["error"].startswith("bad/again: the content filter") for row in job.answers)
    assert job.run(table_of(3), guarded) == 0
    assert job.run(table_of(3), guarded, retry_failed=True) == 3 * 2, (
        "what failed is asked again, and no more"
    )


def test_flows_side_by_side_each_get_their_own_answers_and_failures() -> None:
    def one(name: str) -> Flow:
        first: Answer = yield Ask(name, b"", READER, lambda: request(Row(0, 0, {}), name))
        second: Answer = yield Ask(f"{name}/2", b"", READER, lambda: request(Row(0, 0, {}), name))
        return first._replace(text=f"{first.text} {second.text}")

    def short() -> Flow:
        answer: Answer = yield Ask("short", b"", READER, lambda: request(Row(0, 0, {}), "short"))
        return answer

    both = together([one("a"), short(), one("b")])
    assert [ask.path for ask in next(both)] == ["a", "short", "b"]  # type: ignore[union-attr]
    answers = [Answer(text="1"), Answer(text="s"), Answer(text="x", error="no")]
    asked = both.throw(RequestFailed(answers, "b", answers[2]))
    assert [ask.path for ask in asked] == ["a/2"]  # type: ignore[union-attr]
    with pytest.raises(StopIteration) as end:
        both.send([Answer(text="2")])
    first, middle, last = end.value.value
    assert (first.text, middle.text) == ("1 2", "s")
    assert isinstance(last, RequestFailed)
