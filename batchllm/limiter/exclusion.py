"""Takes endpoints out of a run that refuse it, reject what others answer, or answer what is of no use.

An endpoint that refuses key, model or URL is out at once. One that rejects rows is out after others have answered three
of them. One whose answers are all of no use, as those of others are not, is a trap: it answers fast, so it is idle,
and idle endpoints get the rows. After twelve such answers in a row it gets nothing until the others have answered as
many rows, or for half a minute at most; where theirs are of use, it is out.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic

from batchllm.limiter.queue import Queue
from batchllm.limiter.route import Route
from batchllm.limiter.shared_queue import REJECTED, TOO_LARGE, R
from batchllm.printable import counted
from batchllm.retry import Disposition, Verdict, may_concern_one_row

WRONGLY_REJECTED = 3
"""An endpoint is taken out after it rejected this many rows that others answered, with no answer of its own between."""
USELESS = 12
"""So many answers in a row that are of no use are compared with as many of the others."""
OF_USE = 0.9
"""The share of the others' answers that is of use, for the endpoint to be at fault and not the rows."""
HELD_S = 30.0
"""How long an endpoint waits for the others' answers."""


@dataclass(eq=False)
class Exclusion(Generic[R]):
    """Decides which endpoints are out for this run.

    Args:
        routes: The endpoints.
        queues: What waits, by model.

    Attributes:
        news: Sentences about endpoints that were taken out; whoever shows them removes them.
    """

    routes: Sequence[Route[R]]
    queues: Mapping[str, Queue[R]]
    news: list[str] = field(default_factory=list, init=False)

    def answered(self, item: R) -> None:
        """Records that an endpoint has answered an item, which others may have rejected."""
        route = self.routes[item.endpoint]
        route.rejected = route.wrongly_rejected = 0
        for number, until in item.away.items() if item.away else ():
            if until == REJECTED:
                other = self.routes[number]
                other.wrongly_rejected += other.rejected > 0
                if other.wrongly_rejected >= WRONGLY_REJECTED and not other.out:
                    self._take_out(other, other.rejection)

    def judged(self, now: float, item: R, error: str | None) -> bool:
        """Records whether an answer is of use; returns whether it says anything about the job, and not the endpoint.

        Args:
            now: The time now.
            item: The item.
            error: Why it is of no use; ``None`` if it is.
        """
        route = self.routes[item.endpoint]
        if error is None:
            route.useful, route.useless, route.held_until = route.useful + 1, 0, -math.inf
            return True
        is_doubted = bool(route.out) or route.held_until > now
        route.useless += 1
        route.all_useless += 1
        others = [other for other in self.routes if other is not route]
        if route.useless == 1:
            route.others_before = _counts(others)
        if route.useless % USELESS == 0 and any(other.works for other in others):
            route.held_until = now + HELD_S
            route.trouble = error
        return not is_doubted

    def holds(self, now: float, route: Route[R]) -> bool:
        """Whether an endpoint gets nothing for now, since its answers are of no use; takes it out where it is sure."""
        if route.held_until <= now:
            return False
        others = [other for other in self.routes if other is not route]
        useful, useless = (
            count - before for count, before in zip(_counts(others), route.others_before, strict=True)
        )
        if useful + useless >= USELESS:
            route.held_until = -math.inf
            if useful >= OF_USE * (useful + useless):
                self._take_out(route, f"its answers are of no use: {route.trouble}")
            return False
        return any(other.works for other in others)

    def asks_elsewhere(self, item: R, verdict: Verdict) -> bool:
        """Decides whether a rejected item goes to another endpoint; see ``EndpointRouter.asks_elsewhere``."""
        route = self.routes[item.endpoint]
        route.rejected += 1
        route.rejection = verdict.message
        others = [other for other in self.routes if not (other.out or other is route)]
        is_fatal = verdict.disposition is Disposition.FATAL
        is_sure = not may_concern_one_row(verdict) or (verdict.reason == "http_401" and not route.answers)
        if is_fatal and is_sure and others:
            self._take_out(route, verdict.message)
        item.away = {**item.away, route.number: REJECTED}
        may_be_its_own = is_fatal or not route.answers or route.rejected > WRONGLY_REJECTED
        left = [other for other in others if item.away.get(other.number, 0.0) < TOO_LARGE]
        return bool(left) and (bool(route.out) or may_be_its_own)

    def _take_out(self, route: Route[R], why: str) -> None:
        """Sends nothing more to an endpoint in this run."""
        if route.out:  # what ends there later says nothing new
            return
        route.out = why
        left = sum(not other.out for other in self.routes)
        self.news.append(f"{route.target.name} is left out ({why}); {counted(left, 'endpoint')} left.")
        for queue in self.queues.values():
            for queued in queue.look_at_tried():
                self.let_go_somewhere(queued.item)
        for other in self.routes:
            other.ready = True

    def let_go_somewhere(self, item: R) -> None:
        """Lets an item that no endpoint in the run may have go to each of them again."""
        if all(route.out or item.away.get(route.number, 0.0) >= TOO_LARGE for route in self.routes):
            item.away = {}


def _counts(routes: Iterable[Route[R]]) -> tuple[int, int]:
    """Returns how many answers were of use, and of no use."""
    every = list(routes)
    return sum(route.useful for route in every), sum(route.all_useless for route in every)
