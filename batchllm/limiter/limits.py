"""The limits of one model: what they allow now, and what answers and refusals say about them."""

import logging
import math
import re
from collections.abc import Mapping
from typing import Any

from batchllm.limiter.dimension import Dimension
from batchllm.limiter.header_pacer import HeaderPacer, period_of
from batchllm.limiter.headers import Level
from batchllm.limiter.pace import MARGIN
from batchllm.limiter.rate_estimate import LEAST_S, MIN_ACCEPTED, Ramp, RateEstimate
from batchllm.limiter.terms import DAY_S, MINUTE_S, REQUESTS, TOKENS
from batchllm.records import Pace

log = logging.getLogger("batchllm.limiter")

LEARNED_S = 60.0
"""An estimate is kept for the next run if it was measured for at least this long."""
WEAK_S = 10.0
BLOCK_S = 1.5
MIN_ACCEPTED_BETWEEN_PAUSES = 8
"""Requests that an estimate needs if its stretch has requested pauses of about a second."""
GUESSED_PAUSES = 0.5
"""The share of such pauses that is left out of a stretch in which the pace was guessed."""
NOISY_S = 5.0
"""The longest time that an estimate counts for while requests are also refused at random."""
_ABOUT_TOKENS = re.compile(r"\btokens?\b|\bTP[MD]\b", re.I)
_ABOUT_REQUESTS = re.compile(r"\brequests? per\b|\bRP[MDS]\b|requests? rate", re.I)


class LaneLimits:
    """The dimensions of a lane.

    Args:
        pace: The user's settings.
        now: The time now, in seconds.
        learned: What an earlier run learned.

    Attributes:
        dimensions: In the order of the amounts in ``QueuedItem``; never shortened.
        latency_s: The usual latency of an answer.
    """

    def __init__(self, pace: Pace, now: float, learned: Mapping[str, Any]) -> None:
        given = {REQUESTS: pace.requests_per_minute, TOKENS: pace.tokens_per_minute}
        self.dimensions = [Dimension(name, now, given=limit or math.inf) for name, limit in given.items()]
        self.latency_s = 0.0
        self._days: dict[str, HeaderPacer] = {}
        self._rates: list[float] = []
        for dimension in self.dimensions:
            rate = learned.get(f"{dimension.name}_found_per_s")
            if isinstance(rate, int | float) and 0 < rate < math.inf:
                usual = 1.0 if dimension.name == REQUESTS else rate  # not known yet
                dimension.estimate = RateEstimate(0.95 * rate, 10.0, now, usual)

    @property
    def known(self) -> bool:
        """Whether a limit was given or is shown."""
        return any(dimension.known for dimension in self.dimensions)

    def paced_until(self, now: float) -> tuple[float, str]:
        """Returns the earliest time that every pace allows, and the dimension that decides."""
        latest, name = -math.inf, ""
        self._rates = []
        for dimension in self.dimensions:
            rate = dimension.rate(now, self.latency_s)
            self._rates.append(rate)
            if rate < math.inf and (at := dimension.pacer.ready_at(rate)) > latest:
                latest, name = at, dimension.name
        return latest, name

    def fits_at(self, now: float, amounts: tuple[float, ...]) -> tuple[float, str]:
        """Returns when amounts fit into the last minute and into what headers show as left, and what decides."""
        latest, name = now, ""
        for dimension, amount in zip(self.dimensions, amounts, strict=True):
            if (at := dimension.fits_at(now, amount)) > latest:
                latest, name = at, dimension.name
        at = self.day_fits_at(now, amounts)
        return (at, "day") if at > latest else (latest, name)

    def day_fits_at(self, now: float, amounts: tuple[float, ...]) -> float:
        """Returns when amounts fit into what is left of a day's quota."""
        at = now
        for pacer in self._days.values():
            fits = pacer.fits_at(now, self._amount_of(pacer.name, amounts))
            at = max(at, math.inf if fits is None else fits)
        return at

    def _amount_of(self, name: str, amounts: tuple[float, ...]) -> float:
        for dimension, amount in zip(self.dimensions, amounts, strict=False):
            if dimension.name == name:
                return amount
        return 1.0

    def take(
        self, now: float, amounts: tuple[float, ...]
    ) -> tuple[tuple[list[float] | None, ...], tuple[float, ...]]:
        """Takes amounts; returns the entries of the logs, and the positions in the order of sending."""
        for pacer in self._days.values():
            pacer.take(now, self._amount_of(pacer.name, amounts))
        rates = self._rates if len(self._rates) == len(amounts) else [math.inf] * len(amounts)
        entries, positions = [], []
        for dimension, amount, rate in zip(self.dimensions, amounts, rates, strict=True):
            entries.append(dimension.take(now, amount, rate))
            positions.append(dimension.sent.total)
        return tuple(entries), tuple(positions)

    def refused(
        self,
        sent_at: float,
        amounts: tuple[float, ...],
        positions: tuple[float, ...],
        entries: tuple[list[float] | None, ...],
    ) -> None:
        """Records that a request was refused and took nothing; ``take`` returned its positions and entries."""
        for dimension, amount, position, entry in zip(
            self.dimensions, amounts, positions, entries, strict=False
        ):
            dimension.refused(position, sent_at, amount, entry)

    def spent(self, now: float, max_wait_s: float) -> HeaderPacer | None:
        """Returns a spent quota of a day that comes back later than ``max_wait_s``; ``None`` without one."""
        for pacer in self._days.values():
            if pacer.samples and pacer.left(now) < 1.0 and pacer.full_at(now) - now > max_wait_s:
                return pacer
        return None

    def observe(
        self, now: float, sent_at: float, levels: list[Level], positions: tuple[float, ...], *, accepted: bool
    ) -> None:
        """Records the limits in the headers of a response.

        Args:
            now: When it arrived.
            sent_at: When its request was sent.
            levels: The limits.
            positions: The positions of its request in the order of sending.
            accepted: The response is no refusal.
        """
        for level in levels:
            index = next((i for i, d in enumerate(self.dimensions) if d.name == level.dimension), None)
            if index is None:
                if not accepted:
                    continue
                index = len(self.dimensions)
                self.dimensions.append(Dimension(level.dimension, now))
            dimension = self.dimensions[index]
            position = positions[index] if index < len(positions) else dimension.sent.total
            if level.period_s == DAY_S or (level.dimension in self._days and dimension.header_pacer is None):
                pacer = self._days.setdefault(level.dimension, HeaderPacer(level.dimension))
            elif level.period_s not in (None, MINUTE_S):
                continue
            else:
                if dimension.header_pacer is None:
                    dimension.header_pacer = HeaderPacer(level.dimension)
                pacer = dimension.header_pacer
                self._start_search(now, dimension, level)
            pacer.observe(now, sent_at, position, dimension.sent, level, accepted=accepted)
            if pacer.daily and pacer is dimension.header_pacer:
                self._days[level.dimension], dimension.header_pacer = pacer, None

    def forget_outdated(self, sent_at: float) -> bool:
        """Forgets limits that only earlier refusals showed, after an answer without them; returns whether any was."""
        found = [
            d for d in self.dimensions if d.header_pacer is not None and d.header_pacer.outdated(sent_at)
        ]
        for dimension in found:
            dimension.header_pacer = None
        return bool(found)

    def _start_search(self, now: float, dimension: Dimension, level: Level) -> None:
        """Starts the search at a shown limit whose remaining amount is not shown."""
        if level.remaining is None and dimension.estimate is None and dimension.given == math.inf:
            dimension.estimate = RateEstimate(level.limit / MINUTE_S, MINUTE_S, now, dimension.usual or 1.0)

    def pause_of(self, levels: list[Level], amounts: tuple[float, ...]) -> float | None:
        """Returns how long an exhausted limit has no room, by a refusal's headers; ``None`` if they do not say."""
        pauses = []
        for level in levels:
            amount = self._amount_of(level.dimension, amounts) if amounts else 1.0
            if level.remaining is None or level.reset_s is None or level.remaining >= amount:
                continue
            period = period_of(level)
            lacking = (amount - level.remaining) * (period or 0.0) / level.limit
            pauses.append(lacking if period is not None else level.reset_s)
        return max(pauses, default=None)

    def dimension_of(self, message: str) -> str:
        """Returns the dimension that a refusal's message is about."""
        if _ABOUT_TOKENS.search(message) and not _ABOUT_REQUESTS.search(message):
            return TOKENS
        known = {dimension.name for dimension in self.dimensions if dimension.known}
        if not _ABOUT_REQUESTS.search(message) and known == {TOKENS}:
            return TOKENS
        return REQUESTS

    def dimension(self, name: str) -> Dimension:
        """Returns the dimension of a name."""
        return next(dimension for dimension in self.dimensions if dimension.name == name)

    def within_span(self, now: float) -> bool:
        """Returns whether every estimate is within its span, so that no pace is being raised."""
        return all(estimate.within_span(now) for estimate in self._estimates)

    def contradicts(self, now: float) -> bool:
        """Returns whether a refusal now contradicts the estimates, because their pace was accepted before."""
        return bool(self._estimates) and self.between_pauses and self.within_span(now)

    @property
    def _estimates(self) -> list[RateEstimate]:
        return [d.estimate for d in self.dimensions if d.estimate is not None]

    @property
    def between_pauses(self) -> bool:
        """Whether every estimate was measured from one pause to the next."""
        return all(estimate.between_pauses for estimate in self._estimates)

    @property
    def weak(self) -> bool:
        """Whether every estimate rests on a few seconds."""
        return all(estimate.measured_s < WEAK_S for estimate in self._estimates)

    @property
    def doubted(self) -> bool:
        """Whether an estimate was kept although the last measurement was lower."""
        return any(estimate.doubted for estimate in self._estimates)

    def is_given(self, name: str) -> bool:
        """Returns whether the user gave the limit of a dimension, and no estimate replaces it."""
        dimension = self.dimension(name)
        return dimension.given < math.inf and dimension.estimate is None

    def never_fits(self, amounts: tuple[float, ...]) -> str | None:
        """Returns why amounts are larger than a limit; ``None`` if they are not."""
        for dimension, amount in zip(self.dimensions, amounts, strict=True):
            if amount > dimension.limit:
                return (
                    f"the request takes {amount:,.0f} {dimension.name.replace('_', ' ')}, more than the "
                    f"{dimension.limit:,.0f} a minute that the endpoint grants; shorten the row or lower max_tokens"
                )
        return None

    def widen_margin(self, now: float, name: str) -> bool:
        """Lowers the pace a little after a single refusal; returns whether that may prevent the next one."""
        dimension = self.dimension(name)
        return dimension.given < math.inf and dimension.widen_margin(now)

    def ignore_refusals(self, now: float, *, quickly: bool) -> None:
        """Restores what refusals lowered, because they are random; ``quickly`` lets the pace double sooner."""
        self.start_stretch(now)
        for dimension in self.dimensions:
            dimension.margin = MARGIN
            if dimension.given < math.inf:
                dimension.estimate = None
            elif dimension.estimate is not None:
                dimension.estimate.restore(now, 0.5 * LEAST_S if quickly else LEAST_S)

    def learn(self, now: float, name: str, closed_at: float, *, refusals: int, noisy: bool) -> None:
        """Measures the limit of a dimension: what was accepted since the last pause, over that time."""
        dimension = self.dimension(name)
        sent = dimension.sent
        began = sent.resumed_at
        least = MIN_ACCEPTED_BETWEEN_PAUSES if sent.paused_s else MIN_ACCEPTED
        if began is None or self.dimension(REQUESTS).sent.accepted < least or now <= began:
            if dimension.estimate is None and dimension.given == math.inf and not dimension.shown:
                dimension.estimate = RateEstimate.soft_start(now, dimension.usual or 1.0)
            elif dimension.estimate is not None:
                dimension.estimate.since = now
            if began is not None and not sent.resumed and now - closed_at > 0.5 * (now - began):
                self.start_stretch(now, block=True)  # the stretch was mostly a pause
            return
        guessed = dimension.estimate is not None and dimension.estimate.guessed
        paused_s = GUESSED_PAUSES * sent.paused_s if guessed else 0.0
        measured_s = max(0.05, now - began - paused_s)
        rate = max(sent.accepted, 1e-3) / measured_s
        block = now - closed_at >= BLOCK_S
        if block:  # a window has ended: what it accepted is the limit, whatever short pauses it had
            if now - sent.block_at <= 2.0 * MINUTE_S:
                rate = max(rate, sent.block_accepted / max(1.0, now - sent.block_at))
            if measured_s > MINUTE_S:
                rate = max(rate, sent.last_minute(now) / MINUTE_S)
        believed_s = max(0.05, now - began - sent.paused_s)
        if noisy:
            believed_s = min(believed_s, NOISY_S)
        if dimension.estimate is None or not sent.resumed:
            dimension.estimate = RateEstimate(rate, believed_s, now, dimension.usual or 1.0)
        else:
            dimension.estimate.learn(rate, believed_s, now, refusals=refusals)
        log.debug(
            "%s: %.4g let in within %.2f s: %.4g a second",
            name,
            sent.accepted,
            measured_s,
            dimension.estimate.rate,
        )
        self.start_stretch(now)

    def note_pause(self, paused_s: float) -> None:
        """Records a requested pause that may have been longer than needed, so that the stretch counts for less."""
        for dimension in self.dimensions:
            dimension.sent.paused_s += paused_s

    def start_stretch(self, now: float, *, block: bool = False) -> None:
        """Begins a new stretch, after a long pause (``block``) or a short one."""
        for dimension in self.dimensions:
            dimension.sent.start_stretch(now, block=block)

    def restart(self, now: float) -> None:
        """Starts every pace again after a pause, without catch-up."""
        for dimension in self.dimensions:
            dimension.pacer.restart(now)

    def slow_down(self, now: float) -> None:
        """Lowers the pace, because the endpoint asks for slower growth."""
        tokens = self.dimension(TOKENS)
        dimension = tokens if tokens.sent.accepted > 0 else self.dimension(REQUESTS)
        sent = dimension.sent
        lasted_s = 0.0 if sent.resumed_at is None else now - sent.resumed_at
        rate = max(0.01, sent.accepted / max(1.0, lasted_s))
        if dimension.ramp is None:
            dimension.ramp = Ramp(rate, now)
        else:
            dimension.ramp.refused(rate, now)
        self.start_stretch(now)

    def requests_per_s(self, now: float) -> float | None:
        """Returns the requests per second that the limits allow; ``None`` without a limit."""
        rates = []
        for dimension in self.dimensions:
            rate = dimension.rate(now, self.latency_s)
            if rate < math.inf and dimension.usual > 0.0:
                rates.append(rate / dimension.usual)
        return min(rates, default=None)

    def told_per_s(self) -> float | None:
        """Returns the requests per second that the user or headers told as limits; ``None`` without any."""
        told = [(d.told, d.usual) for d in self.dimensions if d.told < math.inf and d.usual > 0.0]
        return min((limit / MINUTE_S / usual for limit, usual in told), default=None)

    def learned(self) -> dict[str, float]:
        """Returns what the next run should know."""
        return {
            f"{d.name}_found_per_s": d.estimate.rate
            for d in self.dimensions
            if d.estimate is not None and d.estimate.measured_s >= LEARNED_S
        }
