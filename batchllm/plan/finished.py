"""Decides which rows and requests are finished; the run, the dry run and a changed job all ask here."""

from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple, TypeVar

from batchllm.flows.conversation import BROKEN
from batchllm.journal import SKIPPED, AdmittedRow, JournalReader, State
from batchllm.journal.bill import states_of
from batchllm.plan.row_counts import row_state_of

T = TypeVar("T")

RequestPair = tuple[bytes, int]
"""The key of a first request, and its ordinal among equal ones."""


def final_states(retry_failed: bool) -> tuple[State, ...]:
    """Returns the states of requests that this run does not send again."""
    kept = (State.ANSWERED, State.PENDING)
    return kept if retry_failed else (*kept, State.FAILED)


def is_finished(row: AdmittedRow, *, retry_failed: bool, since: int | None = None) -> bool:
    """Decides whether a row needs no request in this run.

    Args:
        row: What the journal knows of the row.
        retry_failed: Rows whose answer was a failure are sent again.
        since: In batch mode, the session's first attempt: a row that was given up by it or by a later one is not
            sent again in this session.
    """
    if row.request_id is None:
        reason = (row.unsent_reason or "").partition("\n")[0]
        return reason == SKIPPED or not (retry_failed or reason == BROKEN)
    if row_state_of(row) in final_states(retry_failed):
        return True
    if since is None or row.state is State.OPEN or row.row_state is not None:
        return False
    return row.attempt_id is None or row.attempt_id >= since


class KeySet:
    """A set of keys that takes 16 to 32 bytes for each.

    Open addressing over the first eight bytes of a key. Two of a million different keys agree in these with a
    probability of 3 in 100 million, and only counts depend on it.
    """

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 * 1024))
        self._mask = 1023
        self._count = 0

    def add(self, key: bytes) -> bool:
        """Adds a key; returns whether it was there already."""
        value = int.from_bytes(key[:8], "big") or 1
        slots, mask = self._slots, self._mask
        slot = value & mask
        while (found := slots[slot]) != 0:
            if found == value:
                return True
            slot = (slot + 1) & mask
        slots[slot] = value
        self._count += 1
        if self._count * 2 > mask:
            self._grow()
        return False

    def _grow(self) -> None:
        old = self._slots
        self._mask = mask = self._mask * 2 + 1
        self._slots = slots = array("Q", bytes(8 * (mask + 1)))
        for value in old:
            if value:
                slot = value & mask
                while slots[slot]:
                    slot = (slot + 1) & mask
                slots[slot] = value


class KnownRequest(NamedTuple):
    """What is known of a request before it is sent.

    Attributes:
        duplicate: An earlier row has an equal request.
        state: Its final state in a journal; ``None`` if none has one.
        request_id: Its number in the job's own journal, if that has it.
        other: The journal of another job that has its answer where the own one has none, and its number there.
    """

    duplicate: bool
    state: State | None
    request_id: int | None = None
    other: tuple[JournalReader, int] | None = None


class FinishedRequests:
    """Looks up in journals which requests are finished.

    Args:
        own: The job's journal, if there is one.
        final: The states in which a request of that is not sent again.
        others: Journals of other jobs whose answers may be used; the first one that has an answer is used. An equal
            row that such a job did not have takes the answer of its first one.
        dedupe: Equal rows share one request.
    """

    def __init__(
        self,
        own: JournalReader | None,
        final: Collection[State],
        others: Sequence[JournalReader] = (),
        *,
        dedupe: bool,
    ) -> None:
        self._own = own
        self._final = final
        self._others = others
        self._dedupe = dedupe
        self._seen = KeySet()
        self._repeated: Counter[bytes] = Counter()

    def look_up(self, keys: Sequence[bytes]) -> list[KnownRequest]:
        """Looks up a page of first requests by their keys; the pages come in input order."""
        duplicates = [self._seen.add(key) for key in keys]
        wanted = [
            (key, self._ordinal(key, duplicate)) for key, duplicate in zip(keys, duplicates, strict=True)
        ]
        own = {} if self._own is None else states_of(self._own, wanted)
        found = []
        answers = self._answers_of_others([pair for pair in wanted if self._final_state(own, pair) is None])
        for duplicate, pair in zip(duplicates, wanted, strict=True):
            other = answers.get(pair)
            state = self._final_state(own, pair) if other is None else State.ANSWERED
            found.append(KnownRequest(duplicate, state, own[pair][1] if pair in own else None, other))
        return found

    def _final_state(self, own: Mapping[RequestPair, tuple[State, int]], pair: RequestPair) -> State | None:
        state = own[pair][0] if pair in own else None
        return state if state in self._final else None

    def _answers_of_others(
        self, wanted: Sequence[RequestPair]
    ) -> dict[RequestPair, tuple[JournalReader, int]]:
        """Returns the other journals that have an answer, and the numbers of the requests there."""
        answers: dict[RequestPair, tuple[JournalReader, int]] = {}
        for journal in reversed(self._others):
            known = states_of(journal, [*wanted, *((key, 0) for key, _ in wanted)])
            for pair in wanted:
                state, request_id = known.get(pair) or known.get((pair[0], 0)) or (None, 0)
                if state is State.ANSWERED:
                    answers[pair] = journal, request_id
        return answers

    def _ordinal(self, key: bytes, duplicate: bool) -> int:
        if self._dedupe or not duplicate:
            return 0
        self._repeated[key] += 1
        return self._repeated[key]


def pages(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Splits items into lists of ``size``; the last one may be shorter."""
    iterator = iter(items)
    while page := list(islice(iterator, size)):
        yield page
