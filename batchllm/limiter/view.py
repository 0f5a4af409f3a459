"""The state of a limiter in words and numbers, from the objects that hold it."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from batchllm.limiter.breaker import Breaker
from batchllm.limiter.lane import Lane
from batchllm.limiter.terms import MINUTE_S, REQUESTS, TOKENS, View, sum_of


def view_of(now: float, lane: Lane[Any] | None, breaker: Breaker, **counts: int) -> View:
    """Returns the state at ``now``.

    Args:
        now: The time now.
        lane: The busiest lane; ``None`` without one.
        breaker: Knows of an outage.
        counts: The fields of ``View`` that are counted.
    """
    dimensions = lane.limits.dimensions if lane is not None else []
    rates = {d.name: d.rate(now, 0.0) * MINUTE_S for d in dimensions}
    pace = {
        name: rate if (rate := rates.get(name, math.inf)) < math.inf else None for name in (REQUESTS, TOKENS)
    }
    limits = "nothing" if lane is None else lane.binding
    resumes_at = gives_up_at = None
    trouble = ""
    if breaker.opened_at is not None:
        limits, resumes_at, gives_up_at = "outage", breaker.probe_at, breaker.gives_up_at
        trouble = " ".join(breaker.last_failure.split())
    elif lane is not None and lane.gate.closed:
        limits, resumes_at, gives_up_at = "pause", lane.gate.until, lane.gives_up_at
    return View(
        limits=limits,
        requests_per_minute=pace[REQUESTS],
        tokens_per_minute=pace[TOKENS],
        resumes_at=resumes_at,
        searching=any(d.estimate is not None for d in dimensions),
        gives_up_at=gives_up_at if gives_up_at != math.inf else None,
        trouble=trouble,
        **counts,
    )


def merged(
    working: Sequence[View], others: Sequence[View], *, waiting: int, gives_up_at: float | None
) -> View:
    """Returns the state of several endpoints together.

    Args:
        working: The states of those that take requests.
        others: The states of those that are down or in a pause.
        waiting: Requests that wait for any of them.
        gives_up_at: Where none of them works, when the run ends.
    """
    every = [*working, *others]
    shown = list(working or others)
    limits = Counter(view.limits for view in shown if view.limits != "nothing").most_common(1)
    resumes = [view.resumes_at for view in others if view.resumes_at is not None]
    limit = limits[0][0] if limits else "nothing"
    if not working and any(view.limits == "pause" for view in others):
        limit, gives_up_at = "pause", None
    return View(
        limits=limit,
        requests_per_minute=sum_of([view.requests_per_minute for view in shown]),
        tokens_per_minute=sum_of([view.tokens_per_minute for view in shown]),
        concurrency=sum(view.concurrency for view in shown),
        in_flight=sum(view.in_flight for view in every),
        waiting=waiting,
        granted=sum(view.granted for view in every),
        refused=sum(view.refused for view in every),
        resumes_at=None if working else min(resumes, default=None),
        searching=any(view.searching for view in shown),
        gives_up_at=None if working else gives_up_at,
        trouble=next((view.trouble for view in others if view.trouble), "") if not working else "",
    )
