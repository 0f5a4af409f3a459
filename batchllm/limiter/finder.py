"""The search for a grant that nobody told: from the first refusal to a pace just under it.

What the endpoint accepted between two refusals *is* the limit: exactly for a leaky bucket between two times it
is full, exactly for a window between two times it opens. So every refusal gives an estimate; the pace resumes
just under it and grows, fast at first and slowly later, so that the next refusal comes when it teaches most:

- the first two rounds grow by half and by a quarter a minute, to leave a stored burst behind quickly;
- from then on the pace goes from 99 % to 100 % of the estimate in ``cycle`` seconds, chosen so that one refusal
  a cycle stays within one in two thousand requests;
- no refusal for more than two cycles means that the limit has risen: the pace grows faster and faster.

Refusals in quick succession mean that it has fallen: the cut doubles each time.
"""

import logging
import math

log = logging.getLogger("batchllm.limiter")

REFUSAL_BUDGET = 0.0005
PATIENCE = 2.0
_GROWTH = (1.5, 1.27, 1.10)
_BIN_S = 0.05
_KEPT_S = 130.0


class Sent:
    """How much left within the last two minutes, less what was refused: in bins, so that memory is bounded.

    Attributes:
        since_resume: The same since the last pause ended.
        resumed_at: When it ended, or when the first of all left.
        resumes: How many pauses there were.
        total: All that ever left.
    """

    __slots__ = ("_bins", "_paused_at", "resumed_at", "resumes", "since_resume", "total")

    def __init__(self) -> None:
        self._bins: dict[int, float] = {}
        self._paused_at = math.inf
        self.resumed_at: float | None = None
        self.resumes = 0
        self.since_resume = 0.0
        self.total = 0.0

    def add(self, now: float, amount: float) -> None:
        """An amount leaves."""
        if self.resumed_at is None:
            self.resumed_at = now
        self.since_resume += amount
        self.total += amount
        place = int(now / _BIN_S)
        bins = self._bins
        if place in bins:
            bins[place] += amount
            return
        bins[place] = amount
        horizon = (min(now, self._paused_at) - _KEPT_S) / _BIN_S
        while (oldest := next(iter(bins))) < horizon:
            del bins[oldest]

    def refused(self, sent_at: float, amount: float) -> None:
        """What left at ``sent_at`` was refused."""
        place = int(sent_at / _BIN_S)
        if place in self._bins:
            self._bins[place] -= amount
        if self.resumed_at is not None and sent_at >= self.resumed_at:
            self.since_resume -= amount

    def between(self, start: float, end: float) -> float:
        """What left from ``start`` to ``end`` and was not refused."""
        first, last = start / _BIN_S, end / _BIN_S
        return sum(amount for place, amount in self._bins.items() if first <= place + 0.5 <= last)

    def pause(self, now: float) -> None:
        """A pause begins: what left before it is kept until it has been learned from."""
        self._paused_at = now

    def resume(self, now: float) -> None:
        """A pause has ended."""
        self._paused_at = math.inf
        self.resumed_at = now
        self.resumes += 1
        self.since_resume = 0.0


class Finder:
    """The pace of one unit (requests or tokens), in amount per second.

    Attributes:
        estimate: What the endpoint is believed to grant.
        hard: The most that has been accepted within a minute before a refusal that lasted; a window limit.
        ceiling: What the user told, where refusals came in spite of it.
    """

    def __init__(
        self, now: float, *, estimate: float | None = None, rounds: int = 0, ceiling: float = math.inf
    ) -> None:
        self.estimate = estimate
        self.hard: float | None = None
        self.ceiling = ceiling
        self._rounds = rounds
        self._quick = 0
        self._resumed_at = now
        self._started_at = now
        self._cycle_s = 240.0
        self._blocks = 0

    def rate(self, now: float) -> float:
        """The pace now."""
        assert self.estimate is not None
        since = max(0.0, now - self._resumed_at)
        if self._rounds < 3:
            rate = 0.98 * self.estimate * math.pow(_GROWTH[self._rounds], since / 60.0)
        else:
            rate = self.estimate * (0.99 + 0.01 * since / self._cycle_s)
            beyond = since - PATIENCE * self._cycle_s
            if beyond > 0.0:
                rate *= math.exp(min(20.0, 0.12 * (beyond / 60.0) ** 2))
        return min(rate, self.ceiling)

    def refused(self, closed_at: float, resumed_at: float, refusals: int, sent: Sent, requests: Sent) -> None:
        """An epoch of refusal is over.

        Args:
            closed_at: When it began.
            resumed_at: When its probe was accepted.
            refusals: How many it brought.
            sent: Amounts that left and were not refused; ``since_resume`` counts from the last resumption.
            requests: The same in requests.
        """
        running = max(0.05, closed_at - self._resumed_at)
        if self.estimate is None:
            span = min(10.0, max(0.5, closed_at - self._started_at))
            rate = sent.between(closed_at - span, closed_at) / span
        else:
            rate = self.rate(closed_at)
        accepted = sent.since_resume
        quick = self.estimate is not None and running < max(15.0, 20.0 / max(1e-9, rate))
        self._quick = self._quick + 1 if quick else 0
        share = (refusals - 1) / max(1.0, refusals + requests.between(closed_at - 2.0, closed_at))
        cut = min(0.5, max(share, 0.01 * 2.0 ** min(self._quick, 10)))
        blocked = resumed_at - closed_at
        if blocked >= 2.0:
            self._blocks += 1
            whole = accepted / (resumed_at - self._resumed_at)
            minute = sent.between(resumed_at - 60.0, closed_at) / 60.0
            found = min(rate, max(whole, minute))
            if closed_at - self._started_at >= 60.0:
                self.hard = sent.between(closed_at - 60.0, closed_at)
        elif not quick and running >= 60.0:
            found = min(0.995 * rate, max(accepted / running, rate * (1.0 - cut)))
        else:
            found = rate * (1.0 - cut)
        recent = sent.between(closed_at - 120.0, closed_at) / min(
            120.0, max(1.0, closed_at - self._started_at)
        )
        self.estimate = min(self.ceiling, max(found, 0.45 * recent, 0.01))
        if not quick:
            self._rounds += 1
        if self._quick >= 4 and self._rounds >= 3:
            self._rounds = 1
        if self._blocks == 2:
            self._rounds = max(self._rounds, 3)
        self._set_cycle(refusals, self.estimate, sent, requests)
        self._resumed_at = resumed_at
        log.debug(
            "finder: refused %d times after %.1f s at %.4g/s, blocked %.2f s, quick %d, round %d: estimate %.6g/s",
            refusals, running, rate, blocked, self._quick, self._rounds, self.estimate,
        )  # fmt: skip

    def _set_cycle(self, refusals: int, estimate: float, sent: Sent, requests: Sent) -> None:
        """How long a cycle must be so that its refusals stay within the budget."""
        unit = sent.since_resume / max(1.0, requests.since_resume)
        per_second = estimate / max(1e-9, unit)
        longest = min(900.0, max(240.0, 1000.0 / per_second))
        self._cycle_s = min(longest, max(30.0, refusals / (REFUSAL_BUDGET * per_second) / 2.0))


class Ramp:
    """The pace after ``slow_down``: well below what was too much, then at most 40 % more every 15 minutes.

    OpenAI's rule is 50 % every 15 minutes once a million input tokens a minute are reached.
    """

    __slots__ = ("_base", "_since")

    def __init__(self, rate: float, now: float) -> None:
        self._base = 0.7 * rate
        self._since = now

    def rate(self, now: float) -> float:
        """The pace now, per second."""
        return self._base * math.pow(1.4, min(40.0, max(0.0, now - self._since) / 900.0))

    def refused(self, rate: float, now: float) -> None:
        """Too much again."""
        self._base = 0.7 * min(rate, self.rate(now))
        self._since = now
