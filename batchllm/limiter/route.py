"""One of several endpoints, as the router sees it: its limiter, and what it did so far."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from batchllm.errors import Unavailable
from batchllm.limiter.dispatcher import Limiter
from batchllm.limiter.queue import Queue
from batchllm.limiter.shared_queue import TOO_LARGE, R
from batchllm.limiter.terms import MINUTE_S, View
from batchllm.records import Pace

LEAST_SPAN_S = 1.0
"""The shortest time from the first to the last request from which a rate is computed."""


@dataclass(frozen=True, slots=True)
class Target:
    """An endpoint, as its limiter needs it.

    Attributes:
        name: What it is called: its URL. Unique.
        pace: The user's settings for it.
        charge: How it counts tokens: ``Endpoint.charge``.
        weight: Its share of the requests, compared with the others', where all of them have room.
    """

    name: str
    pace: Pace
    charge: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class EndpointState:
    """What one endpoint did in this run.

    Attributes:
        name: What it is called.
        state: ``works``, ``waits`` (in a pause), ``down``, ``spent`` or ``out``.
        why: What it said, where it does not work.
        attempts: Requests sent to it, each attempt counted.
        answers, refusals, failures: How they ended.
        requests_per_minute: Attempts a minute, from the first to the last; ``None`` within a second.
        view: The state of its limiter.
    """

    name: str
    state: str
    why: str
    attempts: int
    answers: int
    refusals: int
    failures: int
    requests_per_minute: float | None
    view: View


@dataclass(eq=False, slots=True)
class Route(Generic[R]):
    """An endpoint and its limiter.

    Attributes:
        number: Its place among the endpoints.
        target: Which endpoint.
        limiter: Its limiter.
        ready: Something has changed since it was polled last.
        wake_at: When to poll it again all the same.
        out: Why nothing more is sent to it in this run; empty while it is in.
        spent: Why it is not asked for a while; empty unless it asks for too long a pause.
        attempts, answers, refusals, failures: Counts of this run.
        first_at, last_at: When the first and the last request were granted.
        rejected: Rows that it rejected since its last answer.
        rejection: What it said of the last one.
        wrongly_rejected: Those of them that another endpoint answered.
        ended_at: When a request ended there last.
        failed_after_s: The longest time that it took to fail since its last answer.
        useful, all_useless: Answers that are of use, and those that are not.
        useless: Those of no use since the last one that was of use.
        others_before: How many answers of the others were of use and of no use before these.
        held_until: Until when it gets nothing because of them; ``trouble`` says what they were.
    """

    number: int
    target: Target
    limiter: Limiter[R]
    ready: bool = True
    wake_at: float = -math.inf
    out: str = ""
    spent: str = ""
    attempts: int = 0
    answers: int = 0
    refusals: int = 0
    failures: int = 0
    first_at: float = 0.0
    last_at: float = 0.0
    rejected: int = 0
    rejection: str = ""
    wrongly_rejected: int = 0
    ended_at: float = 0.0
    failed_after_s: float = 0.0
    useful: int = 0
    all_useless: int = 0
    useless: int = 0
    others_before: tuple[int, int] = (0, 0)
    held_until: float = -math.inf
    trouble: str = ""

    @property
    def works(self) -> bool:
        """Whether it takes requests, or will after a pause."""
        return not (self.out or self.spent or self.limiter.outage)

    @property
    def load(self) -> float:
        """The share of its slots that is taken, over its weight."""
        return self.limiter.load / self.target.weight

    @property
    def rate(self) -> float:
        """The requests a second that it may answer; 0 in a pause, and before the first answer."""
        return 0.0 if self.limiter.paused else self.limiter.concurrency.requests_per_s

    def latency_s(self, now: float) -> float:
        """Returns how long its next answer may take, in seconds: as usual, or as long as it has been silent.

        Where nothing has been answered yet, it may be silent for as long again.
        """
        silent_s = self.limiter.silent_s(now, self.ended_at)
        usual_s = self.limiter.concurrency.latency_s or 2.0 * silent_s
        return max(usual_s, self.failed_after_s, silent_s)

    def state(self, now: float) -> EndpointState:
        """Returns what it did so far."""
        view, span_s = self.limiter.view(now), self.last_at - self.first_at
        state = "out" if self.out else "down" if self.limiter.outage else "spent" if self.spent else "works"
        if state == "works" and view.limits == "pause":
            state = "waits"
        rate = (self.attempts - 1) * MINUTE_S / span_s if span_s >= LEAST_SPAN_S else None
        why = self.out or view.trouble or self.spent
        counts = (self.attempts, self.answers, self.refusals, self.failures)
        return EndpointState(self.target.name, state, why, *counts, rate, view)


def all_down_since(routes: Iterable[Route[Any]]) -> float | None:
    """Returns when the last outage began; ``None`` where no endpoint is down."""
    return max(
        (since for each in routes if (since := each.limiter.breaker.opened_at) is not None), default=None
    )


def unavailable(now: float, left: Sequence[Route[Any]]) -> Unavailable:
    """Returns the error that ends a run because no endpoint works.

    Args:
        now: The time now.
        left: The endpoints that are not out.
    """
    since = all_down_since(left)
    for_s = "" if since is None else f" for {now - since:,.0f} s"
    words = "; ".join(
        f"{route.target.name}: {route.state(now).why or f'rejects the rows: {route.rejection}'}"
        for route in left
    )
    return Unavailable(
        f"no endpoint is available{for_s} ({words or 'all are left out'}); no row was marked as failed because of it, "
        "and the same command goes on later"
    )


def stands_still(routes: Sequence[Route[Any]], queues: Iterable[Queue[Any]]) -> bool:
    """Returns whether only endpoints that do not work may take what waits, and nothing is in flight elsewhere.

    Args:
        routes: The endpoints.
        queues: What waits.
    """
    working = [route for route in routes if route.works]
    return not any(route.limiter.in_flight for route in working) and all(
        queued.item.away.get(route.number, 0.0) >= TOO_LARGE
        for queue in queues
        for queued in (*queue.look_at_tried(), *queue.look_ahead())
        for route in working
    )
