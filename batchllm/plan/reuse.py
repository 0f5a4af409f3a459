"""``--reuse``: answers to equal requests, taken over from other jobs' journals instead of paid again."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from batchllm.errors import InputError
from batchllm.journal import Journal, JournalReader, State, Stored
from batchllm.plan.work_item import Ticket
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

    async def left(self, tickets: Sequence[Ticket]) -> tuple[list[Ticket], list[tuple[Ticket, Answer]]]:
        """Gives tickets the answers there are.

        An answer that this job would read as a failure is left where it is.

        Returns:
            The tickets that still have to be sent, and those that have their end, each with its answer.
        """
        left = list(tickets)
        adopted: list[tuple[Ticket, Answer]] = []
        for reader in self._readers:
            found = reader.answers_for(list(dict.fromkeys((t.request.key, t.ordinal) for t in left)))
            taken: list[tuple[Ticket, Stored, Answer]] = []
            still: list[Ticket] = []
            for ticket in left:
                stored = found.get((ticket.request.key, ticket.ordinal))
                answer = stored and ticket.reader.read(stored.response.status, stored.response.body)
                if stored and answer and answer.error is None:
                    taken.append((ticket, stored, answer))
                else:
                    still.append(ticket)
            if taken:
                await self._adopt([(ticket, stored) for ticket, stored, _ in taken])
                adopted += [(ticket, answer) for ticket, _, answer in taken]
            left = still
        return left, adopted

    async def _adopt(self, taken: Sequence[tuple[Ticket, Stored]]) -> None:
        attempt_ids = await self._journal.adopt([(ticket.request_id, stored) for ticket, stored in taken])
        for (ticket, _), attempt_id in zip(taken, attempt_ids, strict=True):
            self._journal.settle(ticket.request_id, State.ANSWERED, attempt_id, ticket.earlier)


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
