"""``--reuse``: answers to equal requests, taken over from other jobs' journals instead of paid again."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from batchllm.errors import InputError
from batchllm.journal import Journal, JournalReader, State, StoredAnswer
from batchllm.plan.work_item import WorkItem
from batchllm.records import Answer


class Reuse:
    """Other jobs' answers.

    Args:
        readers: Their journals; the first that has an answer gives it.
        journal: The job's own.
    """

    def __init__(self, readers: Sequence[JournalReader], journal: Journal) -> None:
        self._readers = readers
        self._journal = journal

    async def left(self, items: Sequence[WorkItem]) -> tuple[list[WorkItem], list[tuple[WorkItem, Answer]]]:
        """Gives items the answers there are.

        An answer that this job would read as a failure is left where it is.

        Returns:
            The items that still have to be sent, and those that have their end, each with its answer.
        """
        left = list(items)
        adopted: list[tuple[WorkItem, Answer]] = []
        for reader in self._readers:
            found = reader.answers_for(list(dict.fromkeys((t.request.key, t.ordinal) for t in left)))
            taken: list[tuple[WorkItem, StoredAnswer, Answer]] = []
            still: list[WorkItem] = []
            for item in left:
                stored = found.get((item.request.key, item.ordinal))
                answer = stored and item.reader.read(stored.response.status, stored.response.body)
                if stored and answer and answer.error is None:
                    taken.append((item, stored, answer))
                else:
                    still.append(item)
            if taken:
                await self._adopt([(item, stored) for item, stored, _ in taken])
                adopted += [(item, answer) for item, _, answer in taken]
            left = still
        return left, adopted

    async def _adopt(self, taken: Sequence[tuple[WorkItem, StoredAnswer]]) -> None:
        attempt_ids = await self._journal.adopt([(item.request_id, stored) for item, stored in taken])
        for (item, _), attempt_id in zip(taken, attempt_ids, strict=True):
            self._journal.record_outcome(item.request_id, State.ANSWERED, attempt_id, item.earlier)


@contextmanager
def journals_of(outputs: Sequence[Path], own: Path) -> Iterator[list[JournalReader]]:
    """The journals of other jobs' outputs, open.

    Raises:
        InputError: There is none, or it is damaged, or it is the job's own.
    """
    with ExitStack() as stack:
        readers = []
        for output in outputs:
            beside = output.with_name(output.name + ".journal")
            path = output if output.name.endswith(".journal") and not beside.exists() else beside
            if path.absolute() == own.absolute():
                raise InputError(output, "--reuse names this very job; its answers are used anyway")
            readers.append(stack.enter_context(JournalReader.open(path)))
        yield readers
