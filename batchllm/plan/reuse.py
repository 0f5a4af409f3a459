"""``--reuse``: takes answers to equal requests from other jobs' journals instead of paying again."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from batchllm.errors import InputError
from batchllm.flows import later_key
from batchllm.journal import Journal, JournalReader, State, StoredAnswer
from batchllm.plan.work_item import WorkItem
from batchllm.prepare.job_paths import folder_journal, journal_of
from batchllm.records import Answer


class Reuse:
    """Takes answers from other jobs.

    Args:
        readers: Their journals; the first one that has an answer is used.
        journal: The job's own journal.
    """

    def __init__(self, readers: Sequence[JournalReader], journal: Journal) -> None:
        self._readers = readers
        self._journal = journal

    async def adopt(self, items: Sequence[WorkItem]) -> tuple[list[WorkItem], list[tuple[WorkItem, Answer]]]:
        """Adopts the answers that other jobs have; those that this job would read as a failure are ignored.

        Returns:
            The items that still have to be sent, and the finished ones, each with its answer.
        """
        left = list(items)
        adopted: list[tuple[WorkItem, Answer]] = []
        for number, reader in enumerate(self._readers):
            for later in (False, True):  # a later request is found under the first one of its row
                asked = [item for item in left if item.later is later]
                taken = self._found(asked, number, reader)
                if taken:
                    await self._record([(item, stored) for item, stored, _ in taken])
                    adopted += [(item, answer) for item, _, answer in taken]
                    done = {id(item) for item, _, _ in taken}
                    left = [item for item in left if id(item) not in done]
        return left, adopted

    def _found(
        self, items: Sequence[WorkItem], number: int, reader: JournalReader
    ) -> list[tuple[WorkItem, StoredAnswer, Answer]]:
        """Returns the items to which a journal has a usable answer."""
        keys = {id(item): self._keys(item, number) for item in items}
        found = reader.answers_for(list(dict.fromkeys(key for each in keys.values() for key in each)))
        taken: list[tuple[WorkItem, StoredAnswer, Answer]] = []
        for item in items:
            stored = next((found[key] for key in keys[id(item)] if key in found), None)
            answer = stored and item.reader.read(stored.response.status, stored.response.body)
            if stored and answer and answer.error is None:
                taken.append((item, stored, answer))
                if item.flow is not None and not item.later:
                    item.flow.reused = (number, stored.request_id)
        return taken

    def _keys(self, item: WorkItem, number: int) -> list[tuple[bytes, int]]:
        """Returns the keys, with their ordinals, that an item may have in a journal.

        A later request is that of its row only where the first one was taken from there too.
        """
        flow = item.flow
        ask = None if flow is None else flow.asks[item.number]
        if ask is None:
            return [(item.request.key, item.ordinal)]
        if item.later:
            assert flow is not None, "it has the ask"
            reused = flow.reused
            return [(later_key(reused[1], ask), 0)] if reused is not None and reused[0] == number else []
        # An equal row that the other job did not have takes the answer of its first one.
        keys = dict.fromkeys((ask.identity, ask.body_key or ask.identity))
        return [(key, ordinal) for key in keys for ordinal in dict.fromkeys((item.ordinal, 0))]

    async def _record(self, taken: Sequence[tuple[WorkItem, StoredAnswer]]) -> None:
        attempt_ids = await self._journal.adopt([(item.request_id, stored) for item, stored in taken])
        for (item, _), attempt_id in zip(taken, attempt_ids, strict=True):
            self._journal.record_outcome(item.request_id, State.ANSWERED, attempt_id, item.earlier)


@contextmanager
def journals_of(outputs: Sequence[Path], own: Path) -> Iterator[list[JournalReader]]:
    """Opens the journals of other jobs' outputs.

    Raises:
        InputError: A journal does not exist, is damaged, or is the job's own.
    """
    with ExitStack() as stack:
        readers = []
        for output in outputs:
            path = journal_of(output)
            path = path if path.exists() else folder_journal(output) or path
            if path.absolute() == own.absolute():
                raise InputError(output, "--reuse names this very job; its answers are used anyway")
            readers.append(stack.enter_context(JournalReader.open(path)))
        yield readers
