"""Requests cut into files: by count, by bytes, by model, by room in the queue."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from batchllm.batch.files import MARGIN, Caps, Desk, Draft, NoRoom, TooLong
from batchllm.presets import BatchFacts
from batchllm.records import ChatRequest

TAKEN: list[Draft] = []
FACTS = BatchFacts(max_requests=10, max_bytes=1_000_000, windows=("24h",))


def request(number: int, *, model: str = "m", size: int = 40) -> ChatRequest:
    body = json.dumps({"model": model, "n": number, "pad": "x" * size}).encode()
    return ChatRequest(number, number.to_bytes(16), body, model, 0, None)


def fill(desk: Desk, requests: list[ChatRequest]) -> list[Draft]:
    drafts = [desk.put(one.row_index, one) for one in requests]
    found = [draft for draft in drafts if draft is not None] + list(desk.rest())
    TAKEN.extend(found)
    return found


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Closes the files that a test took."""
    yield
    while TAKEN:
        TAKEN.pop().file.close()


def lines(draft: Draft) -> list[dict[str, object]]:
    draft.file.seek(0)
    return [json.loads(line) for line in draft.file]


def test_a_file_ends_at_the_endpoints_count(tmp_path: Path) -> None:
    drafts = fill(Desk(FACTS, Caps(), {}, tmp_path), [request(number) for number in range(25)])
    assert [len(draft.requests) for draft in drafts] == [10, 10, 5]
    assert [number for draft in drafts for number in draft.requests] == list(range(25))
    ids = [line["custom_id"] for draft in drafts for line in lines(draft)]
    assert len(set(ids)) == 25
    assert [line["custom_id"] for line in lines(drafts[1])] == [f"{drafts[1].name}-{n}" for n in range(10)]
    assert [draft.size for draft in drafts] == [draft.file.seek(0, os.SEEK_END) for draft in drafts]


def test_a_file_ends_before_the_endpoints_bytes(tmp_path: Path) -> None:
    facts = replace(FACTS, max_bytes=1000)
    drafts = fill(Desk(facts, Caps(), {}, tmp_path), [request(number) for number in range(12)])
    assert all(draft.size <= 1000 * MARGIN for draft in drafts)
    assert sum(len(draft.requests) for draft in drafts) == 12
    assert len(drafts) > 2


def test_a_file_is_one_models(tmp_path: Path) -> None:
    mixed = [request(number, model="ab"[number % 2]) for number in range(8)]
    drafts = fill(Desk(FACTS, Caps(), {}, tmp_path), mixed)
    assert sorted(draft.model for draft in drafts) == ["a", "b"]
    for draft in drafts:
        assert {line["body"]["model"] for line in lines(draft)} == {draft.model}  # type: ignore[index]


def test_a_request_that_no_file_can_hold_is_refused_alone(tmp_path: Path) -> None:
    desk = Desk(replace(FACTS, max_bytes=1000), Caps(), {}, tmp_path)
    with pytest.raises(TooLong, match="takes 950"):
        desk.put(1, request(1, size=2000))
    assert [list(draft.requests) for draft in fill(desk, [request(2)])] == [[2]]


def test_what_the_queue_has_no_room_for_is_held(tmp_path: Path) -> None:
    one = request(1)
    tokens = len(one.body) // 4
    desk = Desk(FACTS, Caps(tokens={"m": 5 * tokens}), {"m": 2 * tokens}, tmp_path)
    for number in range(3):
        desk.put(number, request(number))
    with pytest.raises(NoRoom):
        desk.put(3, request(3))
    assert desk.held
    assert [list(draft.requests) for draft in fill(desk, [])] == [[0, 1, 2]]


def test_a_request_larger_than_the_whole_queue_goes_alone(tmp_path: Path) -> None:
    desk = Desk(FACTS, Caps(tokens={"m": 1}), {}, tmp_path)
    desk.put(1, request(1))
    with pytest.raises(NoRoom):
        desk.put(2, request(2))
    assert [list(draft.requests) for draft in fill(desk, [])] == [[1]]


def test_a_file_has_no_name_on_disk_and_its_bytes_are_not_in_memory(tmp_path: Path) -> None:
    desk = Desk(FACTS, Caps(), {}, tmp_path)
    desk.put(1, request(1))
    assert list(tmp_path.iterdir()) == []
    (draft,) = fill(desk, [])
    facts = os.fstat(draft.file.fileno())
    assert (facts.st_mode & 0o777, facts.st_size) == (0o600, draft.size)
