"""Holding a grant by the endpoint's own account of it: a PI law on the level of its leaky bucket.

Where ``reset = used * period / limit`` holds, the limit is a leaky bucket: it holds ``limit``, leaks
``limit / period``, and every answer shows its level ``u = used / limit``. Sending at ``mult`` times the leak
moves the level by ``du/dt = (mult - share of others - 1) / period``: an integrator. The law

    mult = I + kp (u* - u),    dI/dt = ki (u* - u)

with u* = 0.25, kp = 1, ki = kp² / (4 * 60 s) is critically damped, and safe for headers up to a minute old.
It needs no estimate to be right: a charge that is 20 % off, or another client on the key, moves the level,
and the integral takes it out. Near the brim (u > 0.8) the pace falls to nothing.
"""

from batchllm.limiter.headers import Level
from batchllm.limiter.terms import DAY_S, MINUTE_S

SET_POINT = 0.25
PROPORTIONAL = 1.0
INTEGRAL_PER_S = PROPORTIONAL**2 / (4.0 * MINUTE_S)
_SMOOTHING = 0.3
_SAMPLES = 3


def period_of(level: Level) -> float | None:
    """The period of a leaky bucket that shows this level: a minute, a day, or ``None`` where it is no such."""
    if level.used is None or level.reset_s is None or level.used < 1.0:
        return None
    for period_s in (MINUTE_S, DAY_S):
        expected = level.used * period_s / level.limit
        if abs(level.reset_s - expected) <= max(0.06, 0.1 * expected) and level.reset_s > 0.3 * expected:
            return period_s
    return None


class Nature:
    """What kind of limit the answers show, once enough of them agree.

    Attributes:
        kind: ``minute`` or ``day`` (a leaky bucket of that period), ``window`` (a counter that starts anew at an
            instant), or ``None``: not known, or none of these.
        samples: Answers seen.
    """

    __slots__ = ("_edge", "_scores", "kind", "samples")

    def __init__(self) -> None:
        self.kind: str | None = None
        self.samples = 0
        self._scores = {"minute": 0, "day": 0, "window": 0}
        self._edge: float | None = None

    def observe(self, now: float, level: Level) -> None:
        """Takes note of what an answer shows."""
        if level.used is None or level.reset_s is None or level.used < 2.0:
            return
        self.samples += 1
        period_s = period_of(level)
        edge = now + level.reset_s
        same_edge = self._edge is not None and (abs(edge - self._edge) < 0.75 or now >= self._edge - 0.75)
        self._edge = edge
        named_day = level.period_s == DAY_S
        seen = {
            "minute": period_s == MINUTE_S and not named_day,
            "day": period_s == DAY_S or named_day,
            "window": period_s is None and same_edge and not named_day,
        }
        for kind, fits in seen.items():
            self._scores[kind] = min(20, self._scores[kind] + 1) if fits else max(0, self._scores[kind] - 2)
        best = max(self._scores, key=self._scores.__getitem__)
        self.kind = best if self._scores[best] >= _SAMPLES else None


class Lawful:
    """The controller of one limit of a minute.

    Attributes:
        multiple: The pace to hold, as a multiple of ``limit / period``.
        sent_at: When the request of the newest answer left.
    """

    __slots__ = ("_at", "_integral", "_level", "multiple", "sent_at")

    def __init__(self) -> None:
        self._level: float | None = None
        self._integral = 1.0
        self._at: float | None = None
        self.multiple = 1.0
        self.sent_at = float("-inf")

    def observe(self, now: float, sent_at: float, level: Level, *, binding: bool) -> None:
        """Takes note of what an answer shows; answers out of order are left out.

        Args:
            now: When it arrived.
            sent_at: When its request left.
            level: What it shows.
            binding: Whether this limit is what holds requests back; the integral rests where it is not.
        """
        if sent_at < self.sent_at or level.remaining is None or level.used is None:
            return
        self.sent_at = sent_at
        used = min(1.0, level.used / level.limit)
        self._level = used if self._level is None else self._level + _SMOOTHING * (used - self._level)
        error = SET_POINT - self._level
        if self._at is not None and binding:
            moved = self._integral + INTEGRAL_PER_S * error * min(10.0, now - self._at)
            self._integral = min(1.6, max(0.3, moved))
        self._at = now
        multiple = min(1.7, max(0.1, self._integral + PROPORTIONAL * error))
        if self._level > 0.8:
            multiple *= (1.0 - self._level) / 0.2
        self.multiple = max(0.02, multiple)

    def refused(self) -> None:
        """A refusal although the level looked safe: the next answer's level counts at once, and a little less for good.

        Until it comes half the pace is held. Nothing is made up about the level, because a refusal need not have
        come from this limit: a gateway, or a second's share of the minute, refuses far below the brim.
        """
        self._level = None
        self._integral = max(0.3, self._integral * 0.97)
        self.multiple = min(self.multiple, 0.5)
