"""Budgets: the arithmetic, the bounds, and that no sequence of faults, kills and resumes opens them."""

import json
import random
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm import tokens
from batchllm.budget.budget import (
    NOTHING,
    ONE_REQUEST,
    Amount,
    Budget,
    BudgetLimits,
    BudgetMeter,
    spent_before,
    taken,
    total_tokens,
)
from batchllm.budget.usage import IMAGE_TOKENS, counted_upper_bound, upper_bound
from batchllm.journal import Journal
from batchllm.records import ChatRequest, FailureKind, Paid, Response, Usage
from tests.bill_jobs import MAX_TOKENS, BillingClient, VirtualJob, cost_of, stopped_by_budget
from tests.fakes import answered, lost, status

BOUND = Amount(1, 100, Decimal("0.5"))


def request_of(content: object, model: str = "gpt-4o-mini", max_tokens: int | None = 10) -> ChatRequest:
    data = {"model": model, "messages": [{"role": "user", "content": content}]}
    body = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return ChatRequest(0, bytes(16), body, model, 0, max_tokens)


# -- the arithmetic -----------------------------------------------------------------------------------------------


@given(
    st.integers(0, 50),
    st.lists(st.tuples(st.integers(1, 9), st.floats(0, 1), st.booleans()), max_size=60),
)
def test_what_is_spent_and_reserved_never_exceeds_the_limit(
    limit: int, steps: list[tuple[int, float, bool]]
) -> None:
    budget = Budget(BudgetLimits(tokens=limit, cost=Decimal(limit), requests=limit))
    flying: list[Amount] = []
    for size, share, lands in steps:
        bound = Amount(1, size, Decimal(size))
        if budget.reserve(bound):
            flying.append(bound)
        if lands and flying:
            reserved = flying.pop(0)
            used = int(reserved.tokens * share)
            budget.release(reserved, Amount(1, used, Decimal(used)))
        for value in ("requests", "tokens", "cost"):
            assert getattr(budget.spent + budget.reserved, value) <= limit


def test_a_request_that_does_not_fit_reserves_nothing() -> None:
    budget = Budget(BudgetLimits(tokens=99))
    assert not budget.reserve(BOUND)
    assert budget.reserved == NOTHING
    assert "--max-total-tokens 99" in (budget.shortage(BOUND) or "")


def test_room_that_a_request_did_not_use_is_there_for_the_next() -> None:
    budget = Budget(BudgetLimits(tokens=150))
    assert budget.reserve(BOUND)
    assert not budget.reserve(BOUND)
    budget.release(BOUND, Amount(1, 20))
    assert budget.reserve(BOUND)


def test_the_exact_limit_fits() -> None:
    budget = Budget(BudgetLimits(cost=Decimal("1.0"), requests=2, tokens=200))
    assert budget.reserve(BOUND)
    assert budget.reserve(BOUND)
    assert not budget.reserve(Amount(1))


@pytest.mark.parametrize(
    ("outcome", "usage", "cost", "expected"),
    [
        (answered(), Usage(5, 3), Decimal("0.1"), Amount(1, 8, Decimal("0.1"))),
        (answered(), Usage(5, 3), None, Amount(1, 8, Decimal("0.5"))),
        (answered(), Usage(), None, BOUND),
        (answered(), Usage(total_tokens=9), None, Amount(1, 9, Decimal("0.5"))),
        (Response(200, {}, b"<html>", 0.1), Usage(), None, BOUND),
        (status(429), Usage(), None, ONE_REQUEST),
        (status(500), Usage(), None, ONE_REQUEST),
        (status(400), Usage(), None, ONE_REQUEST),
        (lost(FailureKind.TIMEOUT, Paid.MAYBE), Usage(), None, BOUND),
        (lost(FailureKind.CONNECT, Paid.NO), Usage(), None, NOTHING),
    ],
)
def test_what_each_outcome_takes(
    outcome: Response, usage: Usage, cost: Decimal | None, expected: Amount
) -> None:
    assert taken(BOUND, outcome, usage, cost) == expected


def test_a_total_that_is_larger_than_its_parts_counts() -> None:
    assert total_tokens(Usage(5, 3, 30)) == 30
    assert total_tokens(Usage(5, 3, None)) == 8
    assert total_tokens(Usage(5, None, None)) is None


# -- the bounds ---------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=400), st.sampled_from(["gpt-4o-mini", "gpt-4", "llama-3"]))
def test_the_upper_bound_is_more_than_any_count_of_the_prompt(text: str, model: str) -> None:
    request = request_of(text, model)
    actual = tokens.counter(model)(text) + 7
    coarse, close = upper_bound(request).prompt_tokens, counted_upper_bound(request).prompt_tokens
    assert coarse is not None
    assert close is not None
    assert actual <= close <= coarse


def test_the_closer_bound_is_much_closer_for_prose() -> None:
    request = request_of("The quick brown fox jumps over the lazy dog. " * 200)
    coarse, close = upper_bound(request).prompt_tokens, counted_upper_bound(request).prompt_tokens
    assert coarse and close and close * 3 < coarse


def test_an_image_counts_by_what_it_may_cost_not_by_its_bytes() -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1_000_000}}
    bound = upper_bound(request_of([{"type": "text", "text": "What is it?"}, part, part])).prompt_tokens
    assert bound is not None
    assert 2 * IMAGE_TOKENS < bound < 2 * IMAGE_TOKENS + 1000


def test_what_looks_like_an_image_inside_a_text_is_text() -> None:
    text = '{"content":[{"type":"image_url"}]} ' * 100
    assert (upper_bound(request_of(text)).prompt_tokens or 0) > len(text)
    assert (upper_bound(request_of(text)).prompt_tokens or 0) < IMAGE_TOKENS


def test_a_part_that_nobody_can_bound_has_no_upper_bound() -> None:
    part = {"type": "file", "file": {"file_id": "file-1"}}
    assert upper_bound(request_of([part])).prompt_tokens is None
    assert BudgetMeter(Budget(BudgetLimits(tokens=10**9))).reserve(request_of([part])) is None


def test_without_a_budget_everything_goes() -> None:
    meter = BudgetMeter()
    assert meter.reserve(request_of("x" * 10**6, max_tokens=None)) == NOTHING


def test_the_close_bound_lets_a_request_fit_that_the_coarse_one_would_refuse() -> None:
    request = request_of("The quick brown fox jumps over the lazy dog. " * 200)
    close = counted_upper_bound(request).prompt_tokens or 0
    meter = BudgetMeter(Budget(BudgetLimits(tokens=close + 10)))
    assert meter.reserve(request) is not None


# -- whole jobs ---------------------------------------------------------------------------------------------------


def texts(chance: random.Random, rows: int) -> list[str]:
    """Texts with a long tail, all different."""
    return [f"{index} " + "word " * int(chance.lognormvariate(2.5, 1.0)) for index in range(rows)]


def limits_of(chance: random.Random) -> BudgetLimits:
    """A random budget that is too small for the whole job."""
    return BudgetLimits(
        cost=Decimal(chance.randint(500, 8000)) / 1_000_000 if chance.random() < 0.6 else None,
        requests=chance.randint(1, 40) if chance.random() < 0.5 else None,
        tokens=chance.randint(200, 3000) if chance.random() < 0.6 else None,
    )


def assert_within(client: BillingClient, limits: BudgetLimits) -> None:
    assert limits.cost is None or client.cost <= limits.cost
    assert limits.requests is None or client.requests <= limits.requests
    assert limits.tokens is None or client.tokens <= limits.tokens


@pytest.mark.parametrize("seed", range(100))
def test_no_faults_kills_and_resumes_open_a_budget(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    limits = limits_of(chance)
    client = BillingClient(chance, faults=chance.choice([0.0, 0.1, 0.4]))
    job = VirtualJob(tmp_path, texts(chance, 40), client, limits)
    for _ in range(chance.randint(1, 6)):
        job.run(kill_at=chance.uniform(0.0, 8.0))
        assert_within(client, limits)
    job.run()
    assert_within(client, limits)


@pytest.mark.parametrize("seed", range(3))
def test_a_larger_budget_goes_on_and_brings_every_row_to_its_end(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    client = BillingClient(chance, faults=0.1)
    job = VirtualJob(tmp_path, texts(chance, 40), client, BudgetLimits(cost=Decimal("0.002")))
    assert stopped_by_budget(job.run())
    assert stopped_by_budget(job.run())
    before = client.requests
    assert stopped_by_budget(job.run())
    assert client.requests == before, "a budget that is spent sends nothing more"
    job.limits = BudgetLimits(cost=Decimal(1))
    job.finish()


def test_a_budget_is_used_up_to_what_one_request_may_take(tmp_path: Path) -> None:
    chance = random.Random(5)
    client = BillingClient(chance, faults=0.0)
    limit = Decimal("0.01")
    job = VirtualJob(tmp_path, ["a text of some words"] * 500, client, BudgetLimits(cost=limit))
    assert stopped_by_budget(job.run())
    assert limit - client.cost < cost_of(300, MAX_TOKENS)


def test_the_sentence_names_the_flag_the_sums_and_what_is_left(tmp_path: Path) -> None:
    client = BillingClient(random.Random(1), faults=0.0)
    stopped = VirtualJob(tmp_path, ["one", "two", "three"], client, BudgetLimits(requests=2)).run()
    assert str(stopped) == (
        "--max-requests 2: 2 have been sent; the same command with a larger budget goes on with the 1 row left"
    )


def test_what_a_dead_run_may_have_paid_counts_with_its_bound(tmp_path: Path) -> None:
    client = BillingClient(random.Random(2), faults=0.0)
    job = VirtualJob(tmp_path, texts(random.Random(2), 40), client)
    job.run(kill_at=3.0)
    assert job.flying_at_kills > 0
    with Journal.open(job.path, threaded=False) as journal:
        limits = BudgetLimits(cost=Decimal(1), tokens=1, requests=1)
        spent = spent_before(journal.reader(), limits, job.pricing)
    assert spent.cost >= client.cost
    assert spent.tokens >= client.tokens
    assert spent.requests >= client.requests
