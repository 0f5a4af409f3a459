"""Paces requests by what headers show as left of a limit: what is left is spent over two seconds.

One rule serves buckets and windows, small jobs and large ones, one client and several: ``rate = left / tau``. ``left``
is what the newest answer shows, less what has been sent after its request, plus what has been refilled. In a bucket
that refills at ``r``, ``left`` converges to ``r * tau``; a window is spent, and its edge is waited for. The refill is
measured from successive answers, so a limit without a reset is still kept.
"""

import math

from batchllm.limiter.headers import Level
from batchllm.limiter.rate_estimate import SendRecord
from batchllm.limiter.terms import DAY_S, MINUTE_S

LAST_GAP_S = 0.85
"""The longest gap between two requests while a whole one is left; longer where a minute grants fewer."""
AFTER_EDGE_S = 0.1
SLIDES = 0.1
"""A window that refills by more than this share of its pace is a sliding one."""
LONG_RESET_S = 1200.0
_FLOW_S = 8.0
_SLIDING_SHARE = 0.7
"""The part of a sliding window's measured refill that is counted on, as the refill may be falling."""
_SAMPLES = 3
_MAX_STUCK_ANSWERS = 4
_TRIAL_REQUESTS = 8.0
"""What is sent behind the first edge of a window before an answer shows that the window started anew."""


def period_of(level: Level) -> float | None:
    """Returns the period of a leaky bucket that shows this level: a minute, a day, or ``None`` if it is no such bucket.

    Such a bucket holds ``limit``, leaks ``limit / period``, and shows ``reset = used * period / limit``.
    """
    if level.used is None or level.reset_s is None or level.used < 1.0:
        return None
    for period_s in (MINUTE_S, DAY_S):
        expected = level.used * period_s / level.limit
        if abs(level.reset_s - expected) <= max(0.06, 0.1 * expected) and level.reset_s > 0.3 * expected:
            return period_s
    return None


class HeaderKind:
    """Finds out what kind of limit the headers show, once enough answers agree.

    A relation that holds in one answer may hold by chance. So only answers a second apart count, and an edge counts as
    the same only if it stood still for two seconds.

    Attributes:
        kind: ``minute`` or ``day`` (a leaky bucket of that period), ``window`` (a counter that starts anew at an
            instant), or ``None``: not known, or none of these.
        late: Levels are written when the answer leaves, not when its request arrives: the edges of a window then
            agree better by the arrival of the answers.
    """

    def __init__(self) -> None:
        self.kind: str | None = None
        self.late = False
        self._scores = {"minute": 0, "day": 0, "window": 0}
        self._scored_at = -math.inf
        self._anchor: tuple[float, float] | None = None  # (instant, edge)
        self._edges = (-math.inf, -math.inf)
        self._spreads = (0.0, 0.0)

    def observe(self, sent_at: float, now: float, level: Level) -> None:
        """Takes note of what an answer shows."""
        if level.used is None or level.reset_s is None or level.used < 2.0:
            return
        self._compare(sent_at + level.reset_s, now + level.reset_s)
        if sent_at - self._scored_at < 1.0:
            return
        self._scored_at = sent_at
        period_s = period_of(level)
        self._score("minute", fits=period_s == MINUTE_S)
        self._score("day", fits=period_s == DAY_S)
        edge = (now if self.late else sent_at) + level.reset_s
        if self._anchor is None or sent_at >= self._anchor[1] - 0.75:
            self._anchor = (sent_at, edge)
        elif sent_at - self._anchor[0] >= 2.0:
            self._score("window", fits=abs(edge - self._anchor[1]) < 0.75)
            self._anchor = (sent_at, edge) if self.kind != "window" else self._anchor
        best = max(self._scores, key=self._scores.__getitem__)
        self.kind = best if self._scores[best] >= _SAMPLES else None

    def _score(self, kind: str, *, fits: bool) -> None:
        self._scores[kind] = (
            min(20, self._scores[kind] + 1)
            if fits
            else max(min(0, self._scores[kind]), self._scores[kind] - 2)
        )

    def deny_window(self) -> None:
        """Records that the limit does not start again at its edge, so it is no window."""
        self._scores["window"] = -20
        self._anchor = None
        self.kind = None

    def _compare(self, edge: float, edge_late: float) -> None:
        """Finds out whether edges agree better by the sending of requests or by the arrival of answers."""
        moved, moved_late = abs(edge - self._edges[0]), abs(edge_late - self._edges[1])
        self._edges = (edge, edge_late)
        if max(moved, moved_late) < 10.0:
            spread, spread_late = self._spreads
            self._spreads = spread + 0.1 * (moved - spread), spread_late + 0.1 * (moved_late - spread_late)
            self.late = self._spreads[1] < 0.5 * self._spreads[0]


class HeaderPacer:
    """What is left of one limit, as headers show it, and the pace that follows.

    Args:
        name: The dimension.

    Attributes:
        limit: The grant per period, as shown.
        samples: Answers that showed what is left.
        daily: It is a limit of a day.
        leaks: A day's limit comes back little by little, not all at once.
        answered: Whether an answer that is no refusal has shown it.
        trusted: False while the level stays at nothing although requests are accepted.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.limit = math.inf
        self.samples = 0
        self.answered = False
        self.trusted = True
        self.daily = False
        self.leaks = False
        self._header_kind = HeaderKind()
        self._left = math.inf
        self._level = 0.0  # as the newest answer shows it
        self._at = 0.0  # of that level
        self._sent_at = -math.inf
        self._position = -1.0
        self._edge: float | None = None
        self._refilled = self._refill_s = 0.0
        self._stuck_answers = 0
        self._turned = False
        self._turns_whole = False  # a window was seen to start anew as a whole

    def observe(
        self, now: float, sent_at: float, position: float, sent: SendRecord, level: Level, *, accepted: bool
    ) -> None:
        """Takes note of an answer; one whose request left before that of the newest is left out.

        Args:
            now: When it arrived.
            sent_at: When its request left.
            position: ``sent.total`` once its request had left.
            sent: What has left.
            level: What it shows.
            accepted: It is no refusal.
        """
        if level.remaining is None or position < self._position or sent_at < self._sent_at:
            return
        self.limit = level.limit
        self._header_kind.observe(sent_at, now, level)
        self.daily = self.kind == "day" or level.period_s == DAY_S or (level.reset_s or 0.0) > LONG_RESET_S
        self.leaks = self.kind == "day"
        if self.samples:
            self._measure(sent_at, position, sent, level.remaining)
            self._judge(level.remaining, accepted=accepted)
        self.samples += 1
        if accepted:
            self._turns_whole = self._turns_whole or (self._turned and level.remaining > 0.5 * self.limit)
            self._turned = False
            self.answered = True
        self._position, self._sent_at, self._level = position, sent_at, level.remaining
        self._at = sent_at
        of = now if self._header_kind.late else sent_at
        self._edge = None if level.reset_s is None else of + level.reset_s
        self._left = level.remaining - sent.since(position)

    def _measure(self, sent_at: float, position: float, sent: SendRecord, remaining: float) -> None:
        """Measures the refill since the newest level, unless the limit was full or a window turned."""
        whole = 0.98 * self.limit
        elapsed_s = sent_at - self._at
        refilled = remaining - self._level + sent.between(self._position, position)
        turned = refilled > 0.4 * self.limit and elapsed_s < 0.35 * MINUTE_S
        if turned or self._level >= whole or remaining >= whole:
            return
        kept = math.exp(-elapsed_s / _FLOW_S)
        self._refilled = kept * self._refilled + refilled
        self._refill_s = kept * self._refill_s + elapsed_s

    def _judge(self, remaining: float, *, accepted: bool) -> None:
        if remaining >= 1.0 or self._level >= 1.0 or not accepted:
            self._stuck_answers = 0
            self.trusted = True
            return
        self._stuck_answers += 1
        if self._stuck_answers >= _MAX_STUCK_ANSWERS:
            self.trusted = False

    @property
    def refill_per_s(self) -> float:
        """The refill per second, averaged over the last seconds; 0 if it is not known."""
        if self.daily:
            return self.limit / DAY_S if self.leaks else 0.0
        if self.kind == "window":
            measured = self._refilled / self._refill_s if self._refill_s >= 1.0 else 0.0
            return _SLIDING_SHARE * measured if measured > SLIDES * self.limit / MINUTE_S else 0.0
        leak = self.limit / MINUTE_S if self.kind == "minute" else math.inf
        if self._refill_s < 1.0:
            return leak if leak < math.inf else 0.0
        return min(leak, max(0.0, self._refilled / self._refill_s))

    @property
    def kind(self) -> str | None:
        """``minute``, ``day``, ``window``, or ``None``, as in ``HeaderKind``."""
        return self._header_kind.kind

    def left(self, now: float, amount: float = 1.0) -> float:
        """Returns what may still be sent, in requests of an amount."""
        if self._edge_passed(now):
            return self._left_after_edge(amount)
        return min(self.limit, self._left + self.refill_per_s * max(0.0, now - self._at))

    def rate(self, now: float, amount: float, tau_s: float) -> float:
        """Returns the pace for requests of an amount, per second."""
        if self.daily or not self.trusted or not self.samples:
            return math.inf
        gap_s = max(LAST_GAP_S, 1.2 * amount * MINUTE_S / self.limit)
        return max(self.left(now, amount) / tau_s, amount / gap_s)

    def take(self, now: float, amount: float) -> None:
        """Takes an amount that is sent."""
        if self._edge_passed(now):
            self._left, self._at, self._edge = self._left_after_edge(amount), now, None
            self._turned = True
        self._left -= amount

    def _edge_passed(self, now: float) -> bool:
        return self.kind == "window" and self._edge is not None and now > self._edge + AFTER_EDGE_S

    def _left_after_edge(self, amount: float) -> float:
        return self.limit if self._turns_whole else min(self.limit, _TRIAL_REQUESTS * amount)

    def outdated(self, sent_at: float) -> bool:
        """Returns whether only refusals have shown it, and a request sent later was accepted without such headers."""
        return self.samples > 0 and not self.answered and sent_at > self._sent_at

    def refused(self) -> None:
        """Records a refusal; if a window was assumed to have turned, it is no window."""
        if self._turned:
            self._turned = False
            self._header_kind.deny_window()

    def give_back(self, position: float, amount: float) -> None:
        """Gives back what the request at a position did not take."""
        if position > self._position:
            self._left += amount

    def fits_at(self, now: float, amount: float) -> float | None:
        """Returns when an amount fits: ``now``, a later instant, or ``None`` if nothing says when."""
        if not self.trusted or not self.samples:
            return now
        short = min(amount, self.limit) - self.left(now, amount)
        if short <= 0.0:
            return now
        if self.kind == "window" or (self.daily and not self.leaks):
            return None if self._edge is None else self._edge + 1.5 * AFTER_EDGE_S
        back = self.refill_per_s
        return now + short / back if back > 0.0 else None

    def full_at(self, now: float) -> float:
        """Returns when the limit is full again, as far as the answers say."""
        if self.leaks:
            return now + (self.limit - self.left(now)) / self.refill_per_s
        return math.inf if self._edge is None else self._edge

    def to_text(self, now: float) -> str:
        """Returns a sentence about a spent daily limit: when how many requests fit again."""
        what = f"the day's {self.limit:,.0f} {self.name.replace('_', ' ')}"
        hours = max(0.0, self.full_at(now) - now) / 3600.0
        if self.leaks:
            when = f"{self.limit / 24.0:,.0f} more fit in an hour, {self.limit:,.0f} in {hours:,.1f} h"
        else:
            when = f"{self.limit:,.0f} more fit in {hours:,.1f} h"
        return f"{what} are spent; {when}: give the same command then, or --max-wait 24h to go on as they come back"
