"""Answer logs: cut anywhere, of attempts side by side, they give every answer to its own request or to none."""

import asyncio
import itertools
import random
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.cluster.log_format import decode, encode
from batchllm.cluster.losses import lost_rows, most_sent
from batchllm.journal import (
    AttemptEntry,
    Entry,
    Journal,
    JournalBuilder,
    JournalReader,
    JournalTail,
    KeptEntry,
    LaterRequest,
    State,
    StoredReply,
)
from batchllm.records import Response
from tests.journal_jobs import admit, answer_to, key_of, response, save, ticking

blobs = st.binary(max_size=40)
texts = st.none() | st.text(max_size=20)
replies = st.tuples(
    st.floats(0, 2e9),
    st.none() | st.floats(0, 600),
    st.none() | st.integers(100, 599),
    texts,
    texts,
    st.none() | st.integers(0, 1),
    texts,
    blobs,
)
entries = st.builds(
    AttemptEntry,
    attempt_id=st.integers(1, 2**40),
    row_index=st.none() | st.integers(0, 2**40),
    key=blobs,
    ordinal=st.integers(0, 2**31),
    body_key=st.none() | blobs,
    path=texts,
    identity=st.none() | blobs,
    sent_at=st.none() | st.floats(0, 2e9),
    reply=st.none() | replies,
    state=st.sampled_from([0, 1, 2]),
    attempts=st.integers(0, 99),
) | st.builds(KeptEntry, key=blobs, value=blobs)
frames = st.lists(st.lists(entries, max_size=4), max_size=4)


@settings(max_examples=25)
@given(frames)
def test_what_was_written_is_read_again(written: list[list[Entry]]) -> None:
    assert list(decode(b"".join(map(encode, written)))) == written


@settings(max_examples=15)
@given(frames)
def test_a_log_that_is_cut_at_any_byte_has_the_frames_before_the_cut(written: list[list[Entry]]) -> None:
    data = b"".join(map(encode, written))
    ends = list(itertools.accumulate(len(encode(frame)) for frame in written))
    for cut in range(len(data)):
        assert list(decode(data[:cut])) == written[: sum(end <= cut for end in ends)]


@settings(max_examples=15)
@given(frames, st.randoms(use_true_random=False))
def test_a_flipped_bit_makes_no_other_entries(written: list[list[Entry]], chance: random.Random) -> None:
    data = bytearray(b"".join(map(encode, written)))
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        found = list(decode(bytes(data)))
        assert found == written[: len(found)]


def entry(attempt: int, row: int, *, status: int | None = None, path: str | None = None) -> AttemptEntry:
    reply = None if status is None else StoredReply(1.0, 0.1, status, None, None, None, None, b"{}")
    identity = None if path is None else b"i"
    return AttemptEntry(attempt, row, b"k", row, None, path, identity, 1.0, reply, 0, 1)


def test_the_rows_that_may_be_paid_twice_are_those_in_flight_and_what_the_next_attempt_sends_first() -> None:
    died = [
        [entry(1, 0, status=200), entry(2, 1), entry(3, 2)],
        [entry(2, 1, status=200), entry(4, 4)],
    ]
    after = [[entry(5, 2, status=200), entry(6, 9), entry(7, 4)], [entry(8, 6), entry(9, 12)], []]
    assert most_sent(died) == 3
    assert lost_rows([died, after]) == ({2, 4}, [[9, 6, 12]])


def test_a_row_that_was_begun_and_not_finished_may_be_paid_twice() -> None:
    died = [
        [entry(1, 0, status=200), entry(2, 1, status=200), entry(3, 2, status=500), entry(4, 3, status=200)]
    ]
    after = [[entry(5, 1, path="step/2"), entry(6, 2), entry(7, 4)], []]
    assert lost_rows([died, after]) == ({1, 2}, [[4]])


def test_a_worker_that_ended_in_order_has_lost_nothing() -> None:
    assert lost_rows([[[entry(1, 0, status=200)], []]]) == (set(), [])


def test_a_worker_that_died_before_its_first_flush_may_have_sent_the_first_rows() -> None:
    assert lost_rows([[], [[entry(1, 0), entry(2, 1)], []]]) == (set(), [[0, 1]])


def test_a_request_that_two_workers_sent_is_paid_twice_whoever_lives() -> None:
    replaced = [[entry(1, 0, status=200)], [entry(2, 1, status=200), entry(3, 2, status=500)], []]
    after = [[entry(4, 1), entry(5, 2)], []]
    assert lost_rows([replaced, after]) == ({1}, [])


NAMES = ["a", "b", "a", None, "c", "a", "b", "d"]
"""The rows of a shard: equal names are equal requests, ``None`` has nothing to send."""


def later_key(root_id: int, path: str, identity: bytes) -> bytes:
    return sha256(b"%d\0%b\0%b" % (root_id, path.encode(), identity)).digest()[:16]


class Attempt:
    """An attempt at the shard: a journal of its own, made of logs, and a log that it flushes now and then.

    Each row sends a request, and where that is answered a second one, ``step/2``.
    """

    def __init__(self, path: Path, logs: list[list[list[Entry]]], names: list[str | None] = NAMES) -> None:
        with JournalBuilder(path, later_key, 1.0) as builder:
            builder.add([entry for frame in log for entry in frame] for log in logs)
        self.paid: list[tuple[str, int, str]] = []
        self.acknowledged: set[tuple[str, int, str]] = set()
        self.log: list[list[Entry]] = []
        self._names = names
        self._journal = Journal.open(path, threaded=False, clock=ticking().__next__)
        self._tail = JournalTail(path, builder.found.last_attempt)
        self._steps = self._answer_rows()

    def _answer_rows(self) -> Iterator[None]:
        self._journal.begin_plan("shard")
        rows = asyncio.run(_admitted(self._journal, self._names))
        yield
        for name, row in zip(self._names, rows, strict=True):
            if name is None:
                continue
            assert row.request_id is not None and row.ordinal is not None
            if row.state is State.OPEN and row.attempt_id is None:
                yield from self._send(row.request_id, name, row.ordinal, "")
            key = later_key(row.request_id, "step/2", name.encode())
            wanted = LaterRequest(row.request_id, "step/2", key, name.encode())
            (known,) = asyncio.run(_later(self._journal, wanted))
            if known.state is State.OPEN and known.attempt_id is None:
                yield from self._send(known.request_id, name, row.ordinal, "step/2")

    def _send(self, request_id: int, name: str, ordinal: int, path: str) -> Iterator[None]:
        (attempt_id,) = asyncio.run(_intended(self._journal, request_id))
        yield
        self.paid.append((name, ordinal, path))
        asyncio.run(_saved(self._journal, attempt_id, answer_to(name + path, ordinal)))
        yield
        self._journal.record_outcome(request_id, State.ANSWERED, attempt_id, 1)
        yield

    def step(self) -> bool:
        return next(self._steps, False) is None

    def flush(self) -> None:
        self._journal.reader()  # what is deferred is committed
        self.log.append(self._tail.new())
        self.acknowledged = set(self.paid)

    def close(self) -> None:
        self._tail.close()
        self._journal.close()


async def _admitted(journal: Journal, names: list[str | None]) -> list:  # type: ignore[type-arg]
    return await admit(journal, names)


async def _later(journal: Journal, wanted: LaterRequest) -> list:  # type: ignore[type-arg]
    return await journal.later([wanted])


async def _intended(journal: Journal, request_id: int) -> list[int]:
    return await journal.intend([request_id])


async def _saved(journal: Journal, attempt_id: int, body: bytes) -> None:
    await save(journal, attempt_id, response(body))


def answers_in(path: Path) -> dict[tuple[str, int, str], bytes]:
    """The answers of a journal, by name, ordinal and path of their requests."""
    by_key = {key_of(name): name for name in NAMES if name is not None}
    found = {}
    with JournalReader.open(path) as reader:
        for (request_id,) in reader.select("SELECT request_id FROM request WHERE root_id IS NULL"):
            ((key, ordinal),) = reader.select(
                "SELECT key, ordinal FROM request WHERE request_id = ?", request_id
            )
            for record in reader.flow_requests(request_id):
                outcomes = [each.outcome for each in reader.attempts_of(record.request_id)]
                bodies = [outcome.body for outcome in outcomes if isinstance(outcome, Response)]
                if bodies:
                    assert len(set(bodies)) == 1, "an answer is the one right answer"
                    found[by_key[key], ordinal, record.path or ""] = bodies[0]
    return found


def check_world(folder: Path, chance: random.Random) -> None:
    """Attempts at one shard, side by side, that die anywhere and read what there is of the logs of those before."""
    attempts: list[Attempt] = []
    living: list[Attempt] = []
    for number in range(chance.randint(2, 4)):
        seen = []
        for earlier in attempts:
            # An object that is listed late is not there for this attempt.
            data = [encode(frame) for frame in earlier.log]
            data = data[: chance.randint(0, len(data))] if chance.random() < 0.5 else data
            joined = b"".join(data)
            cut = chance.randint(0, len(joined)) if chance.random() < 0.3 else len(joined)
            seen.append(list(decode(joined[:cut])))
        attempts.append(Attempt(folder / f"{number}.journal", seen))
        living.append(attempts[-1])
        for _ in range(chance.randint(0, 40)):
            each = chance.choice(living)
            if not each.step() and len(living) > 1:
                each.flush()
                living.remove(each)
            elif chance.random() < 0.3:
                each.flush()
            elif chance.random() < 0.05 and len(living) > 1:
                living.remove(each)  # it dies
    together = folder / "together.journal"
    with JournalBuilder(together, later_key, 1.0) as builder:
        builder.add([entry for frame in each.log for entry in frame] for each in attempts)
    found = answers_in(together)
    for name, ordinal, path in set().union(*(each.acknowledged for each in attempts)):
        assert found.get((name, ordinal, path)) == answer_to(name + path, ordinal), "it was acknowledged"
    for (name, ordinal, path), body in found.items():
        assert body == answer_to(name + path, ordinal), "it is another request's"
    for each in attempts:
        each.close()


@pytest.mark.parametrize("seed", range(3))
def test_no_acknowledged_answer_is_lost_and_none_gets_to_another_row(tmp_path: Path, seed: int) -> None:
    check_world(tmp_path, random.Random(seed))


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(100, 220))
def test_that_holds_in_many_worlds(tmp_path: Path, seed: int) -> None:
    check_world(tmp_path, random.Random(seed))


def test_equal_rows_of_two_shards_keep_their_own_answers(tmp_path: Path) -> None:
    shards = []
    for number in range(2):
        attempt = Attempt(tmp_path / f"{number}.journal", [], ["a", "a", "b"])
        while attempt.step():
            pass
        attempt.flush()
        attempt.close()
        shards.append(attempt.log)
    together = tmp_path / "together.journal"
    with JournalBuilder(together, later_key, 1.0) as builder:
        for log in shards:
            builder.add([[entry for frame in log for entry in frame]])
    assert set(answers_in(together)) == {
        (name, ordinal, path)
        for name, ordinal in [("a", 0), ("a", 1), ("a", 2), ("a", 3), ("b", 0), ("b", 1)]
        for path in ("", "step/2")
    }
    assert builder.found.answers == 12


def test_an_answer_that_two_workers_paid_is_counted_with_its_row(tmp_path: Path) -> None:
    logs = []
    for number in range(2):
        attempt = Attempt(tmp_path / f"{number}.journal", [], ["a", "b"])
        for _ in range(6):
            attempt.step()
        attempt.flush()
        attempt.close()
        logs.append([*attempt.log, []])
    assert lost_rows(logs) == ({0}, [])
