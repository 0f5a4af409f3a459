"""Begins the flows of rows and ends them, records in the journal how they ended, and counts them."""

from batchllm.counters import RunCounters
from batchllm.flows import JobFlow
from batchllm.journal import SKIPPED, AdmittedRow, Journal, State
from batchllm.plan.conversations import Conversations
from batchllm.plan.finished import final_states, is_finished
from batchllm.plan.lookup import Lookup, changed
from batchllm.plan.row_counts import count_known, count_unsent, is_usable, row_state_of
from batchllm.plan.row_flow import KnownRows, RowFlow
from batchllm.plan.sharing import Sharing
from batchllm.plan.work_item import RowEnd
from batchllm.records import Answer
from batchllm.request import Skipped


class FlowLifecycle:
    """Begins and ends the flows of the rows of one pass.

    Args:
        flow: What is done with a row.
        journal: Where it is recorded how a row ended.
        lookup: Gives flows what they wait for, and records the rows that are not sent.
        conversations: The conversations that rows are turns of.
        known: The rows that an earlier run admitted in this same pass.
        counters: Counts the rows that need no request.
        retry_failed: Rows that failed are asked again.
        accept_change: A flow may ask something else than what it was answered.
        dedupe: Equal rows may share their requests.
        since: In batch mode, the session's first attempt; see ``is_finished``.

    Attributes:
        open: How many flows have begun and not ended.
    """

    def __init__(
        self,
        flow: JobFlow,
        journal: Journal,
        lookup: Lookup,
        conversations: Conversations,
        known: KnownRows,
        counters: RunCounters,
        *,
        retry_failed: bool,
        accept_change: bool,
        dedupe: bool,
        since: int | None,
    ) -> None:
        self.open = 0
        self._flow = flow
        self._journal = journal
        self._lookup = lookup
        self._conversations = conversations
        self._known = known
        self._counters = counters
        self._retry_failed = retry_failed
        self._accept_change = accept_change
        self._since = since
        self._final = final_states(retry_failed)
        self._sharing = Sharing(journal, counters, single=flow.single, dedupe=dedupe)

    def starts(self, flow: RowFlow) -> bool:
        """Whether the flow of a row has to be started: the last pass did not finish it."""
        return flow.known is None or not self._is_finished(flow.known)

    def begin(self, flow: RowFlow) -> bool:
        """Begins the flow of a row; returns whether it asks something."""
        known = flow.known
        if known is not None:
            flow.key = known.key or b""
            if self._is_finished(known):
                self._pass(flow, known)
                return False
            if known.request_id is not None and self._sharing.shares(flow, known.request_id):
                return False
        self.open += 1
        if not self._start(flow):
            self.end(flow)
            return False
        if known is not None and known.request_id is not None:
            self._take_root(flow, known)
            if not self._flow.single and known.row_state is None:
                self._journal.end_row(known.row_index, State.OPEN)  # the last run asked for one request only
        flow.key = flow.asks[0].identity
        return True

    def needs_nothing(self, flow: RowFlow) -> bool:
        """Decides whether a row that was just admitted is finished, or shares another row's requests."""
        root = flow.root
        assert root is not None and root.request_id is not None, "it was just admitted"
        flow.known_root = True
        finished = root.state is not State.OPEN and self._is_finished(root)
        if finished:
            self._pass(flow, root)
        if finished or self._sharing.shares(flow, root.request_id):
            self.open -= 1
            return True
        return False

    def begins_again(self, flow: RowFlow) -> bool:
        """Begins a flow again whose failed requests are to be asked again, or whose row keeps what it had."""
        root, answer = flow.root, flow.result
        if self._gives_back(flow):
            return self._start(flow)
        if not self._retry_failed or flow.sent or flow.reopened or flow.unsent is not None:
            return False
        if root is None or root.request_id is None or answer is None or answer.error is None or flow.given_up:
            return False
        if self._since is not None and flow.newest >= self._since:
            return False
        flow.reopened = True
        self._journal.reopen(root.request_id)
        if not self._flow.single:
            self._journal.end_row(flow.row.index, State.OPEN)
        flow.root = root._replace(state=State.OPEN, attempt_id=None) if root.state is State.FAILED else root
        return self._start(flow)

    def _gives_back(self, flow: RowFlow) -> bool:
        """Gives a row its answers back if it failed after some of them were asked again (``--retry-cut-off``)."""
        root, answer = flow.root, flow.result
        if root is None or root.request_id is None:
            return False
        if answer is not None and answer.error is None and not flow.given_up:
            return False
        before = self._journal.give_back(root.request_id)
        if before is None:
            return False
        kept = before.answers.get(root.request_id)
        if kept is not None:
            flow.root = root._replace(state=kept.state, attempt_id=kept.attempt_id)
        return True

    def drop(self, flow: RowFlow) -> None:
        """Leaves a flow to a later pass, which replays it."""
        self.open -= 1
        if flow.held:
            self._counters.pending += 1
        self._conversations.hold(flow)
        self._sharing.end(flow, State.OPEN, forget=False)

    def end(self, flow: RowFlow) -> RowEnd | None:
        """Records how a flow ended; returns ``None`` for a row of which nothing is sent, which is counted here."""
        self.open -= 1
        if flow.unsent is not None and not flow.answered:
            unsent = flow.unsent
            reason = SKIPPED if isinstance(unsent, Skipped) else f"{unsent.reason}\n{unsent.error}"
            self._lookup.unsent.append((flow.row.index, reason))
            count_unsent(self._counters, unsent, flow.row.index)
            self._conversations.finished(flow, None if isinstance(unsent, Skipped) else False)
            return None
        answer = flow.result or Answer()
        state = State.ANSWERED if answer.error is None else State.FAILED
        if flow.given_up:
            state = State.UNANSWERED
        if not self._flow.single or (flow.known is not None and flow.known.row_state is not None):
            alone = flow.requests == 1 and flow.unsent is None and not self._flow.named
            row_state = None if alone else state
            for row_index in (flow.row.index, *(flow.followers or ())):
                self._journal.end_row(row_index, row_state)
        # What was given up stays known; and everything, as long as the last pass's rows come: they may be older.
        self._sharing.end(flow, state, forget=state in self._final and not self._known.more)
        if flow.conversation is not None:
            self._conversations.finished(flow, state is State.ANSWERED, answer)
        return answer, state

    def _start(self, flow: RowFlow) -> bool:
        cut = self._flow.truncated
        flow.begin(self._flow.start(flow.row))
        if flow.waits_for is not None:
            self._lookup.provide(flow, self._conversations.history)
        self._counters.truncated += self._flow.truncated - cut
        return not flow.ended

    def _take_root(self, flow: RowFlow, known: AdmittedRow) -> None:
        """Takes the first request of the last pass, unless that was answered and the row asks something else."""
        if known.key == flow.asks[0].identity or known.state not in (State.ANSWERED, State.PENDING):
            flow.root = known
        elif not self._accept_change:
            raise changed([flow.row.index], "")

    def _is_finished(self, known: AdmittedRow) -> bool:
        return is_finished(known, retry_failed=self._retry_failed, since=self._since)

    def _pass(self, flow: RowFlow, known: AdmittedRow) -> None:
        """Counts a finished row."""
        count_known(self._counters, known)
        if row_state_of(known) is State.PENDING:
            self._conversations.hold(flow)
        else:
            self._conversations.finished(flow, is_usable(known))
