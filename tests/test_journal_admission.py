"""Which request a row means: ordinals of equal rows under every edit of the input, held against a dict."""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchllm.errors import InputError
from batchllm.journal import AdmittedRow, Journal, JournalReader, State
from tests.journal_jobs import admit, answer_to, key_of, run

FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Model:
    """The journal as a dict: which ordinals of each name have been made, and how many a plan has claimed."""

    def __init__(self) -> None:
        self.made: Counter[object] = Counter()
        self.claimed: Counter[object] = Counter()

    def new_plan(self) -> None:
        self.claimed.clear()

    def admit(self, name: object) -> int:
        ordinal = self.claimed[name]
        self.claimed[name] += 1
        self.made[name] = max(self.made[name], ordinal + 1)
        return ordinal


def in_parts(names: Sequence[object], sizes: Sequence[int]) -> list[tuple[int, Sequence[object]]]:
    parts, start, turn = [], 0, 0
    while start < len(names):
        size = sizes[turn % len(sizes)]
        parts.append((start, names[start : start + size]))
        start, turn = start + size, turn + 1
    return parts


@FEW
@given(
    files=st.lists(st.lists(st.sampled_from("aaabbcdefgh"), max_size=30), min_size=1, max_size=5),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
)
def test_ordinals_are_those_of_the_model_whatever_the_edits(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[str]], sizes: list[int]
) -> None:
    """Each file is an edit of the one before: rows inserted, deleted, shuffled; some passes stop half way."""
    path = tmp_path_factory.mktemp("journal") / "j"
    model = Model()

    async def whole() -> None:
        with Journal.open(path, threaded=False) as journal:
            journal._store.connection.execute("PRAGMA synchronous=OFF")  # quick; nothing crashes here
            for number, names in enumerate(files):
                journal.begin_plan(f"file {number}")
                model.new_plan()
                for start, part in in_parts(names, sizes):
                    rows = await admit(journal, part, start)
                    assert [row.ordinal for row in rows] == [model.admit(name) for name in part]
            made = dict(journal._store.connection.execute("SELECT key, count(*) FROM request GROUP BY key"))
            assert made == {key_of(name): count for name, count in model.made.items()}
            twice = "SELECT 1 FROM row WHERE request_id IS NOT NULL GROUP BY request_id HAVING count(*) > 1"
            assert journal._store.connection.execute(twice).fetchone() is None

    asyncio.run(whole())


@FEW
@given(
    first=st.lists(st.sampled_from("aaabbcd"), min_size=1, max_size=25),
    data=st.data(),
)
def test_only_new_rows_are_sent_after_an_edit(
    tmp_path_factory: pytest.TempPathFactory, first: list[str], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("journal") / "j"
    edited = data.draw(st.permutations(first))
    dropped = data.draw(st.integers(0, len(first)))
    inserted = data.draw(st.lists(st.sampled_from("abxyz"), max_size=10))
    second = data.draw(st.permutations(edited[dropped:] + inserted))
    new = sum((Counter(second) - Counter(first)).values())

    async def whole() -> None:
        with Journal.open(path, threaded=False) as journal:
            journal._store.connection.execute("PRAGMA synchronous=OFF")  # quick; nothing crashes here
            assert await run(journal, first, identity="first") == len(first)
            assert await run(journal, second, identity="second") == new
            assert await run(journal, first, identity="third") == 0
            await run(journal, second, identity="fourth")
            for name, entry in zip(second, journal.reader().outcomes(), strict=True):
                assert entry.body.startswith(answer_to(name, 0)[:20])

    asyncio.run(whole())


def test_a_crash_between_two_batches_of_a_pass_moves_no_ordinal(tmp_path: Path) -> None:
    path = tmp_path / "j"
    names = list("abaabbacab")

    async def part(upto: int) -> list[AdmittedRow]:
        with Journal.open(path, threaded=False) as journal:
            plan = journal.begin_plan("same")
            known = list(journal.planned())
            assert [row.row_index for row in known] == list(range(plan.rows))
            return known + await admit(journal, names[plan.rows : upto], plan.rows)

    for upto in (1, 4, 5, 9, 10):
        rows = asyncio.run(part(upto))
    model = Model()
    assert [row.ordinal for row in rows] == [model.admit(name) for name in names]
    assert len({row.request_id for row in rows}) == len(names)


def test_the_same_pass_is_continued_and_any_other_starts_anew(tmp_path: Path) -> None:
    async def whole() -> None:
        with Journal.open(tmp_path / "j", threaded=False) as journal:
            assert journal.begin_plan("one").continued is False
            await admit(journal, "abc")
            again = journal.begin_plan("one")
            assert (again.continued, again.rows) == (True, 3)
            shared = journal.begin_plan("one", dedupe=True)
            assert (shared.continued, shared.rows) == (False, 0)
            assert journal.begin_plan("two", dedupe=True).continued is False
            assert journal.begin_plan("two", dedupe=True).plan_id == 3

    asyncio.run(whole())


def test_equal_rows_share_one_request_with_deduplication(tmp_path: Path) -> None:
    async def whole() -> None:
        with Journal.open(tmp_path / "j", threaded=False) as journal:
            journal.begin_plan("job", dedupe=True)
            rows = await admit(journal, "abaab") + await admit(journal, "bac", 5)
            assert [row.shares_request for row in rows] == [False, False, True, True, True, True, True, False]
            assert len({row.request_id for row in rows}) == 3
            assert list(journal.planned()) == rows

    asyncio.run(whole())


def test_deduplication_prefers_an_answered_one_of_equal_requests(tmp_path: Path) -> None:
    async def whole() -> None:
        with Journal.open(tmp_path / "j", threaded=False) as journal:
            journal.begin_plan("each pays")
            rows = await admit(journal, "aaa")
            (attempt_id,) = await journal.intend([rows[1].request_id or 0])
            journal.record_outcome(rows[1].request_id or 0, State.ANSWERED, attempt_id, 1)
            journal.begin_plan("shared", dedupe=True)
            first, second = await admit(journal, "aa")
            assert first.request_id == second.request_id == rows[1].request_id
            assert (first.state, first.shares_request, second.shares_request) == (State.ANSWERED, False, True)
            journal.begin_plan("each pays again")
            assert [row.ordinal for row in await admit(journal, "aaaa")] == [0, 1, 2, 3]

    asyncio.run(whole())


def test_a_sample_leaves_the_other_rows_for_the_full_run(tmp_path: Path) -> None:
    async def whole() -> None:
        with Journal.open(tmp_path / "j", threaded=False) as journal:
            journal.begin_plan("job")
            (sampled,) = await admit(journal, "a", 2)
            plan = journal.begin_plan("job")
            assert (plan.continued, plan.rows) == (True, 1)
            rest = await admit(journal, "ab", 0)
            assert [row.ordinal for row in rest] == [1, 0]
            rows = list(journal.planned())
            assert [row.row_index for row in rows] == [0, 1, 2]
            assert rows[2] == sampled

    asyncio.run(whole())


def test_a_row_can_be_admitted_again_as_one_that_is_never_sent(tmp_path: Path) -> None:
    path = tmp_path / "j"

    async def whole() -> None:
        with Journal.open(path) as journal:
            journal.begin_plan("job")
            await admit(journal, "ab")
            await journal.admit([(0, None, "larger than the limit \udcff"), (2, None, "skipped")])

    asyncio.run(whole())
    with JournalReader.open(path) as reader:
        assert [entry.unsent_reason for entry in reader.outcomes()] == [
            "larger than the limit \\udcff",
            None,
            "skipped",
        ]
        counts = reader.counts()
        assert (counts.rows, counts.open, counts.skipped, counts.unsendable) == (3, 1, 1, 1)


def test_equal_rows_cost_no_more_than_different_ones(tmp_path: Path) -> None:
    """The n-th of equal rows must not look at the n before it: steps of SQLite are counted, not seconds."""

    def steps(names: Sequence[object], name: str) -> list[int]:
        counted: list[int] = []

        async def whole() -> None:
            with Journal.open(tmp_path / name, threaded=False) as journal:
                total = 0

                def count() -> int:
                    nonlocal total
                    total += 1
                    return 0

                connection = journal._store.connection
                connection.set_progress_handler(count, 100)
                for identity in ("first", "second", "third"):
                    journal.begin_plan(identity)
                    for start in range(0, len(names), 64):
                        before = total
                        await admit(journal, names[start : start + 64], start)
                        counted.append(total - before)

        asyncio.run(whole())
        return counted

    equal, different = steps(["a"] * 1920, "equal"), steps(range(1920), "different")
    assert max(equal) <= 2 * max(different)
    assert equal[29] <= 2 * equal[2] + 10


def test_a_wrong_index_is_found_before_a_row_gets_anothers_answer(tmp_path: Path) -> None:
    """A bit flipped in the index would give a row the request of another key."""
    path = tmp_path / "j"

    async def first() -> None:
        with Journal.open(path, threaded=False) as journal:
            await run(journal, ["a", "b"])

    asyncio.run(first())
    data = bytearray(path.read_bytes())
    key = key_of("a")
    places = [i for i in range(len(data)) if data.startswith(key, i)]
    assert len(places) == 2  # in the table and in the index
    connection = sqlite3.connect(path)
    (root,) = connection.execute(
        "SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_autoindex_request_1'"
    ).fetchone()
    connection.close()
    (in_index,) = [place for place in places if place // 4096 == root - 1]
    data[in_index : in_index + 16] = key_of("c")
    path.write_bytes(data)

    async def second() -> None:
        with Journal.open(path, threaded=False) as journal:
            journal.begin_plan("edited")
            await admit(journal, ["b", "c"])

    with pytest.raises(InputError, match="damaged"):
        asyncio.run(second())
