"""Runs under leases in virtual time: the real loop, limiter, budget and holder, and fake clients."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from batchllm.answer import Reader
from batchllm.budget.budget import BudgetLimits, BudgetMeter
from batchllm.counters import RunCounters
from batchllm.errors import BudgetStop, JobError, Unavailable
from batchllm.journal import Journal
from batchllm.leases import Lease, LeaseHolder, LeaseRequest, Leases
from batchllm.leases.leased_budget import LeasedBudget
from batchllm.limiter import EndpointRouter, Limiter, Target
from batchllm.online.loop import OnlineLoop
from batchllm.plan.work_item import WorkItem
from batchllm.records import ChatRequest, Pace, Response
from batchllm.retry import RetryPolicy
from batchllm.runner.leased import LeaseLoop, leased
from batchllm.stopping import RunStop
from batchllm.template import AnswerSpec
from tests.fakes import FakeClient, answered, status
from tests.virtual_time import run_virtual

Renew = Callable[[LeaseRequest], Awaitable[Lease]]


class Workers:
    """Runs that share a holder.

    Attributes:
        targets: Several endpoints; empty is one.
        silent: From when until when the holder does not answer.
        holder: The holder; made when the first worker asks.
        ends: What stopped each run; ``None``: it finished.
    """

    def __init__(self, folder: Path, *, pace: Pace, limits: BudgetLimits | None = None) -> None:
        self.folder = folder
        self.pace = pace
        self.limits = limits or BudgetLimits()
        self.targets: tuple[Target, ...] = ()
        self.silent = (1e9, 1e9)
        self.holder: LeaseHolder | None = None
        self.ends: list[JobError | None] = []
        self.clients: list[FakeClient] = []

    async def renew(self, request: LeaseRequest) -> Lease:
        now = asyncio.get_running_loop().time()
        await asyncio.sleep(0.003)
        if self.silent[0] <= now < self.silent[1]:
            raise ConnectionError("refused")
        if self.holder is None:
            self.holder = LeaseHolder(now, budget=self.limits)
        return self.holder.renew(request, now)

    @property
    def sent(self) -> list[float]:
        """When requests were sent, by all together."""
        return sorted(at for client in self.clients for at, _ in client.sent)

    def run(self, *rows: int, clients: Sequence[FakeClient] = ()) -> "Workers":
        """Runs workers with so many rows each side by side."""
        self.clients = list(clients) or [FakeClient(latency_s=0.3) for _ in rows]

        async def all_runs() -> None:
            runs = [self._one(place, count) for place, count in enumerate(rows)]
            self.ends = await asyncio.gather(*runs)

        run_virtual(all_runs())
        return self

    async def _one(self, place: int, rows: int) -> JobError | None:
        loop = asyncio.get_running_loop()
        journal = Journal.open(self.folder / f"{place}.journal", threaded=False)
        journal.begin_plan("plan")
        now = loop.time()
        limiter: Limiter[WorkItem] | EndpointRouter[WorkItem]
        if self.targets:
            limiter = EndpointRouter(self.targets, now=now, max_outage_s=60.0, leased=True)
            limiters = {
                target.name: (limiter.limiter_of(target.name), target.pace) for target in self.targets
            }
        else:
            limiter = Limiter(self.pace, charge="max_tokens", now=now, leased=True)
            limiters = {"e": (limiter, self.pace)}
        meter = BudgetMeter(LeasedBudget(self.limits))

        async def batches() -> AsyncIterator[Sequence[WorkItem]]:
            requests = [ChatRequest(i, i.to_bytes(16), b"{}", "m", 10, 20) for i in range(rows)]
            admitted = await journal.admit([(request.row_index, request.key, None) for request in requests])
            yield [
                WorkItem(request, entry.request_id or 0, Reader(AnswerSpec("response")))
                for request, entry in zip(requests, admitted, strict=True)
            ]

        stop = RunStop()
        online = OnlineLoop(
            client=self.clients[place], limiter=limiter, journal=journal, retry=RetryPolicy(5, random.Random(1)),
            counters=RunCounters(rows=rows), meter=meter, run_stop=stop,
            others=[self.clients[place]] * (len(self.targets) - 1),
        )  # fmt: skip

        def wake() -> None:
            if isinstance(limiter, EndpointRouter):
                limiter.look_again()
            online.wake()

        leases = Leases(renew=self.renew, worker=f"worker {place}")
        renewing = LeaseLoop(leases, limiters, meter.budget, wake, stop)
        online.all_sent = renewing.all_sent
        try:
            async with leased(renewing):
                await online.run(batches())
        except JobError as error:
            return error
        finally:
            journal.close(None)
        return None


@pytest.fixture
def paced(tmp_path: Path) -> Workers:
    return Workers(tmp_path, pace=Pace(requests_per_minute=600, concurrency=50))


def test_three_runs_hold_one_limit_and_none_starves(paced: Workers) -> None:
    paced.run(60, 60, 60)
    assert paced.ends == [None, None, None]
    assert paced.sent[-1] - paced.sent[0] == pytest.approx(18.0, rel=0.1)
    middles = [client.sent[30][0] for client in paced.clients]
    assert max(middles) - min(middles) < 6.0, "whoever comes first has everything for two seconds"
    for at, later in zip(paced.sent, paced.sent[50:], strict=False):
        assert later - at >= (50 - 3) / 10.0


def test_two_limits_at_once_are_divided_so_that_the_lower_one_is_used(tmp_path: Path) -> None:
    workers = Workers(tmp_path, pace=Pace(requests_per_minute=600, tokens_per_minute=24_000, concurrency=50))
    workers.run(60, 60, 60)
    assert workers.sent[-1] - workers.sent[0] == pytest.approx(18.0, rel=0.12)


def test_each_endpoint_has_a_limit_of_its_own_for_all_runs(paced: Workers) -> None:
    paced.targets = tuple(
        Target(name, Pace(requests_per_minute=rpm, concurrency=50), "max_tokens")
        for name, rpm in (("a", 300), ("b", 600))
    )
    paced.run(90, 90)
    assert paced.ends == [None, None]
    assert paced.sent[-1] - paced.sent[0] == pytest.approx(180 / 15.0, rel=0.15)


def test_a_holder_that_dies_and_is_born_again_costs_nothing(paced: Workers) -> None:
    real = paced.renew
    died: list[float] = []

    async def renew(request: LeaseRequest) -> Lease:
        now = asyncio.get_running_loop().time()
        if now > 8.0 and not died:
            died.append(now)
            paced.holder = LeaseHolder(now, restarted=True)
        return await real(request)

    paced.renew = renew  # type: ignore[method-assign]
    paced.run(90, 90)
    around = [at for at in paced.sent if 5.0 <= at < 15.0]
    assert died
    assert len(around) == pytest.approx(100, abs=4)


def test_a_run_that_ends_gives_its_share_to_the_others_at_once(paced: Workers) -> None:
    paced.run(20, 130)
    end = paced.clients[0].sent[-1][0]
    after = [at for at, _ in paced.clients[1].sent if end + 3.0 < at < end + 8.0]
    assert len(after) == pytest.approx(50, abs=3)


def test_a_run_that_waits_for_its_last_answers_gives_its_share_to_the_others(paced: Workers) -> None:
    paced.run(20, 130, clients=[FakeClient(latency_s=6.0), FakeClient(latency_s=0.3)])
    end = paced.clients[0].sent[-1][0]
    after = [at for at, _ in paced.clients[1].sent if end + 1.5 < at < end + 5.5]
    assert len(after) == pytest.approx(40, abs=2)


def test_nothing_leaves_once_the_lease_has_ended_and_the_run_goes_on_with_the_next(paced: Workers) -> None:
    paced.silent = (1.0, 40.0)
    paced.run(120)
    assert paced.ends == [None]
    assert not [at for at in paced.sent if 1.0 + 9.6 < at < 40.0]
    assert [at for at in paced.sent if 9.0 < at < 10.0], "up to then it goes on"


def test_a_run_ends_when_the_holder_is_silent_for_longer_than_an_outage_may_last(tmp_path: Path) -> None:
    workers = Workers(tmp_path, pace=Pace(requests_per_minute=600, max_outage_s=30.0))
    workers.silent = (0.0, 1e9)
    workers.run(10)
    assert isinstance(workers.ends[0], Unavailable)
    assert "has not answered" in str(workers.ends[0])
    assert workers.sent == []


def test_an_error_of_the_loop_itself_ends_the_run(paced: Workers) -> None:
    async def renew(request: LeaseRequest) -> Lease:
        return object()  # type: ignore[return-value]

    paced.renew = renew  # type: ignore[method-assign]
    with pytest.raises(AttributeError):
        paced.run(10)


@pytest.mark.parametrize("steps", range(6))
def test_a_run_ends_when_the_lease_comes_at_the_same_moment(steps: int) -> None:
    async def ends() -> None:
        come = asyncio.get_running_loop().create_future()
        asked = asyncio.Event()

        async def renew(request: LeaseRequest) -> Lease:
            asked.set()
            if not request.leaving:
                await come
            return Lease(number=request.number, ttl_s=10.0, renew_s=1.0)

        limiter: Limiter[WorkItem] = Limiter(Pace(), charge="max_tokens", now=0.0, leased=True)
        leases = LeaseLoop(
            Leases(renew=renew, worker="w"),
            {"e": (limiter, Pace())},
            BudgetMeter(None).budget,
            lambda: None,
            RunStop(),
        )
        async with asyncio.timeout(60.0), leased(leases):
            await asked.wait()
            come.set_result(None)
            for _ in range(steps):
                await asyncio.sleep(0)

    run_virtual(ends())


def test_the_message_about_a_silent_holder_is_one_line_without_the_traceback_of_another_process(
    tmp_path: Path,
) -> None:
    async def renew(request: LeaseRequest) -> Lease:
        raise ValueError("Traceback of the actor:\n  File 'x.py', line 3\nCannotWrite: the folder is full")

    workers = Workers(tmp_path, pace=Pace(requests_per_minute=600, max_outage_s=30.0))
    workers.renew = renew  # type: ignore[method-assign]
    workers.run(10)
    assert "s (ValueError: CannotWrite: the folder is full); the same command" in str(workers.ends[0])


def test_a_refusal_at_one_run_pauses_the_others(paced: Workers) -> None:
    refused_at: list[float] = []

    def refuse_once(request: ChatRequest, attempt: int) -> Response:
        if request.row_index == 20 and attempt == 1:
            refused_at.append(asyncio.get_running_loop().time())
            return status(429, "Rate limit reached", retry_after="5")
        return answered()

    unlucky = FakeClient(refuse_once, latency_s=0.05)
    paced.run(60, 60, clients=[unlucky, FakeClient(latency_s=0.05)])
    assert paced.ends == [None, None]
    other = [at for at, _ in paced.clients[1].sent]
    assert not [at for at in other if refused_at[0] + 2.1 < at < refused_at[0] + 5.0]
    assert [at for at in other if at > refused_at[0] + 5.0]


@pytest.mark.parametrize("rows", [(100, 100, 100), (5, 5, 100)])
def test_a_budget_holds_over_all_runs_and_is_used_up(tmp_path: Path, rows: tuple[int, ...]) -> None:
    workers = Workers(tmp_path, pace=Pace(concurrency=8), limits=BudgetLimits(requests=60))
    workers.run(*rows)
    assert len(workers.sent) == 60
    stopped = [end for end in workers.ends if end is not None]
    assert stopped
    assert all(isinstance(end, BudgetStop) for end in stopped)
    assert "--max-requests 60" in str(stopped[-1])


def test_runs_that_wait_for_a_budget_ask_once_a_second(tmp_path: Path) -> None:
    workers = Workers(tmp_path, pace=Pace(concurrency=8), limits=BudgetLimits(requests=20))
    real = workers.renew
    asked: list[float] = []

    async def renew(request: LeaseRequest) -> Lease:
        asked.append(asyncio.get_running_loop().time())
        return await real(request)

    workers.renew = renew  # type: ignore[method-assign]
    slow = FakeClient(latency_s=30.0)
    workers.run(30, 30, clients=[slow, slow])
    assert len(workers.clients[0].sent) == 20
    waiting = [at for at in asked if 10.0 <= at < 20.0]
    assert len(waiting) <= 24


def test_a_budget_in_tokens_lasts_until_no_request_fits(tmp_path: Path) -> None:
    workers = Workers(tmp_path, pace=Pace(concurrency=8), limits=BudgetLimits(tokens=1000))
    workers.run(100, 100)
    used = 9  # ``answered`` says so
    assert all(isinstance(end, BudgetStop) for end in workers.ends)
    assert len(workers.sent) * used <= 1000
    assert workers.holder is not None
    assert workers.holder.left is not None
    assert workers.holder.left.tokens < 130 + 20, "the upper bound of a request"
