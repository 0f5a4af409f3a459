"""What workers and the holder say to each other survives pickle."""

import pickle
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from batchllm.budget.budget import Amount
from batchllm.leases import BudgetShare, BudgetUse, Lease, LeaseRequest, Share, Use

NUMBERS = st.floats(0.0, 1e9)
MAYBE = st.none() | NUMBERS
AMOUNTS = st.builds(
    Amount, st.integers(0, 10**12), st.integers(0, 10**12), st.decimals(0, 10**6, places=9).map(Decimal)
)
USES = st.builds(
    Use, limit_rpm=MAYBE, limit_tpm=MAYBE, demand_rpm=MAYBE, demand_tpm=MAYBE, holds_rpm=MAYBE, holds_tpm=MAYBE,
    divided_rpm=MAYBE, tokens_per_request=NUMBERS, sent=st.integers(0), refused=st.integers(0), paused_s=NUMBERS,
)  # fmt: skip
REQUESTS = st.builds(
    LeaseRequest, worker=st.text(), number=st.integers(1), uses=st.dictionaries(st.text(), USES, max_size=3),
    budget=st.none() | st.builds(
        BudgetUse, ceiling=AMOUNTS, spent=AMOUNTS, reserved=AMOUNTS, wanted=AMOUNTS, short=st.booleans()
    ),
    leaving=st.booleans(),
)  # fmt: skip
SHARES = st.builds(
    Share,
    rpm=MAYBE,
    tpm=MAYBE,
    requests=st.none() | st.integers(0, 9),
    pause_s=NUMBERS,
    limit_rpm=MAYBE,
    limit_tpm=MAYBE,
)
LEASES = st.builds(
    Lease, number=st.integers(1), ttl_s=NUMBERS, renew_s=NUMBERS,
    shares=st.dictionaries(st.text(), SHARES, max_size=3),
    budget=st.none() | st.builds(BudgetShare, ceiling=AMOUNTS, scarce=st.booleans(), nothing_left=st.booleans()),
)  # fmt: skip


@given(REQUESTS)
def test_a_request_comes_back_as_it_was(request: LeaseRequest) -> None:
    assert pickle.loads(pickle.dumps(request)) == request


@given(LEASES)
def test_a_lease_comes_back_as_it_was(lease: Lease) -> None:
    assert pickle.loads(pickle.dumps(lease)) == lease
