"""Random worlds of workers and holders of leases, in virtual time.

Workers and holders have clocks with any offset that go a little too fast or too slowly; messages are late, lost, and
overtake each other; workers die, leave and join; the holder dies and is born again; limits and demands change. What
holds is judged by what workers believe, in true time.
"""

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from batchllm.budget.budget import NOTHING, Amount, BudgetLimits
from batchllm.leases import Lease, LeaseHolder, LeaseRequest, Use
from batchllm.leases.client import WHOLE, LeaseClient
from batchllm.leases.leased_budget import LeasedBudget
from batchllm.leases.messages import MARGIN, RENEW_S
from batchllm.leases.shares import CATCH_UP_S

KEY = "endpoint model"
TIMEOUT_S = 3.0
DRIFT = 0.4 * MARGIN


@dataclass
class Clock:
    """A monotonic clock of its own."""

    offset: float
    speed: float

    def at(self, true_s: float) -> float:
        return self.offset + self.speed * true_s

    def true(self, local_s: float) -> float:
        return (local_s - self.offset) / self.speed


@dataclass
class Worker:
    client: LeaseClient
    clock: Clock
    demand: float | None
    alive: bool = True
    cut_off: bool = False
    answered: bool = True
    whole: int = 0
    sent: int = 0
    since: float = 0.0
    served: list[float] = field(default_factory=list)
    budget: LeasedBudget | None = None
    bound: Amount = NOTHING
    ended: bool = False

    def rate(self, true_s: float) -> float:
        rate = self.client.holds(self.clock.at(true_s), KEY)[0] if self.alive else 0.0
        return float("inf") if rate is None else rate

    def until(self) -> float:
        return self.clock.true(self.client.until.get(KEY, self.clock.at(0.0)))


class World:
    """One world.

    Args:
        seed: Decides everything that happens.
        limit: Requests a minute.
        workers: How many there are at first.
        calm_after: From then on nothing dies, is lost, or changes.
        ttl_s: How long a lease lasts.
        budget: What all may spend together.
        make: Makes a holder.
    """

    def __init__(
        self,
        seed: int,
        *,
        limit: float,
        workers: int,
        calm_after: float = 60.0,
        ttl_s: float = 10.0,
        budget: BudgetLimits | None = None,
        make: Callable[..., LeaseHolder] = LeaseHolder,
    ) -> None:
        self.rng = random.Random(seed)
        self.limit = limit
        self.ttl_s = ttl_s
        self.calm_after = calm_after
        self.budget = budget
        self.saved: Any = None
        self.make = make
        self.now = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.order = itertools.count()
        self.workers: list[Worker] = []
        self.holder: LeaseHolder | None = None
        self.holder_clock = self.clock()
        self.limits = [(0.0, limit)]
        self.most_over = 0.0
        self.used = 0.0  # the requests that could have been sent
        self.least = 0.0
        self.granted_since_calm = 0.0
        self.most_paid = NOTHING
        self.most_burst = 0.0
        self.born(restarted=False)
        self.later(self.rng.expovariate(0.3), self.disturb)
        for _ in range(workers):
            self.join()

    def clock(self) -> Clock:
        return Clock(self.rng.uniform(-1e6, 1e6), 1.0 + self.rng.uniform(-DRIFT, DRIFT))

    def later(self, delay_s: float, do: Callable[[], None]) -> None:
        heapq.heappush(self.events, (self.now + delay_s, next(self.order), do))

    @property
    def calm(self) -> bool:
        return self.now >= self.calm_after

    # --- what happens ---

    def born(self, *, restarted: bool) -> None:
        self.holder_clock = self.clock()
        self.holder = self.make(
            self.holder_clock.at(self.now),
            budget=self.budget,
            saved=self.saved,
            restarted=restarted,
            ttl_s=self.ttl_s,
        )

    def join(self) -> None:
        demand = None if self.rng.random() < 0.7 else self.rng.uniform(0.0, self.limit)
        worker = Worker(LeaseClient(f"worker {len(self.workers)}"), self.clock(), demand, since=self.now)
        self.workers.append(worker)
        if self.budget is not None:
            worker.budget = LeasedBudget(self.budget)
            self.later(self.rng.random(), lambda: self.pay(worker))
        self.later(self.rng.uniform(0.0, 1.0), lambda: self.ask(worker))

    def ask(self, worker: Worker) -> None:
        if not worker.alive:
            return
        local = worker.clock.at(self.now)
        holds_rpm, holds_tpm = worker.client.holds(local, KEY)
        use = Use(limit_rpm=self.limit, demand_rpm=worker.demand, holds_rpm=holds_rpm, holds_tpm=holds_tpm)
        budget = None if worker.budget is None else worker.budget.ask()
        request = worker.client.ask(local, {KEY: use}, budget)
        worker.answered = False
        copies = 1 if self.calm or self.rng.random() < 0.9 else self.rng.choice([0, 2])
        for _ in range(0 if worker.cut_off else copies):
            self.later(self.delay(), lambda: self.arrives(worker, request))
        self.later(TIMEOUT_S, lambda: self.again(worker, request.number))

    def again(self, worker: Worker, number: int) -> None:
        if worker.client.number == number and not worker.answered:
            self.ask(worker)

    def delay(self) -> float:
        if self.calm or self.rng.random() < 0.9:
            return self.rng.uniform(0.001, 0.05)
        return self.rng.choice([0.5, 2.0, 5.0, 15.0]) * self.rng.random()

    def arrives(self, worker: Worker, request: LeaseRequest) -> None:
        if self.holder is None:
            return
        lease = self.holder.renew(request, self.holder_clock.at(self.now))
        if self.holder.changed:
            self.saved = self.holder.saved()
        if not request.leaving:
            self.later(self.delay(), lambda: self.answer(worker, lease))

    def answer(self, worker: Worker, lease: Lease) -> None:
        if not worker.alive or worker.cut_off or worker.answered or not worker.client.take(lease):
            return
        worker.answered = True
        if worker.budget is not None and lease.budget is not None:
            worker.budget.take(lease.budget)
        share = lease.shares.get(KEY)
        worker.whole = 0
        if share is not None and share.requests and worker.until() > self.now:
            self.used += share.requests
            worker.sent += share.requests
            worker.served.append(self.now)
        self.judge()
        self.later(lease.renew_s, lambda: self.ask(worker))

    def disturb(self) -> None:
        if self.calm:
            return
        self.later(self.rng.expovariate(0.3), self.disturb)
        what = self.rng.choice(["die", "leave", "join", "cut", "mend", "holder", "demand", "limit", "slow"])
        alive = [worker for worker in self.workers if worker.alive]
        worker = self.rng.choice(alive) if alive else None
        if what == "join" and len(alive) < 12:
            self.join()
        elif what == "holder":
            self.holder = None
            self.later(self.rng.choice([0.1, 3.0, 12.0]), self.restarted)
        elif what == "limit":
            self.limit *= self.rng.choice([0.5, 2.0, 1.1])
            self.limits.append((self.now, self.limit))
        elif worker is None:
            return
        elif what == "die" and len(alive) > 1:
            worker.alive = False
        elif what == "leave" and len(alive) > 1:
            self.leave(worker)
        elif what == "cut":
            worker.cut_off = True
        elif what == "mend":
            worker.cut_off = False
        elif what == "demand":
            worker.demand = self.rng.choice([None, None, 0.0, self.rng.uniform(0.0, self.limit)])

    def leave(self, worker: Worker) -> None:
        budget = None if worker.budget is None else worker.budget.ask()
        request = worker.client.ask(worker.clock.at(self.now), {}, budget, leaving=True)
        worker.alive = False
        self.later(self.delay(), lambda: self.arrives(worker, request))

    def restarted(self) -> None:
        if self.holder is None:
            self.born(restarted=True)

    def pay(self, worker: Worker) -> None:
        """A request leaves if the worker's lease lives and the budget has room; it takes no more than its bound."""
        budget = worker.budget
        assert budget is not None
        if not worker.alive or worker.ended:
            return
        self.later(self.rng.expovariate(2.0), lambda: self.pay(worker))
        if worker.until() <= self.now:
            return
        if worker.bound == NOTHING:
            worker.bound = Amount(1, self.rng.randint(1, 50), Decimal(self.rng.randint(1, 50)) / 1000)
        bound = worker.bound
        if budget.reserve(bound):
            worker.bound = NOTHING
            share = self.rng.random()
            taken = Amount(1, int(bound.tokens * share), bound.cost * Decimal(share))
            self.later(self.rng.expovariate(1.0), lambda: self.lands(worker, bound, taken))
        elif budget.final and budget.reserved == NOTHING:
            worker.ended = True
            self.leave(worker)

    def lands(self, worker: Worker, bound: Amount, taken: Amount) -> None:
        if worker.alive and worker.budget is not None:
            worker.budget.release(bound, taken)

    def paid(self) -> Amount:
        """What all have spent, and may have spent."""
        budgets = [worker.budget for worker in self.workers if worker.budget is not None]
        return sum((budget.spent + budget.reserved for budget in budgets), NOTHING)

    # --- what holds ---

    def limit_in_force(self) -> float:
        """The highest limit whose leases may still live; requests on their way may be older than a lease."""
        horizon = self.now - 2.5 * self.ttl_s - 15.0
        return max(
            limit
            for place, (since, limit) in enumerate(self.limits)
            if place + 1 == len(self.limits) or self.limits[place + 1][0] > horizon
        )

    def judge(self) -> None:
        total = sum(worker.rate(self.now) for worker in self.workers)
        self.most_over = max(self.most_over, total / self.limit_in_force() - 1.0)

    def spend(self, until: float) -> None:
        """Adds up what the rates let through until then, and compares it with the limit over every span."""
        edges = sorted(
            {until, *(edge for worker in self.workers if self.now < (edge := worker.until()) < until)}
        )
        for edge in edges:
            middle = (self.now + edge) / 2.0
            rate = sum(worker.rate(middle) for worker in self.workers) / 60.0
            elapsed_s = edge - self.now
            self.used += (rate - self.limit_in_force() / 60.0 * (1.0 + 2.0 * DRIFT)) * elapsed_s
            if self.calm:
                self.granted_since_calm += rate * elapsed_s
            self.now = edge
            self.least = min(self.least, self.used)

    @property
    def burst(self) -> float:
        """The most requests beyond the limit, over any span."""
        return self.used - self.least

    def run(self, until: float) -> "World":
        while self.events and self.events[0][0] <= until:
            at, _, do = heapq.heappop(self.events)
            self.spend(at)
            do()
            if self.budget is not None:
                paid, most = self.paid(), self.most_paid
                self.most_paid = Amount(
                    max(paid.requests, most.requests),
                    max(paid.tokens, most.tokens),
                    max(paid.cost, most.cost),
                )
            allowed = 1.0 + (CATCH_UP_S + WHOLE * RENEW_S) * self.limit_in_force() / 60.0
            self.most_burst = max(self.most_burst, self.burst - allowed)
        self.spend(until)
        return self

    def settle(self) -> None:
        """Nothing is cut off, and there is a holder."""
        for worker in self.workers:
            worker.cut_off = False
        if self.holder is None:
            self.born(restarted=True)
