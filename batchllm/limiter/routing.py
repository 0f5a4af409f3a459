"""Decides which of several endpoints gets a request: one that takes it now, the least loaded first.

Each endpoint has a limiter of its own, with its limits, its concurrency, its gate and its breaker; what waits is
shared. So a refusal or an outage holds up one endpoint, and the others go on. The invariant of a limiter holds for each
of them, and for the whole: while a row waits and an endpoint would accept it, one is sent.

An endpoint is *down* in an outage; it is probed as long as another one works. It is *spent* while it asks for a
longer pause than ``--max-wait`` allows. It is *out*, for this run, once it has refused key, model or URL, or rejected
rows that others answered. Where none is left that works, or that may have the rows that wait, the run ends as it does
with one endpoint.
"""

import math
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Generic

from batchllm.errors import Unavailable
from batchllm.limiter.breaker import NEVER_WORKED_S
from batchllm.limiter.dispatcher import Limiter
from batchllm.limiter.exclusion import Exclusion
from batchllm.limiter.last_rows import LOOK_S, LastRows
from batchllm.limiter.queue import LOOK_AHEAD, Queue, QueuedItem
from batchllm.limiter.route import EndpointState, Route, Target, all_down_since, stands_still, unavailable
from batchllm.limiter.shared_queue import PREFER_S, TOO_LARGE, QueueView, R
from batchllm.limiter.terms import Cost, Poll, View
from batchllm.limiter.view import merged
from batchllm.records import Usage
from batchllm.retry import Verdict

SPENT_S = 5.0
"""How often an endpoint is asked again that asks for too long a pause."""

_load = attrgetter("load")


@dataclass(eq=False)
class EndpointRouter(Generic[R]):
    """The limiter of a run that has several endpoints; its calls are those of ``Limiter``.

    Args:
        targets: The endpoints.
        now: The time now, on the clock of every later ``now``.
        max_outage_s: How long all endpoints may be down.
        learned: What an earlier run returned from ``learned()``.
        rng: Source of jitter.
        leased: The limits are leased; see ``Limiter``.

    Attributes:
        left: How many requests are left to be sent; whoever drives the router says it near the end.
        excluded: Takes endpoints out, and tells the user.
    """

    targets: Sequence[Target]
    now: float = field(kw_only=True)
    max_outage_s: float = field(kw_only=True)
    learned_before: Mapping[str, Any] | None = None
    rng: random.Random = field(default_factory=random.Random)
    leased: bool = field(default=False, kw_only=True)
    left: float = field(default=math.inf, init=False)

    def __post_init__(self) -> None:
        self._queues: dict[str, Queue[R]] = {}
        self._offered = 0
        self._kept = kept = self.learned_before or {}
        of_each = kept.get("endpoints", {})
        usual = {"lanes": kept.get("lanes", {})}  # of a run with one endpoint
        self._routes = [
            Route(
                number,
                target,
                self._limiter(number, target, of_each.get(target.name, {} if number else usual)),
            )
            for number, target in enumerate(self.targets)
        ]
        self.excluded: Exclusion[R] = Exclusion(self._routes, self._queues)
        self._last_rows = LastRows()

    def _limiter(self, number: int, target: Target, learned: Mapping[str, Any]) -> Limiter[R]:
        return Limiter(
            target.pace,
            charge=target.charge,
            now=self.now,
            learned=learned,
            rng=random.Random(self.rng.random()),
            queue_of=lambda lane: QueueView(self._queue(lane), number, self._has_others, self._is_spared),
            gives_up=False,
            leased=self.leased,
        )

    def _queue(self, lane: str) -> Queue[R]:
        if lane not in self._queues:
            self._queues[lane] = Queue()
        return self._queues[lane]

    @property
    def waiting(self) -> int:
        """The number of items that are offered and not granted."""
        return sum([len(queue) for queue in self._queues.values()])

    def look_again(self) -> None:
        """Asks each endpoint with the next ``poll``, because its limits have changed."""
        for route in self._routes:
            route.ready = True

    def limiter_of(self, name: str) -> Limiter[R]:
        """Returns the limiter of an endpoint."""
        return next(route.limiter for route in self._routes if route.target.name == name)

    def outage_of(self, item: R) -> bool:
        """Whether the endpoint that an item went to is down; a failure then does not count as an attempt."""
        return self._routes[item.endpoint].limiter.outage

    def named(self, item: R, message: str) -> str:
        """Returns what an item's endpoint said with its name, and what the others said that have answered nothing."""
        said = {each.target.name: each.out or each.rejection for each in self._routes if not each.answers}
        said[self._routes[item.endpoint].target.name] = message
        return "; ".join(f"{name}: {why}" for name, why in said.items() if why)

    def offer(self, item: R, cost: Cost, *, lane: str, again: bool = False, not_before: float = 0.0) -> None:
        """Queues an item; see ``Limiter.offer``. One that failed prefers another endpoint, and waits less for it."""
        if again and not_before:
            not_before = self._prefers_another(item, not_before)
        if item.away:
            self.excluded.let_go_somewhere(item)
        self._offered += 1
        queue = self._queue(lane)
        deferred = again and not any(route.works for route in self._routes)
        queue.push(
            QueuedItem(item, cost, lane, self._offered), again=again, not_before=not_before, deferred=deferred
        )
        if again or len(queue) <= LOOK_AHEAD:
            for route in self._routes:
                route.limiter.lane(lane).look_again()
                route.ready = True

    def _prefers_another(self, item: R, not_before: float) -> float:
        """Keeps a failed item away from its endpoint a while longer than its backoff; returns when that ends."""
        now, away, failed_at = self.now, item.away, item.endpoint
        others = [
            route.number
            for route in self._routes
            if route.works and route.number != failed_at and away.get(route.number, 0.0) < TOO_LARGE
        ]
        if not others:
            return not_before
        if any(away.get(number, now) <= now for number in others):
            not_before = min(not_before, now + PREFER_S)  # a backoff spares the endpoint that failed
        kept = {
            number: until if until >= TOO_LARGE else min(until, not_before) for number, until in away.items()
        }
        item.away = {**kept, failed_at: max(kept.get(failed_at, 0.0), not_before + PREFER_S)}
        return not_before

    def _has_others(self, item: R, number: int) -> bool:
        """Whether another endpoint works, and the item is not kept away from it."""
        return any(True for _ in self._others(item, number))

    def _is_spared(self, item: R, number: int) -> bool:
        """Whether an item that has failed is no probe of this endpoint, which is down: another one takes it now."""
        return not self._routes[number].works and any(
            not route.limiter.lane(item.lane).gate.closed for route in self._others(item, number)
        )

    def _others(self, item: R, number: int) -> Iterator[Route[R]]:
        """Yields the other endpoints that work, and from which the item is not kept away."""
        now, away = self.now, item.away
        for route in self._routes:
            if route.works and route.number != number and away.get(route.number, now) <= now:
                yield route

    def poll(self, now: float) -> Poll[R]:
        """Returns which items may be sent now, each with its ``endpoint``, and when to ask again.

        Raises:
            Unavailable: No endpoint is left: each is out, asks for too long a pause, or is down, all of them for longer
                than ``--max-outage``.
        """
        self.now = now
        grants: list[R] = []
        too_large: list[tuple[R, str]] = []
        waiting = self.waiting
        wake = self._last_rows.look(now, self.left, self._routes) if self.left < math.inf else math.inf
        held = self._held(now)
        ready = [
            route
            for route in self._routes
            if (route.ready or route.wake_at <= now) and not route.out and route.number not in held
        ]
        while ready and waiting:
            route = min(ready, key=_load) if len(ready) > 1 else ready[0]
            most = max(1, waiting // (2 * len(ready)))
            try:
                poll = route.limiter.poll(now, most)
            except Unavailable as error:
                route.spent, route.ready, route.wake_at = str(error), False, now + SPENT_S
                ready.remove(route)
                continue
            route.spent = ""
            if poll.grants:
                self._granted(route, poll.grants)
                grants += poll.grants
                waiting -= len(poll.grants)
            if poll.too_large:
                for item, why in poll.too_large:
                    self._too_large(route, item, why, too_large)
                waiting = self.waiting
            route.wake_at = math.inf if poll.wake_at is None else poll.wake_at
            if len(poll.grants) < most and not poll.too_large:
                route.ready = False
                ready.remove(route)
        if grants or not waiting:
            self._last_rows.moved(now)
        if not waiting:
            return Poll(grants, None, too_large)
        for route in self._routes:
            if route.wake_at < wake and not route.out and route.number not in held:
                wake = route.wake_at
        if len(held) > len(self._last_rows.held):
            wake = min(wake, now + LOOK_S)
        if stands_still(self._routes, self._queues.values()):
            wake = min(wake, self._none_works(now))
        return Poll(grants, None if wake == math.inf else max(now, wake), too_large)

    def _held(self, now: float) -> Collection[int]:
        """Returns the endpoints that get nothing for now."""
        held: Collection[int] = self._last_rows.held
        for route in self._routes:
            if route.useless and self.excluded.holds(now, route):
                held = {*held, route.number}
        return held

    def _granted(self, route: Route[R], items: Sequence[R]) -> None:
        route.first_at = route.first_at or self.now
        route.last_at = self.now
        route.attempts += len(items)
        for item in items:
            item.endpoint = route.number

    def _too_large(self, route: Route[R], item: R, why: str, too_large: list[tuple[R, str]]) -> None:
        """Keeps an item away from an endpoint whose limit it exceeds; it fails where every limit is too low."""
        item.away = {**item.away, route.number: TOO_LARGE}
        if all(other.out or item.away.get(other.number, 0.0) >= TOO_LARGE for other in self._routes):
            too_large.append((item, why))
        else:
            self.offer(item, item.cost, lane=item.lane, again=True)

    def _none_works(self, now: float) -> float:
        """Returns until when endpoints that are all down may stay so.

        Raises:
            Unavailable: They have been down for too long, or there is none that could come back.
        """
        left = [route for route in self._routes if not route.out]
        since = all_down_since(left)
        gives_up_at = now if since is None else since + self._longest_outage_s
        if now < gives_up_at:
            return gives_up_at
        if any(route.limiter.breaker.probing for route in left):
            return math.inf  # the last probe decides
        raise unavailable(now, left)

    @property
    def _longest_outage_s(self) -> float:
        worked = any(route.answers for route in self._routes)
        return self.max_outage_s if worked else min(self.max_outage_s, NEVER_WORKED_S)

    def received(self, item: R) -> None:
        """Records that an answer has arrived and is not read yet; see ``Limiter.received``."""
        route = self._routes[item.endpoint]
        route.limiter.received(item)
        route.ready = True

    def answered(self, now: float, item: R, headers: Mapping[str, str], usage: Usage | None) -> None:
        """Records that an item got a response of status 2xx."""
        self.now = now
        route = self._routes[item.endpoint]
        route.ready = True
        route.answers += 1
        route.ended_at, route.failed_after_s = now, 0.0
        route.limiter.answered(now, item, headers, usage)
        self.excluded.answered(item)

    def asks_elsewhere(self, item: R, verdict: Verdict) -> bool:
        """Decides whether a rejected item goes to another endpoint, since the fault may be this endpoint's own.

        An endpoint that refuses the key, or has no quota left, is out. What may be the row's own fault is asked
        elsewhere as long as the endpoint has answered nothing, or nothing since it last rejected some rows; where
        others answer what it rejects, it is out too.

        Args:
            item: The item; ``failed`` and ``released`` are called for it before it is offered again.
            verdict: What the endpoint said: ``REJECTED`` or ``FATAL``.
        """
        return self.excluded.asks_elsewhere(item, verdict)

    def refused(self, now: float, item: R, verdict: Verdict, headers: Mapping[str, str]) -> None:
        """Records that an endpoint refused an item for a limit; it waits alone, and the item may go to another."""
        self.now = now
        route = self._routes[item.endpoint]
        route.refusals += 1
        route.ended_at = now
        route.limiter.refused(now, item, verdict, headers)
        for other in self._routes:
            other.ready = True

    def failed(self, now: float, item: R, verdict: Verdict, headers: Mapping[str, str]) -> None:
        """Records that an attempt brought no answer and was not refused."""
        self.now = now
        route = self._routes[item.endpoint]
        route.failures += 1
        route.ready = True
        route.failed_after_s = max(route.failed_after_s, route.limiter.silent_s(now, route.ended_at))
        route.ended_at = now
        route.limiter.failed(now, item, verdict, headers)

    def released(self, now: float, item: R) -> None:
        """Frees an item's slot."""
        route = self._routes[item.endpoint]
        route.ready = True
        route.limiter.released(now, item)

    def recovered(self, now: float, item: R) -> None:
        """A request beside the queue was answered by the endpoint of an item, so that one is not down."""
        self.now = now
        route = self._routes[item.endpoint]
        route.ready = True
        route.limiter.recovered(now, item)

    def states(self, now: float) -> list[EndpointState]:
        """Returns what each endpoint did so far."""
        return [route.state(now) for route in self._routes]

    def view(self, now: float) -> View:
        """Returns the state of all endpoints together: a pause or an outage only where none of them gets on."""
        still = stands_still(self._routes, self._queues.values()) and self.waiting > 0
        working = [] if still else [state.view for state in self.states(now) if state.state == "works"]
        others = [state.view for state in self.states(now) if state.state in ("waits", "down")]
        since = all_down_since(self._routes)
        gives_up_at = None if since is None else since + self._longest_outage_s
        return merged(working, others, waiting=self.waiting, gives_up_at=gives_up_at)

    def learned(self) -> dict[str, Any]:
        """Returns what the job's next run should know, by endpoint; JSON-able."""
        found = {route.target.name: route.limiter.learned() for route in self._routes}
        return {**self._kept, "endpoints": {**self._kept.get("endpoints", {}), **found}}
