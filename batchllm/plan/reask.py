"""Re-asks answers that do not validate, also across runs.

An invalid answer was paid. So a run that stops before it has re-asked leaves the row open, and the next run goes on
from that answer: the first request is never sent again.
"""

from collections.abc import Callable
from dataclasses import dataclass

from batchllm.answer import ASK_AGAIN
from batchllm.job import Job
from batchllm.journal import AttemptRecord, Journal
from batchllm.plan.work_item import WorkItem
from batchllm.records import Answer, ChatRequest, Response
from batchllm.request import answer_spec, reask
from batchllm.retry import Disposition, classify


@dataclass(frozen=True, slots=True)
class Final:
    """An answer of an earlier run that finishes its row: it was not recorded, or is not re-asked."""

    answer: Answer
    attempt_id: int


class ReaskPolicy:
    """Decides which answers are re-asked.

    Args:
        job: Its ``reask`` is the limit for a row.
        count: Counts the tokens that are added to a request.
    """

    def __init__(self, job: Job, count: Callable[[str], int]) -> None:
        reads_data = job.per_row or answer_spec(job).read == "json"
        self._most = job.reask if reads_data and job.via == "online" else 0
        self._own_readers = job.per_row and job.via == "online"
        self._count = count

    def request(self, item: WorkItem, answer: Answer) -> ChatRequest | None:
        """Returns the request that re-asks, or ``None``."""
        if answer.reason in ASK_AGAIN and item.reasked < self._most:
            return reask(item.request, answer, self._count)
        return None

    def leaves_open(self, answer: Answer) -> bool:
        """Whether ``resume`` has to decide about an answer found after a crash, when its row comes."""
        return self._own_readers or (self._most > 0 and answer.reason in ASK_AGAIN)

    def resume(self, item: WorkItem, journal: Journal) -> Final | None:
        """Sets an item to where the last run stopped; returns its final answer if it is not re-asked."""
        if not (self._most or self._own_readers):
            return None
        answered = [one for one in journal.reader().attempts_of(item.request.row_index) if _is_answer(one)]
        if not answered:
            return None
        last = answered[-1]
        assert isinstance(last.outcome, Response), "only a response is an answer"
        answer = item.reader.read(last.outcome.status, last.outcome.body)
        if answer.reason not in ASK_AGAIN:
            return Final(answer, last.attempt_id) if self._own_readers else None
        item.request = item.request._replace(body=last.body or item.request.body)
        item.reasked = sum(one.body is not None for one in answered)
        request = self.request(item, answer)
        if request is None:
            return Final(answer, last.attempt_id)
        item.request = request
        item.reasked += 1
        return None


def _is_answer(attempt: AttemptRecord) -> bool:
    return attempt.outcome is not None and classify(attempt.outcome).disposition is Disposition.ANSWERED
