"""Which rows and requests are finished, for the run, the dry run and a changed job alike."""

import asyncio
from pathlib import Path

import pytest

from batchllm.flows.conversation import BROKEN
from batchllm.journal import SKIPPED, AdmittedRow, Journal, JournalReader, State
from batchllm.plan.finished import FinishedRequests, final_states, is_finished, pages
from tests.journal_jobs import admit, key_of, response, save


def sent(state: State, attempt_id: int | None = 7) -> AdmittedRow:
    return AdmittedRow(0, 1, 0, state, 1, attempt_id, None, False)


def unsent(note: str) -> AdmittedRow:
    return AdmittedRow(0, None, None, None, 0, None, note, False)


@pytest.mark.parametrize(
    ("row", "finished", "finished_when_retrying"),
    [
        (sent(State.ANSWERED), True, True),
        (sent(State.PENDING), True, True),
        (sent(State.FAILED), True, False),
        (sent(State.UNANSWERED), False, False),
        (sent(State.OPEN), False, False),
        (unsent(SKIPPED), True, True),
        (unsent("bad_image\nimage not found"), True, False),
        (unsent(f"{BROKEN}\nnot sent"), False, False),
    ],
)
def test_a_row_is_finished_by_its_state_or_its_note(
    row: AdmittedRow, finished: bool, finished_when_retrying: bool
) -> None:
    assert is_finished(row, retry_failed=False) is finished
    assert is_finished(row, retry_failed=True) is finished_when_retrying


@pytest.mark.parametrize(
    ("row", "finished"),
    [
        (sent(State.UNANSWERED, 7), True),
        (sent(State.UNANSWERED, 4), False),
        (sent(State.UNANSWERED, None), True),
        (sent(State.FAILED, 7), True),
        (sent(State.FAILED, 4), False),
        (sent(State.OPEN, 7), False),
    ],
)
def test_in_a_batch_session_a_row_that_was_given_up_in_it_is_finished(
    row: AdmittedRow, finished: bool
) -> None:
    assert is_finished(row, retry_failed=True, since=5) is finished


def answered_once(path: Path, *, dedupe: bool) -> None:
    """Writes a journal with the rows a, a, b, of which the first one is answered."""

    async def write() -> None:
        with Journal.open(path) as journal:
            journal.begin_plan("job", dedupe=dedupe)
            rows = await admit(journal, ["a", "a", "b"])
            (attempt_id,) = await journal.intend([rows[0].request_id or 0])
            await save(journal, attempt_id, response(b"A"))
            journal.record_outcome(rows[0].request_id or 0, State.ANSWERED, attempt_id, 1)
            await journal.flush()

    asyncio.run(write())


@pytest.mark.parametrize("dedupe", [False, True])
def test_an_equal_row_is_finished_by_the_same_answer_with_dedupe_only(tmp_path: Path, dedupe: bool) -> None:
    path = tmp_path / "out.csv.journal"
    answered_once(path, dedupe=dedupe)
    with JournalReader.open(path) as reader:
        lookup = FinishedRequests(reader, final_states(retry_failed=False), dedupe=dedupe)
        found = lookup.look_up([key_of("a")]) + lookup.look_up([key_of("a"), key_of("b")])
    assert [(known.duplicate, known.state is not None, known.request_id) for known in found] == [
        (False, True, 1),
        (True, dedupe, 1 if dedupe else 2),
        (False, False, 2 if dedupe else 3),
    ]
    assert found[0].state is State.ANSWERED


def test_pages_hold_every_item_in_order() -> None:
    assert list(pages(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(pages([], 3)) == []
