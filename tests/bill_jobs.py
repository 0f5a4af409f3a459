"""Jobs for tests about money: a price table, an endpoint that bills, and runs that can be killed, in virtual time."""

import asyncio
import json
import random
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from batchllm.answer import Reader
from batchllm.budget.budget import LARGEST, Budget, BudgetLimits, BudgetMeter, spent_before
from batchllm.budget.costs import Pricing
from batchllm.budget.usage import UsageEstimator
from batchllm.counters import RunCounters
from batchllm.errors import BudgetStop, JobError, StorageFailure
from batchllm.flows import Flow, JobFlow
from batchllm.flows.asking import whole
from batchllm.job import Job
from batchllm.journal import Journal, State
from batchllm.limiter import Limiter
from batchllm.online.loop import OnlineLoop
from batchllm.plan.plan import Plan
from batchllm.records import Answer, ChatRequest, Endpoint, Failure, Pace, Response, Row
from batchllm.request import request_key
from batchllm.retry import RetryPolicy
from batchllm.simulator import Simulator
from batchllm.template import AnswerSpec
from tests.fakes import chat_body, lost, status
from tests.virtual_time import run_virtual

MODEL = "simulator"
INPUT, OUTPUT = Decimal("0.000002"), Decimal("0.000006")
PRICES = {
    MODEL: {"input_cost_per_token": float(INPUT), "output_cost_per_token": float(OUTPUT)},
}
MAX_TOKENS = 40
NO_LIMITS = BudgetLimits()


def write_prices(folder: Path, *, times: int = 1, model: str = MODEL) -> Path:
    """A price table for the simulator's model."""
    path = folder / f"prices-{times}-{model}.json"
    entry = {name: value * times for name, value in PRICES[MODEL].items()}
    path.write_text(json.dumps({model: entry}), "utf-8")
    return path


def cost_of(prompt_tokens: int, completion_tokens: int) -> Decimal:
    """What tokens cost by that table."""
    return prompt_tokens * INPUT + completion_tokens * OUTPUT


def bill(server: Simulator) -> float:
    """What the server charges by that table, in dollars."""
    return float(cost_of(server.ledger.prompt_tokens, server.ledger.completion_tokens))


class Endless(Exception):
    """A job that does not come to an end."""


class BillingClient:
    """Answers, fails and bills like an endpoint; a request is on the bill as soon as it may have been worked on.

    Attributes:
        requests, tokens, cost: What the endpoint will charge.
        times_sent: Attempts by request.
    """

    def __init__(self, chance: random.Random, *, faults: float) -> None:
        self._chance = chance
        self._faults = faults
        self.requests = self.tokens = 0
        self.cost = Decimal(0)
        self.times_sent: dict[bytes, int] = {}
        self.in_flight = 0

    async def send(self, request: ChatRequest) -> Response | Failure:
        self.in_flight += 1
        try:
            return await self._send(request)
        finally:
            self.in_flight -= 1

    async def _send(self, request: ChatRequest) -> Response | Failure:
        chance = self._chance
        self.requests += 1
        self.times_sent[request.key] = self.times_sent.get(request.key, 0) + 1
        fault = (
            chance.choice(["429", "500", "lost", "garbage", "no usage"])
            if self._faults > chance.random()
            else ""
        )
        latency_s = chance.expovariate(1.0)
        if fault in ("429", "500"):
            await asyncio.sleep(latency_s)
            return status(int(fault), retry_after="1")
        prompt, completion = len(request.body) // 4, chance.randint(0, request.max_tokens or 0)
        self.tokens += prompt + completion
        self.cost += cost_of(prompt, completion)
        await asyncio.sleep(latency_s)
        if fault == "lost":
            return lost()
        body = chat_body("fine", prompt=prompt, completion=completion)
        if fault == "garbage":
            body = b"<html>"
        if fault == "no usage":
            body = json.dumps({**json.loads(body), "usage": None}).encode()
        return Response(200, {}, body, latency_s)


class Builder:
    """Makes requests of rows; a row's text is its cell."""

    truncated = 0

    def build(self, row: Row) -> ChatRequest:
        body = json.dumps({"messages": [{"role": "user", "content": row.values["text"]}]}).encode()
        return ChatRequest(row.index, request_key("simulator", body), body, MODEL, len(body) // 4, MAX_TOKENS)

    def reader(self, row: Row) -> Reader:
        return Reader(AnswerSpec("response"))


def flow_of(builder: Any) -> JobFlow:
    """The flow of one request a row."""

    def start(row: Row) -> Flow:
        answer: Answer = yield whole(builder, row)
        return answer

    return JobFlow(builder=builder, start=start)


class VirtualJob:
    """A job whose runs take no time: the real plan, online mode, meter and journal over a client that bills."""

    def __init__(
        self,
        folder: Path,
        texts: Sequence[str],
        client: BillingClient,
        limits: BudgetLimits = NO_LIMITS,
        *,
        dedupe: bool = False,
    ) -> None:
        self.path = folder / "out.journal"
        self.texts = texts
        self.client = client
        self.limits = limits
        self.dedupe = dedupe
        self.states: list[State | None] = []
        self.counters = RunCounters()
        self.flying_at_kills = 0
        prices = write_prices(folder)
        endpoint = Endpoint(preset="simulator", base_url="http://127.0.0.1/v1", model=MODEL)
        job = Job(task="run", template=None, inputs=(), output=None, endpoint=endpoint, prices=prices)
        self.pricing = Pricing(job)

    def run(self, kill_at: float | None = None) -> JobError | None:
        """One run of the job, killed at that time; returns what stopped it."""
        return run_virtual(self._run(kill_at))

    def finish(self) -> None:
        """Runs it again until every row has its end."""
        for _ in range(30):
            stopped = self.run()
            if stopped is not None and not isinstance(stopped, StorageFailure):
                raise stopped
            if all(state in (State.ANSWERED, State.FAILED) for state in self.states):
                return
        raise Endless

    async def _run(self, kill_at: float | None) -> JobError | None:
        loop = asyncio.get_running_loop()
        journal = Journal.open(self.path, threaded=False)
        budget = Budget(self.limits, spent_before(journal.reader(), self.limits, self.pricing))
        meter = BudgetMeter(
            budget,
            self.pricing,
            largest=journal.get(LARGEST),
            put=journal.put,
            learned=UsageEstimator(journal.get("learned")),
        )
        plan_facts = journal.begin_plan("plan", dedupe=self.dedupe)
        self.counters = RunCounters(rows=len(self.texts))
        plan = Plan(
            self._rows(),
            flow_of(Builder()),
            journal,
            known=journal.planned() if plan_facts.continued else iter(()),
            counters=self.counters,
        )
        online = OnlineLoop(
            client=self.client,
            limiter=Limiter(Pace(concurrency=8), charge="max_tokens", now=loop.time()),
            journal=journal,
            retry=RetryPolicy(5, random.Random(1)),
            counters=self.counters,
            settled=plan.settled,
            meter=meter,
        )

        def kill() -> None:
            """Nothing reaches the disk any more, and nothing waits: what a SIGKILL leaves."""
            journal._writer.failure = StorageFailure("killed")
            self.flying_at_kills += self.client.in_flight
            online.run_stop.stop(StorageFailure("killed"))
            online.run_stop.abort()

        if kill_at is not None:
            loop.call_at(kill_at, kill)
        try:
            await online.run(plan.batches())
        except JobError as error:
            return error
        finally:
            if journal._writer.failure is None:
                await journal.flush()
                self.states = [entry.state for entry in journal.planned()]
            journal.close()
        return None

    def _rows(self) -> Iterator[Row]:
        for index, text in enumerate(self.texts):
            yield Row(index, index + 2, {"text": text}, [text])


def stopped_by_budget(stopped: JobError | None) -> bool:
    """Whether a run ended because the next request did not fit."""
    return isinstance(stopped, BudgetStop)


def read_summary(path: Path) -> dict[str, Any]:
    """A summary's figures."""
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found
