"""Equal rows share their requests (``--dedupe``): the first one asks, and the others end as it does."""

from batchllm.counters import RunCounters
from batchllm.journal import Journal, State
from batchllm.plan.row_flow import RowFlow


class Sharing:
    """The rows of one pass whose requests others may share.

    Args:
        journal: Where it is recorded how a row ended.
        counters: Counts the rows that share.
        single: No row needs more than one request, so that its request says how it ended.
        dedupe: Equal rows share their requests; otherwise nothing here does anything.
    """

    def __init__(self, journal: Journal, counters: RunCounters, *, single: bool, dedupe: bool) -> None:
        self._journal = journal
        self._counters = counters
        self._single = single
        self._dedupe = dedupe
        self._leaders: dict[int, RowFlow | State] = {}

    def shares(self, flow: RowFlow, request_id: int) -> bool:
        """Returns whether an earlier row's flow brings the answer; otherwise this flow does, for later rows too."""
        if not self._dedupe:
            return False
        leader = self._leaders.setdefault(request_id, flow)
        if leader is flow:
            return False
        self._counters.duplicates += 1
        if self._single:
            return True
        if isinstance(leader, RowFlow):
            if leader.followers is None:
                leader.followers = []
            leader.followers.append(flow.row.index)
        elif leader is not State.OPEN:
            self._journal.end_row(flow.row.index, leader)
        return True

    def end(self, flow: RowFlow, state: State, *, forget: bool) -> None:
        """Called with a flow that has ended, or that a later pass goes on with (``OPEN``).

        Args:
            flow: The flow.
            state: How it ended.
            forget: An equal row that comes later finds the answer in the journal.
        """
        if not self._dedupe or flow.root is None or flow.root.request_id is None:
            return
        if forget:
            self._leaders.pop(flow.root.request_id, None)
        else:
            self._leaders[flow.root.request_id] = state
