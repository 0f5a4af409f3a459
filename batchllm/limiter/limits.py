"""All limits of one model together: what they allow now, and what answers and refusals teach about them."""

import logging
import math
import re
from collections.abc import Mapping
from typing import Any

from batchllm.limiter.budget import Budget
from batchllm.limiter.dimension import Dimension
from batchllm.limiter.finder import Finder, Ramp, Sent
from batchllm.limiter.headers import Level
from batchllm.limiter.lawful import Lawful, Nature, period_of
from batchllm.limiter.terms import MINUTE_S, REQUESTS, TOKENS
from batchllm.records import Pace

log = logging.getLogger("batchllm.limiter")

_ABOUT_TOKENS = re.compile(r"\btokens?\b|\bTP[MD]\b", re.I)
_ABOUT_REQUESTS = re.compile(r"\brequests? per\b|\bRP[MDS]\b|requests? rate", re.I)
_UNLAWFUL_SAMPLES = 6
_SMALL_JOB = 0.95


class Limits:
    """The dimensions and budgets of a lane.

    Args:
        pace: The user's settings.
        now: The present.
        learned: What an earlier run found out.
    """

    def __init__(self, pace: Pace, now: float, learned: Mapping[str, Any]) -> None:
        told = {REQUESTS: pace.requests_per_minute, TOKENS: pace.tokens_per_minute}
        self.dimensions = [Dimension(n, now, limit=limit, told=True) for n, limit in told.items() if limit]
        self.budgets: list[Budget] = []
        self.sent = {REQUESTS: Sent(), TOKENS: Sent()}
        self._natures: dict[str, Nature] = {}
        self._stocks: dict[str, Budget] = {}
        for name in (REQUESTS, TOKENS):
            estimate = learned.get(f"{name}_per_s")
            if not told[name] and isinstance(estimate, int | float) and 0 < estimate < math.inf:
                search = Finder(now, estimate=0.92 * float(estimate), rounds=2)
                self.dimensions.append(Dimension(name, now, search=search))

    def govern(self, now: float) -> None:
        """Lets every dimension's law set its pace."""
        for dimension in self.dimensions:
            stock = self._stocks.get(dimension.name)
            if stock is not None and not stock.leaks and dimension.search is None:
                rate = min(dimension.limit * 2.0 / MINUTE_S, stock.spread(now))
                if abs(rate - dimension.pacer.rate) > 0.01 * rate:
                    dimension.pacer.set_rate(rate, now)
            else:
                dimension.govern(now)

    def paced_until(self, now: float, waiting: int | None) -> tuple[float, str]:
        """The earliest instant that every pace allows, and which one decides.

        Args:
            now: The present.
            waiting: How many wait when nothing will follow them; a job that fits into what the endpoint
                shows as remaining is not paced.
        """
        latest, name = -math.inf, ""
        for dimension in self.dimensions:
            at = dimension.pacer.ready_at()
            if at > latest:
                if waiting is not None and self._small(dimension, waiting, now):
                    continue
                latest, name = at, dimension.name
        return latest, name

    def _small(self, dimension: Dimension, waiting: int, now: float) -> bool:
        stock = self._stocks.get(dimension.name)
        requests = self.sent[REQUESTS].since_resume
        if stock is None or dimension.lawful is None or requests <= 0 or self.sent[REQUESTS].resumes:
            return False
        usual = 1.0 if dimension.name == REQUESTS else 1.2 * dimension.taken / requests
        return waiting * usual <= _SMALL_JOB * stock.left(now) - 1.0

    def fits_at(self, now: float, amounts: tuple[float, ...]) -> tuple[float, str]:
        """When amounts fit into what was sent within the window, and into the budgets; and which one decides."""
        latest, name = now, ""
        for dimension, amount in zip(self.dimensions, amounts, strict=True):
            if dimension.log is not None and (at := dimension.log.fits_at(now, amount)) > latest:
                latest, name = at, dimension.name
        for budget in (*self.budgets, *(s for s in self._stocks.values() if not s.leaks)):
            amount = self._amount_of(budget.dimension, amounts)
            if (at := budget.fits_at(now, amount)) > latest:
                latest, name = at, budget.dimension
        return latest, name

    def _amount_of(self, name: str, amounts: tuple[float, ...]) -> float:
        for dimension, amount in zip(self.dimensions, amounts, strict=True):
            if dimension.name == name:
                return amount
        return 1.0

    def take(self, now: float, amounts: tuple[float, ...]) -> tuple[list[float] | None, ...]:
        """Takes all of them."""
        for budget in (*self.budgets, *self._stocks.values()):
            budget.take(now, self._amount_of(budget.dimension, amounts))
        pairs = zip(self.dimensions, amounts, strict=True)
        return tuple([dimension.take(now, amount) for dimension, amount in pairs])

    def spent(self, now: float, max_wait_s: float) -> Budget | None:
        """A day's budget that is spent and comes back later than may be waited for."""
        for budget in self.budgets:
            if budget.left(now) < 1.0 and budget.whole_at(now) - now > max_wait_s:
                return budget
        return None

    def observe(
        self, now: float, sent_at: float, levels: list[Level], marks: Mapping[str, float], binding: str
    ) -> None:
        """Takes note of what an answer shows of its limits.

        Args:
            now: When it arrived.
            sent_at: When its request left.
            levels: What it shows.
            marks: ``sent[...].total`` when its request had left.
            binding: The dimension that holds requests back.
        """
        for level in levels:
            name = level.dimension
            since = self.sent[name].total - marks[name] if name in marks else 0.0
            key = f"{name}/{level.period_s or 0:.0f}"
            nature = self._natures.setdefault(key, Nature())
            nature.observe(now, level)
            dimension = next((d for d in self.dimensions if d.name == name and d.search is None), None)
            if nature.kind == "day":
                self._count_down(now, sent_at, level, since)
            elif nature.kind in ("minute", "window"):
                if dimension is None:
                    dimension = self._add(Dimension(name, now, limit=level.limit))
                self._follow(now, sent_at, level, dimension, nature.kind, binding, since)
            elif dimension is None and level.period_s in (None, MINUTE_S):
                self._provisional(now, level, nature)

    def _provisional(self, now: float, level: Level, nature: Nature) -> None:
        """Before enough answers agree: the shown limit is taken at its word, or as a place to search from."""
        if any(d.name == level.dimension for d in self.dimensions):
            return
        if nature.samples >= _UNLAWFUL_SAMPLES and level.dimension in self.sent:
            accepted = self.sent[level.dimension].between(now - MINUTE_S, now)
            if level.limit >= 0.5 * accepted:
                search = Finder(now, estimate=level.limit / MINUTE_S, rounds=3)
                self._add(Dimension(level.dimension, now, search=search))
        elif nature.samples < _UNLAWFUL_SAMPLES and period_of(level) == MINUTE_S:
            self._add(Dimension(level.dimension, now, limit=level.limit))

    def _add(self, dimension: Dimension) -> Dimension:
        self.dimensions.append(dimension)
        log.debug("%s: limit %g, pace %.4g/s", dimension.name, dimension.limit, dimension.pacer.rate)
        return dimension

    def _follow(
        self, now: float, sent_at: float, level: Level, dimension: Dimension, kind: str, binding: str,
        since: float,
    ) -> None:  # fmt: skip
        """Holds a minute's limit by what the endpoint shows of it."""
        if dimension.told and dimension.limit < 0.98 * level.limit:
            return  # the user wants less than the endpoint grants
        dimension.limit = level.limit
        stock = self._stocks.get(dimension.name)
        if stock is None or stock.leaks != (kind == "minute"):
            stock = self._stocks[dimension.name] = Budget(dimension.name, daily=False, leaks=kind == "minute")
        stock.observe(now, sent_at, level, since)
        if kind == "minute":
            if dimension.lawful is None:
                dimension.lawful = Lawful()
            dimension.log = None
            dimension.lawful.observe(now, sent_at, level, binding=binding == dimension.name)
        else:
            dimension.lawful = None

    def _count_down(self, now: float, sent_at: float, level: Level, since: float) -> None:
        budget = next((b for b in self.budgets if b.dimension == level.dimension), None)
        if budget is None:
            leaks = period_of(level) is not None
            budget = Budget(level.dimension, daily=True, leaks=leaks)
            self.budgets.append(budget)
        budget.observe(now, sent_at, level, since)

    def pause_of(self, levels: list[Level], tokens: float) -> float | None:
        """How long until an exhausted limit has room again, by a refusal's headers; ``None``: they do not say."""
        pauses = []
        for level in levels:
            amount = 1.0 if level.dimension == REQUESTS else tokens
            if level.remaining is None or level.reset_s is None or level.remaining >= amount:
                continue
            period = period_of(level)
            lacking = (amount - level.remaining) * (period or 0.0) / level.limit
            pauses.append(lacking if period is not None else level.reset_s)
        return max(pauses, default=None)

    def unit_of(self, message: str) -> str:
        """What a refusal is about: requests or tokens."""
        if _ABOUT_TOKENS.search(message) and not _ABOUT_REQUESTS.search(message):
            return TOKENS
        names = {dimension.name for dimension in self.dimensions}
        if not _ABOUT_REQUESTS.search(message) and names == {TOKENS}:
            return TOKENS
        return REQUESTS

    def refused(self, closed_at: float, now: float, refusals: int, unit: str, *, ramp: bool) -> None:
        """An epoch of refusal is over: the pace of what was refused is learned anew."""
        if ramp:
            self._slow_down(closed_at, now)
        else:
            self._refused(closed_at, now, refusals, unit)

    def pause(self, now: float) -> None:
        """An epoch of refusal begins."""
        for sent in self.sent.values():
            sent.pause(now)

    def resume(self, now: float) -> None:
        """A pause is over: every pace goes on without catching up."""
        for sent in self.sent.values():
            sent.resume(now)
        for dimension in self.dimensions:
            dimension.govern(now)
            dimension.pacer.restart(now)

    def _refused(self, closed_at: float, now: float, refusals: int, unit: str) -> None:
        known = [d for d in self.dimensions if d.search is None and (d.name == unit or unit in d.name)]
        found = [d for d in self.dimensions if isinstance(d.search, Finder) and d.name == unit]
        sent, requests = self.sent[unit], self.sent[REQUESTS]
        if not found:
            helped = [dimension.refused(now) for dimension in known]
            if any(helped):
                return
            ceiling = min((d.limit / MINUTE_S for d in known if d.told), default=math.inf)
            began = closed_at if requests.resumed_at is None else requests.resumed_at
            search = Finder(began, ceiling=ceiling)
            search.refused(closed_at, now, refusals, sent, requests)
            self._add(Dimension(unit, now, search=search))
            return
        for dimension in found:
            assert isinstance(dimension.search, Finder)
            dimension.search.refused(closed_at, now, refusals, sent, requests)

    def _slow_down(self, closed_at: float, now: float) -> None:
        unit = TOKENS if self.sent[TOKENS].since_resume > 0 else REQUESTS
        span = min(MINUTE_S, max(1.0, closed_at - (self.sent[unit].resumed_at or closed_at)))
        rate = max(0.01, self.sent[unit].between(closed_at - span, closed_at) / span)
        for dimension in self.dimensions:
            if isinstance(dimension.search, Ramp):
                dimension.search.refused(rate, now)
                return
        self._add(Dimension(unit, now, search=Ramp(rate, now)))

    def requests_per_s(self) -> float | None:
        """The requests a second that the limits allow; ``None`` where nothing limits them."""
        requests = max(1.0, self.sent[REQUESTS].total)
        rates = []
        for dimension in self.dimensions:
            usual = 1.0 if dimension.name == REQUESTS else self.sent[TOKENS].total / requests
            if usual > 0:
                rates.append(dimension.pacer.rate / usual)
        return min(rates, default=None)

    def learned(self) -> dict[str, float]:
        """What the next run should know."""
        return {
            f"{d.name}_per_s": d.search.estimate
            for d in self.dimensions
            if isinstance(d.search, Finder) and d.search.estimate is not None
        }
