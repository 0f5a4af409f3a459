"""Decides what a durable outcome means for its row, the limiter and the run.

A row is finished, retried, or held until it is known whether a refusal is its own. A job's failure stops the run.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from batchllm.answer import ASK_AGAIN
from batchllm.budget.budget import BudgetMeter
from batchllm.budget.early_stop import EarlyStop
from batchllm.counters import RunCounters
from batchllm.errors import BudgetStop, ExitStatus, Unavailable, UsageError
from batchllm.flows import step_of
from batchllm.journal import Journal, State
from batchllm.limiter import EndpointRouter, Limiter
from batchllm.online.refusals import FirstRejections, HeldRefusal, HeldRefusals
from batchllm.plan.row_counts import count_end
from batchllm.plan.work_item import RowEnd, Settled, WorkItem
from batchllm.records import Answer, Failure, Response
from batchllm.request.plain import beyond_plain
from batchllm.retry import (
    ENDPOINT_REFUSALS,
    LONGEST_BACKOFF_S,
    Disposition,
    RetryPolicy,
    Verdict,
    classify,
    is_connection,
    may_concern_one_row,
)

log = logging.getLogger("batchllm.runner")

NOTHING_PAID = "nothing was paid"
ATTEMPTS_BESIDE_SUCCESS = 2
"""Attempts of a row whose request fails while a plain one is answered."""

REFUSED_OFTEN, REFUSED_FOR_S, PLAIN_ANSWERS = 10, 120.0, 3
"""A row that is refused as if for a limit, so often and for so long (two windows of a minute), while so many plain
requests and nothing else are answered, is refused for its own sake."""

_ALSO_OF_ROWS = ("http_403", "http_404")
"""What a firewall or a missing ability says to single rows, so that one of these before any success decides nothing."""
_DOWN = (Disposition.TRANSIENT, Disposition.OVERLOADED)


@dataclass(eq=False)
class OutcomeHandler:
    """Decides what happens to a row once an outcome of it is durable.

    The fields are those of ``OnlineLoop``; ``stop`` stops the run in order.
    """

    limiter: Limiter[WorkItem] | EndpointRouter[WorkItem]
    journal: Journal
    retry: RetryPolicy
    counters: RunCounters
    settled: Settled
    meter: BudgetMeter
    early_stop: EarlyStop
    stop: Callable[[BaseException], None]
    ask_plainly: Callable[[WorkItem, Verdict], None] = lambda item, verdict: None
    first: FirstRejections = field(default_factory=FirstRejections)
    refusals: HeldRefusals = field(default_factory=HeldRefusals)
    plain_answers: int = 0

    def handle(self, item: WorkItem, attempt_id: int, outcome: Response | Failure) -> None:
        """Finishes, retries or holds the item of a durable outcome, or stops the run."""
        now = asyncio.get_running_loop().time()
        verdict = classify(outcome)
        if verdict.disposition is Disposition.ANSWERED:
            self._answered(item, attempt_id, outcome, now)
            return
        if is_connection(verdict) and (self._has_worked or isinstance(self.limiter, EndpointRouter)):
            verdict = replace(verdict, disposition=Disposition.TRANSIENT, exit_status=None)
        self.meter.release(item.request, item.reserved, outcome)
        match verdict.disposition:
            case Disposition.REJECTED | Disposition.FATAL if self._asks_elsewhere(
                item, outcome, verdict, now
            ):
                self.counters.retries[verdict.reason] += 1
                self._log("retried", item, verdict, delay_s=0.0)
                self._offer_again(item, 0.0)
            case Disposition.REFUSED:
                self.counters.refusals += 1
                self.counters.last_refusal = verdict
                self._log("refused", item, verdict, retry_after_s=verdict.retry_after_s)
                if self._refuses_one_row(item, verdict, now):
                    self.limiter.released(now, item)
                    answer = Answer(error=verdict.message, reason=verdict.reason)
                    self.finish(item, answer, State.UNANSWERED, attempt_id)
                else:
                    self.limiter.refused(now, item, verdict, _headers(outcome))
            case Disposition.REJECTED:
                self._failed(item, outcome, verdict, now)
                item.attempts += 1
                rejected = HeldRefusal(item, _rejection(item, outcome, verdict), attempt_id, now)
                self._rejected(rejected, verdict)
            case Disposition.FATAL:
                self._fatal(item, attempt_id, outcome, verdict, now)
            case _:
                self._failed(item, outcome, verdict, now)
                outage = self.limiter.outage_of(item)
                if outage and isinstance(outcome, Response):
                    self.ask_plainly(item, verdict)
                if verdict.disposition is not Disposition.UNKNOWN and outage:
                    # An outage uses up no attempt, and other rows probe next. A long Retry-After is cut short.
                    asked_s = min(verdict.retry_after_s or 0.0, LONGEST_BACKOFF_S)
                    self._log("retried", item, verdict, delay_s=asked_s)
                    self._offer_again(item, now + asked_s)
                else:
                    self._retry(item, attempt_id, verdict, now)

    def _asks_elsewhere(
        self, item: WorkItem, outcome: Response | Failure, verdict: Verdict, now: float
    ) -> bool:
        """Whether another endpoint is asked, because the fault may be that of the one that rejected the row."""
        if not (isinstance(self.limiter, EndpointRouter) and self.limiter.asks_elsewhere(item, verdict)):
            return False
        self._failed(item, outcome, verdict, now)
        item.attempts += 1
        return True

    def _refuses_one_row(self, item: WorkItem, verdict: Verdict, now: float) -> bool:
        """Whether the endpoint refuses this row as if for a limit, and answers plain requests meanwhile."""
        if item.refused_at is None:
            item.refused_at = now
        item.refused += 1
        if item.refused < REFUSED_OFTEN:
            return False
        if self.plain_answers >= PLAIN_ANSWERS and now - item.refused_at >= REFUSED_FOR_S:
            return True
        self.ask_plainly(item, verdict)
        return False

    @property
    def _has_worked(self) -> bool:
        """Whether this run or another one of the job has had an answer."""
        return self.counters.has_worked or self.counters.answers + self.counters.finished_before > 0

    def _answered(self, item: WorkItem, attempt_id: int, outcome: Response | Failure, now: float) -> None:
        assert isinstance(outcome, Response), "only a response can be an answer"
        answer = item.reader.read(outcome.status, outcome.body)
        item.attempts += 1
        self.plain_answers = 0
        self._settle_first()
        self.fail_refused(item.sent_at)
        cost = self.meter.release(item.request, item.reserved, outcome, answer.usage)
        saved = self.meter.saved_by_cache(answer.usage, item.request.model)
        self.counters.count_answer(answer.usage, cost, saved)
        self.counters.send_rate.tokens += (answer.usage.prompt_tokens or 0) + (
            answer.usage.completion_tokens or 0
        )
        self.counters.finish_reasons[answer.finish_reason or "none"] += 1
        self.limiter.answered(now, item, outcome.headers, answer.usage)
        self.limiter.released(now, item)
        is_of_job = True
        if isinstance(self.limiter, EndpointRouter):
            is_of_job = self.limiter.excluded.judged(now, item, answer.error)
        state = State.ANSWERED if answer.error is None else State.FAILED
        is_asked_again = _is_asked_again(item, answer)
        end = self.finish(item, answer, state, attempt_id)
        if is_asked_again and end is None:
            self.counters.retries[answer.reason or "invalid"] += 1
            self._log("retried", item, answer, delay_s=0.0)
        elif (
            is_of_job
            and (sentence := self.early_stop.check(item.request.row_index, answer, step_of(item.path)))
            is not None
        ):
            self.stop(BudgetStop(sentence))

    def _failed(self, item: WorkItem, outcome: Response | Failure, verdict: Verdict, now: float) -> None:
        self.limiter.failed(now, item, verdict, _headers(outcome))
        self.limiter.released(now, item)

    def _retry(self, item: WorkItem, attempt_id: int, verdict: Verdict, now: float) -> None:
        item.attempts += 1
        if verdict.disposition is Disposition.UNKNOWN:
            item.possibly_billed += 1
            self.counters.possibly_billed += 1
        delay_s = self.retry.delay_s(item.attempts, item.possibly_billed, verdict)
        if self.plain_answers and item.attempts >= ATTEMPTS_BESIDE_SUCCESS:
            delay_s = None
        log.debug("row %d: %s, retry in %s s", item.request.row_index, verdict.reason, delay_s)
        if delay_s is None:
            answer = Answer(error=verdict.message, reason=verdict.reason)
            self.finish(item, answer, State.UNANSWERED, attempt_id)
            if not self._has_worked and verdict.reason.startswith("http_5"):
                self.ask_plainly(item, verdict)
        else:
            self.counters.retries[verdict.reason] += 1
            self._log("retried", item, verdict, delay_s=round(delay_s, 3))
            self._offer_again(item, now + delay_s)

    def _log(self, event: str, item: WorkItem, cause: Verdict | Answer, **details: Any) -> None:
        message = cause.message if isinstance(cause, Verdict) else cause.error
        row, attempts = item.request.row_index + 1, item.earlier + item.attempts
        self.counters.log.write(
            event, row=row, attempts=attempts, reason=cause.reason, message=message, **details
        )

    def _offer_again(self, item: WorkItem, not_before: float) -> None:
        lane = item.request.model
        self.limiter.offer(item, item.cost, lane=lane, again=True, not_before=not_before)

    def finish(
        self, item: WorkItem, answer: Answer, state: State, attempt_id: int | None = None
    ) -> RowEnd | None:
        """Finishes a request, for good or until the next run; returns how its row ended, if it has."""
        self.journal.record_outcome(item.request_id, state, attempt_id, item.earlier + item.attempts)
        end = self.settled(item, answer, state)
        if end is not None:
            count_end(self.counters, *end)
            if end[0].error is not None:
                self._log("failed", item, end[0], final=end[1] is State.FAILED)
        return end

    def _fatal(
        self, item: WorkItem, attempt_id: int, outcome: Response | Failure, verdict: Verdict, now: float
    ) -> None:
        """Handles a refusal of key, model or URL: wrong use before any success, perhaps the row's own after one."""
        first = not self._has_worked and verdict.reason not in _ALSO_OF_ROWS
        if first or not may_concern_one_row(verdict):
            self._failed(item, outcome, verdict, now)
            wrong_use = verdict.exit_status is ExitStatus.USAGE and not self._has_worked
            words = self._named(item, verdict.message)
            self.stop(UsageError(words) if wrong_use else Unavailable(words))
            return
        # An endpoint that refuses a row is not down.
        taken = self.counters.answers or self.limiter.outage_of(item)
        self._failed(
            item, outcome, replace(verdict, disposition=Disposition.REJECTED) if taken else verdict, now
        )
        item.attempts += 1
        refused = HeldRefusal(item, _rejection(item, outcome, verdict), attempt_id, now)
        if item.earlier and self.counters.answers and not self.refusals.endpoints_own:
            self.finish(item, refused.answer, State.FAILED, attempt_id)  # a second run refused it again
        elif self.refusals.hold(refused, said := self._named(item, refused.answer.error or "refused")):
            words = f"{ENDPOINT_REFUSALS} rows in a row were refused: {said}"
            self.stop(Unavailable(words) if self._has_worked else UsageError(f"{words}; {NOTHING_PAID}"))
        else:
            # Nobody waits for the decision: for this run the request has no answer.
            self._settle_held(refused)

    def _named(self, item: WorkItem, message: str) -> str:
        """Returns what an endpoint said, with its name where there are several, and what those said that are out."""
        return self.limiter.named(item, message) if isinstance(self.limiter, EndpointRouter) else message

    def _rejected(self, rejected: HeldRefusal, verdict: Verdict) -> None:
        """Fails a row that the endpoint rejected; before any success, only where not every row is rejected alike."""
        if self._has_worked or not self.first.holds(verdict):
            self._settle_first()
            self.finish(rejected.item, rejected.answer, State.FAILED, rejected.attempt_id)
            return
        self._settle_held(rejected)
        if self.first.hold(rejected, verdict, said := self._named(rejected.item, verdict.message)):
            self.stop(UsageError(f"the first rows were all refused alike: {said}; {NOTHING_PAID}"))

    def _settle_held(self, held: HeldRefusal) -> None:
        """Lets a flow go on without an answer, while it is open whether the request has failed."""
        end = self.settled(held.item, held.answer, State.UNANSWERED)
        held.row_ended = end is not None and end[1] is not State.ANSWERED
        if end is not None and not held.row_ended:
            count_end(self.counters, *end)

    def _settle_first(self) -> None:
        for rejected in self.first.take():
            self._fail(rejected)

    def end(self) -> None:
        """Decides about the rows still held when every row has been tried."""
        others = self.counters.failed + self.counters.unanswered
        if not self._has_worked and not others:
            if self.first.is_setting:
                rows = "all rows were" if self.counters.rows > 1 else "the row was"
                self.stop(UsageError(f"{rows} refused alike: {self.first.said}; {NOTHING_PAID}"))
                return
            if self.refusals.message:
                self.stop(UsageError(f"{self.refusals.message}; {NOTHING_PAID}"))
                return
        self._settle_first()
        self.fail_refused()

    def answered_plainly(self, outcome: Response | Failure, item: WorkItem, refused: Verdict) -> None:
        """Decides who is to blame for failing requests, by the outcome of a plain one of the same model."""
        verdict = classify(outcome)
        log.debug("a plain request: %s %s", verdict.disposition, verdict.message)
        is_limit = refused.disposition is Disposition.REFUSED
        if verdict.disposition in (Disposition.ANSWERED, Disposition.REJECTED):
            worked = self._has_worked or bool(self.journal.reader().count_answered())
            if worked or (is_limit and verdict.disposition is Disposition.ANSWERED):
                self.plain_answers += 1  # what looks at a request in order to reject it is not down
                self.limiter.recovered(asyncio.get_running_loop().time(), item)
                return
        if verdict.disposition is Disposition.ANSWERED:
            more = beyond_plain(item.request.body)
            hint = f"; what they have and it has not: {more}" if more else ""
            self.stop(
                UsageError(
                    f"{refused.message}; no request of this job has been answered so far, and a plain request to "
                    f"{item.request.model} is answered{hint}"
                )
            )
        elif (
            not (self._has_worked or is_limit or self.limiter.outage_of(item))
            and verdict.disposition in _DOWN
        ):
            self.stop(
                Unavailable(
                    f"{refused.message.rstrip('.')}; a plain request fails in the same way, so the endpoint is down"
                )
            )

    def fail_refused(self, sent_at: float = math.inf) -> None:
        """Fails the rows held since before ``sent_at``, when a request left that succeeded; all of them by default."""
        for refused in self.refusals.take(sent_at):
            self._fail(refused)

    def _fail(self, held: HeldRefusal) -> None:
        """Fails a request that was held."""
        item = held.item
        attempts = item.earlier + item.attempts
        self.journal.record_outcome(item.request_id, State.FAILED, held.attempt_id, attempts)
        if held.row_ended:
            self.counters.count_finished(held.answer)


def _rejection(item: WorkItem, outcome: Response | Failure, verdict: Verdict) -> Answer:
    """Returns the failed answer of a row that the endpoint rejected."""
    if isinstance(outcome, Response):
        return item.reader.read(outcome.status, outcome.body)
    return Answer(error=verdict.message, reason=verdict.reason)


def _is_asked_again(item: WorkItem, answer: Answer) -> bool:
    """Whether the flow re-asks an answer; where it is a later pass that goes on with it, whether it may."""
    if answer.reason not in ASK_AGAIN:
        return False
    return item.flow is None or item.flow.asks[item.number].again


def _headers(outcome: Response | Failure) -> Mapping[str, str]:
    return outcome.headers if isinstance(outcome, Response) else {}
