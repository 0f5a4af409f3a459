"""The work folder, as a folder and as objects: claims are exclusive, logs keep what was appended."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import pytest

from batchllm.cluster.plan import Shard
from batchllm.cluster.work import WorkFolder, attempts_at, claim, claim_name, open_work
from batchllm.errors import CannotWrite, StorageFailure

if TYPE_CHECKING:
    from tests.object_store import ObjectStore

SHARD = Shard(7, 0, 10, "", None)
NewWork = Callable[[], WorkFolder]


@pytest.fixture(params=["folder", "objects"])
def new_work(request: pytest.FixtureRequest, tmp_path: Path) -> NewWork:
    """Opens the same new work folder again and again, as each machine does."""
    if request.param == "folder":
        return lambda: open_work(str(tmp_path / "work"))
    store: ObjectStore = request.getfixturevalue("object_store")
    bucket = store.new_bucket()
    return lambda: open_work(f"s3://{bucket}/job")


def test_a_file_is_there_once_it_is_written(new_work: NewWork) -> None:
    work = new_work()
    assert work.get("plan.json") is None and not work.has("plan.json")
    assert work.create("plan.json", b"one")
    assert not work.create("plan.json", b"two")
    assert new_work().get("plan.json") == b"one"
    work.put("plan.json", b"three")
    assert new_work().get("plan.json") == b"three"


def test_a_damaged_file_is_named_and_not_taken_for_a_missing_one(tmp_path: Path) -> None:
    work = open_work(str(tmp_path))
    assert work.get_json("done/000001.json") is None
    work.put("done/000001.json", b'{"run": 1}')
    assert work.get_json("done/000001.json") == {"run": 1}
    for damaged in (b"", b'{"run": ', b"[]", b"\xff"):
        work.put("done/000001.json", damaged)
        with pytest.raises(StorageFailure, match=r"done/000001.json is damaged; restore it"):
            work.get_json("done/000001.json")


def test_a_log_has_what_was_appended(new_work: NewWork) -> None:
    work = new_work()
    assert work.log("shards/a/log") == []
    pieces = [bytes([number]) * (number + 1) for number in range(5)]
    for sequence, piece in enumerate(pieces):
        work.append("shards/a/log", sequence, piece)
    assert b"".join(new_work().log("shards/a/log")) == b"".join(pieces)


def test_every_claim_of_many_at_once_is_another_attempt(new_work: NewWork) -> None:
    work, names = new_work(), count()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: claim(work, SHARD, json.dumps(next(names)).encode()), range(12)))
    assert sorted(found) == list(range(1, 13))
    assert attempts_at(work, SHARD) == 12
    contents = [work.get(claim_name(SHARD, number)) for number in found]
    assert len(set(contents)) == 12


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "work").write_text("a file")
    with pytest.raises(CannotWrite, match="every machine has to be able to write"):
        open_work(str(tmp_path / "work")).create("plan.json", b"")


def test_a_file_that_is_replaced_while_it_is_read_has_one_content_or_the_other(new_work: NewWork) -> None:
    contents = {bytes([number]) * (1 + 40_000 * number) for number in range(3)}
    work, ended = new_work(), Event()
    work.put("state", next(iter(contents)))

    def replace() -> None:
        writer = new_work()
        while not ended.is_set():
            for content in contents:
                writer.put("state", content)

    with ThreadPoolExecutor(1) as pool:
        replacing = pool.submit(replace)
        try:
            found = {work.get("state") for _ in range(60)}
        finally:
            ended.set()
        replacing.result()
    assert found <= contents
