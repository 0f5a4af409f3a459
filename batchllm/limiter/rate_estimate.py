"""Estimates a limit that nobody gave: the amount accepted from one pause to the next, divided by that time.

That quotient *is* the limit: exactly for a bucket between two times when it is empty, and for a window between two
times when it opens. The estimate is held for a span, twice as long as it took to measure; then the pace doubles every
span. So a weak estimate is left quickly, and a strong one is rarely exceeded. A pace held for a whole span is proven.
"""

import math

from batchllm.limiter.terms import MINUTE_S

BELOW = 0.98
"""The share of an estimate to send at; the rest lets a bucket fill, and allows for the edge of a window."""
SLOWLY = 0.05
SLOWLY_SPANS = 0.25
"""In the first quarter of a span the pace rises a little beyond the estimate, where a true limit refuses."""
MIN_ACCEPTED = 3
LEAST_S = 1.0
LONGEST_S = 300.0
MOST_AMOUNTS = 1000.0
"""The most requests in a span, for each refusal that its last pause cost."""
FIRST_SPAN_S = 20.0
"""The longest span of an estimate from before the first pause: it includes what a bucket had stored."""
_FASTEST = 1e6
_BIN_S = 0.25
_SOFT_START_PER_S = 4.0
_SOFT_START_S = 0.5


class SendRecord:
    """What has been sent in a dimension, and how much of it was accepted in the present stretch.

    Attributes:
        total: Everything ever sent; after a request is sent, its position.
        accepted: The amount sent in this stretch and not refused.
        resumed_at: When the stretch began: at the first request, or at the end of a pause.
        resumed: Whether it began with a pause; before the first one, what a bucket had stored is accepted too.
        block_accepted, block_at: The same as ``accepted`` and ``resumed_at`` since the last long pause.
        paused_s: Seconds of short requested pauses in this stretch.
    """

    def __init__(self) -> None:
        self.total = 0.0
        self.accepted = 0.0
        self.resumed_at: float | None = None
        self.resumed = False
        self.paused_s = 0.0
        self.block_accepted = 0.0
        self.block_at = 0.0
        self._bins: dict[int, float] = {}
        self._refused: list[tuple[float, float]] = []  # (position, amount), the newest last

    def add(self, now: float, amount: float) -> None:
        """Records an amount that is sent."""
        if self.resumed_at is None:
            self.resumed_at = self.block_at = now
        self.total += amount
        self.accepted += amount
        self.block_accepted += amount
        place = int(now / _BIN_S)
        if place in self._bins:
            self._bins[place] += amount
            return
        self._bins[place] = amount
        while (oldest := next(iter(self._bins))) < place - 4 * MINUTE_S / _BIN_S:
            del self._bins[oldest]

    def give_back(self, sent_at: float, amount: float) -> None:
        """Records that what was sent at an instant took less."""
        if self.resumed_at is not None and sent_at >= self.resumed_at:
            self.accepted -= amount
        if sent_at >= self.block_at:
            self.block_accepted -= amount

    def refused(self, position: float, sent_at: float, amount: float) -> None:
        """Records that the request at a position was refused."""
        self.give_back(sent_at, amount)
        place = int(sent_at / _BIN_S)
        if place in self._bins:
            self._bins[place] -= amount
        self._refused.append((position, amount))
        del self._refused[:-256]

    def since(self, position: float) -> float:
        """Returns what was sent after a position and not refused."""
        return self.total - position - sum([amount for at, amount in self._refused if at > position])

    def between(self, first: float, last: float) -> float:
        """Returns what was sent after one position, up to another, and not refused."""
        return last - first - sum([amount for at, amount in self._refused if first < at <= last])

    def last_minute(self, now: float) -> float:
        """Returns what was sent within the last minute and not refused."""
        first = (now - MINUTE_S) / _BIN_S
        return sum([amount for place, amount in self._bins.items() if place >= first])

    def start_stretch(self, now: float, *, block: bool = False) -> None:
        """Begins a new stretch, after a long pause (``block``) or a short one."""
        self.resumed_at = now
        self.resumed = True
        self.paused_s = 0.0
        self.accepted = 0.0
        if block:
            self.block_at = now
            self.block_accepted = 0.0


class RateEstimate:
    """An estimate of a limit, in amount per second, and the pace that follows from it.

    Args:
        rate: The estimate.
        measured_s: How long it took to measure.
        now: The present.
        usual: The usual amount of a request.

    Attributes:
        rate: The estimate.
        measured_s: How long it took to measure.
        span_s: How long it is held, and how long each doubling takes after that.
        since: The start of the span.
        guessed: Whether it was not measured.
        between_pauses: Whether it was measured from one pause to the next; the first estimate is not.
        proven_rate: A pace that has been held for a whole span; 0 if there is none.
    """

    def __init__(self, rate: float, measured_s: float, now: float, usual: float = 1.0) -> None:
        self.proven_rate = 0.0
        self.guessed = False
        self.between_pauses = False
        self._doubts = 0
        self._best = rate
        self.usual = usual
        self._start_span(rate, measured_s, now)

    @classmethod
    def soft_start(cls, now: float, usual: float) -> "RateEstimate":
        """Returns the start where nothing is known after a pause: a few requests a second, doubled every second."""
        found = cls(_SOFT_START_PER_S * usual, _SOFT_START_S, now, usual)
        found.guessed = True
        return found

    def _start_span(self, rate: float, measured_s: float, now: float, refusals: int = 1) -> None:
        self.rate = max(rate, 1e-6)
        self.measured_s = measured_s
        self.since = now
        thousand_s = MOST_AMOUNTS * self.usual / self.rate
        span_s = min(2.0 * measured_s, LONGEST_S, thousand_s)
        if not self.between_pauses:
            span_s = min(span_s, FIRST_SPAN_S)
        elif measured_s >= MINUTE_S:
            span_s = max(span_s, min(LONGEST_S, refusals * thousand_s))
        self.span_s = max(LEAST_S, span_s)

    @property
    def doubted(self) -> bool:
        """Whether the last measurement was lower, and the proven rate was kept."""
        return self._doubts > 0

    def pace(self, now: float) -> float:
        """Returns the pace now, per second."""
        spans = (now - self.since) / self.span_s - 1.0
        if spans <= 0.0:
            return BELOW * self.rate
        slowly = 1.0 + SLOWLY * min(1.0, spans / SLOWLY_SPANS)
        faster = math.pow(2.0, min(60.0, max(0.0, spans - SLOWLY_SPANS)))
        return min(_FASTEST * self.usual, BELOW * self.rate * slowly * faster)

    def within_span(self, now: float) -> bool:
        """Returns whether the estimate is still held, so that a refusal contradicts it."""
        return now - self.since <= self.span_s

    def learn(self, rate: float, measured_s: float, now: float, *, refusals: int) -> None:
        """Takes the measurement of another stretch, whose last pause cost this many refusals.

        A proven rate outlasts one measurement below it; two in a row say that the limit has fallen.
        """
        if self.within_span(now):
            self._best = max(self._best, self.rate)
        else:
            self._best = rate
            self.proven_rate = max(self.proven_rate, min(BELOW * self.rate, rate))
        if rate < 0.9 * self.proven_rate:
            self._doubts += 1
            if self._doubts < 2:
                rate = self.proven_rate
            else:
                self.proven_rate = 0.0
        else:
            self._doubts = 0
        self.guessed = False
        self.between_pauses = True
        self._start_span(rate, measured_s, now, refusals)

    def restore(self, now: float, measured_s: float = LEAST_S) -> None:
        """Undoes a fall that came from noise; the estimate counts as measured for ``measured_s``."""
        self._start_span(max(self._best, self.rate), measured_s, now)


class Ramp:
    """The pace after ``slow_down``: well below what was too much, then at most 40 % more every 15 minutes.

    OpenAI's rule is 50 % every 15 minutes once a million input tokens a minute are reached.
    """

    def __init__(self, rate: float, now: float) -> None:
        self._base = 0.7 * rate
        self._since = now

    def pace(self, now: float) -> float:
        """Returns the pace now, per second."""
        return self._base * math.pow(1.4, min(40.0, max(0.0, now - self._since) / 900.0))

    def refused(self, rate: float, now: float) -> None:
        """Lowers the pace again."""
        self._base = 0.7 * min(rate, self.pace(now))
        self._since = now
