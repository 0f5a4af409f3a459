"""Requests cut into files: by count, by bytes, by model, by room in the queue."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchllm.batch.submit import MARGIN, BatchFile, BatchFileWriter, Caps, QueueFull, RequestTooLarge
from batchllm.presets import BatchFacts
from batchllm.records import ChatRequest

TAKEN: list[BatchFile] = []
FACTS = BatchFacts(max_requests=10, max_bytes=1_000_000, windows=("24h",))


def request(number: int, *, model: str = "m", size: int = 40) -> ChatRequest:
    body = json.dumps({"model": model, "n": number, "pad": "x" * size}).encode()
    return ChatRequest(number, number.to_bytes(16), body, model, 0, None)


def fill(writer: BatchFileWriter, requests: list[ChatRequest]) -> list[BatchFile]:
    batch_files = [writer.put(one.row_index, one) for one in requests]
    found = [batch_file for batch_file in batch_files if batch_file is not None] + list(writer.rest())
    TAKEN.extend(found)
    return found


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Closes the files that a test took."""
    yield
    while TAKEN:
        TAKEN.pop().file.close()


def lines(batch_file: BatchFile) -> list[dict[str, Any]]:
    batch_file.file.seek(0)
    return [json.loads(line) for line in batch_file.file]


def test_a_file_ends_at_the_endpoints_count(tmp_path: Path) -> None:
    batch_files = fill(
        BatchFileWriter(FACTS, Caps(), {}, tmp_path), [request(number) for number in range(25)]
    )
    assert [len(batch_file.requests) for batch_file in batch_files] == [10, 10, 5]
    assert [number for batch_file in batch_files for number in batch_file.requests] == list(range(25))
    ids = [line["custom_id"] for batch_file in batch_files for line in lines(batch_file)]
    assert len(set(ids)) == 25
    assert [line["custom_id"] for line in lines(batch_files[1])] == [
        f"{batch_files[1].name}-{n}" for n in range(10)
    ]
    assert [batch_file.size for batch_file in batch_files] == [
        batch_file.file.seek(0, os.SEEK_END) for batch_file in batch_files
    ]


def test_a_file_ends_before_the_endpoints_bytes(tmp_path: Path) -> None:
    facts = replace(FACTS, max_bytes=1000)
    batch_files = fill(
        BatchFileWriter(facts, Caps(), {}, tmp_path), [request(number) for number in range(12)]
    )
    assert all(batch_file.size <= 1000 * MARGIN for batch_file in batch_files)
    assert sum(len(batch_file.requests) for batch_file in batch_files) == 12
    assert len(batch_files) > 2


def test_a_file_is_one_models(tmp_path: Path) -> None:
    mixed = [request(number, model="ab"[number % 2]) for number in range(8)]
    batch_files = fill(BatchFileWriter(FACTS, Caps(), {}, tmp_path), mixed)
    assert sorted(batch_file.model for batch_file in batch_files) == ["a", "b"]
    for batch_file in batch_files:
        assert {line["body"]["model"] for line in lines(batch_file)} == {batch_file.model}


def test_a_request_that_no_file_can_hold_is_refused_alone(tmp_path: Path) -> None:
    writer = BatchFileWriter(replace(FACTS, max_bytes=1000), Caps(), {}, tmp_path)
    with pytest.raises(RequestTooLarge, match="takes 950"):
        writer.put(1, request(1, size=2000))
    assert [list(batch_file.requests) for batch_file in fill(writer, [request(2)])] == [[2]]


def test_what_the_queue_has_no_room_for_is_held(tmp_path: Path) -> None:
    one = request(1)
    tokens = len(one.body) // 4
    writer = BatchFileWriter(FACTS, Caps(tokens={"m": 5 * tokens}), {"m": 2 * tokens}, tmp_path)
    for number in range(3):
        writer.put(number, request(number))
    with pytest.raises(QueueFull):
        writer.put(3, request(3))
    assert writer.held
    assert [list(batch_file.requests) for batch_file in fill(writer, [])] == [[0, 1, 2]]


def test_a_request_larger_than_the_whole_queue_goes_alone(tmp_path: Path) -> None:
    writer = BatchFileWriter(FACTS, Caps(tokens={"m": 1}), {}, tmp_path)
    writer.put(1, request(1))
    with pytest.raises(QueueFull):
        writer.put(2, request(2))
    assert [list(batch_file.requests) for batch_file in fill(writer, [])] == [[1]]


def test_a_file_has_no_name_on_disk_and_its_bytes_are_not_in_memory(tmp_path: Path) -> None:
    writer = BatchFileWriter(FACTS, Caps(), {}, tmp_path)
    writer.put(1, request(1))
    assert list(tmp_path.iterdir()) == []
    (batch_file,) = fill(writer, [])
    facts = os.fstat(batch_file.file.fileno())
    assert (facts.st_mode & 0o777, facts.st_size) == (0o600, batch_file.size)
