"""The pass over the rows that leaves out what a session has given up."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from batchllm.counters import RunCounters
from batchllm.journal import AdmittedRow, State
from batchllm.plan.plan import Plan


class BatchPlan(Plan):
    """One pass over rows for new batches; see ``Plan`` for the other arguments.

    Args:
        since: The session's first attempt: what ended without an answer by it, or a later one, is not sent again.
        retry_failed: Rows whose answer was a failure before this session are sent again.
        dedupe: Equal rows share one request, so that it has to be remembered which are on their way.
    """

    _defers = False  # what goes in one batch has no order

    def __init__(
        self, *args: Any, since: int, retry_failed: bool = False, dedupe: bool = False, **settings: Any
    ) -> None:
        super().__init__(*args, retry_failed=retry_failed, **settings)
        self._since = since
        self._retry_failed = retry_failed
        self._dedupe = dedupe

    def _has_end(self, known: AdmittedRow) -> bool:
        if known.request_id is None:
            return super()._has_end(known)
        if known.state in (State.ANSWERED, State.PENDING):
            return True
        if known.state is State.OPEN:
            return False
        if known.state is State.FAILED and not self._retry_failed:
            return True
        return known.attempt_id is None or known.attempt_id >= self._since

    def _is_shared(self, request_id: int) -> bool:
        return self._dedupe and super()._is_shared(request_id)


@contextmanager
def recounted(counters: RunCounters, row_counters: RunCounters) -> Iterator[None]:
    """A pass counts every row anew; what batches brought row_counters in this run is told apart from what was found.

    Args:
        counters: The run's.
        row_counters: The rows that batches brought row_counters in this run.
    """
    counters.before = counters.answered = counters.failed = counters.unanswered = 0
    counters.skipped = counters.duplicates = counters.pending = 0
    counters.failed_by_reason.clear()
    try:
        yield
    finally:
        came = row_counters.answered + row_counters.failed + row_counters.unanswered
        counters.before = max(0, counters.before - came)
        counters.answered += row_counters.answered
        counters.failed += row_counters.failed
        counters.unanswered += row_counters.unanswered
        counters.failed_by_reason.update(row_counters.failed_by_reason)
