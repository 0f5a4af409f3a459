"""Pacing: a due time for each limit, and the exact log of a minute.

Theorem (why this is inside every server's model). GCRA (ITU-T I.371) at rate ``r = L(1-m)/W`` with catch-up
``tau`` lets at most ``r * (X + tau) + 1`` through in any span ``X``. With arrivals jittering within ``J``, any
window ``W`` of the server holds at most ``r * (W + tau + J) + 1`` requests, so a limit of ``L`` per ``W`` is
kept whenever ``tau + J <= m * W / (1 - m)``: ``m`` = 0.5 % of a minute is 300 ms, 50 of them for catch-up and
250 for the network. A bucket that starts full would double the first minute; no catch-up at all would lose
what every late timer loses.

Tokens are borrowed, then paid: an amount of any size may go as soon as what was taken before has been paid
for, so the wait never depends on the waiting request's own size, and nothing blocks the head of the line. What
a strict window would object to is held back by ``WindowLog``, which remembers what left within the window.
"""

from collections import deque

MARGIN = 0.005
CATCH_UP_S = 0.05
GUARD_S = 0.25
BIN_S = 0.02


class Pacer:
    """The due time of the next request: the last attempt plus its amount over the rate of this instant.

    A debt is one request at the present rate, never a sum: a rate that rises is felt at once, and a request
    that no rate held back leaves no debt behind.

    Args:
        now: The present; there is no burst at the start but what may be caught up with.
        catch_up_s: How far behind its schedule it may catch up.
    """

    __slots__ = ("_amount", "_last", "catch_up_s")

    def __init__(self, now: float, catch_up_s: float = CATCH_UP_S) -> None:
        self.catch_up_s = catch_up_s
        self._last = now - catch_up_s  # when the last attempt was due
        self._amount = 0.0

    def ready_at(self, rate: float) -> float:
        """The earliest instant of the next attempt, whatever its size.

        Args:
            rate: Amount per second, as of this instant; may be infinite.
        """
        return self._last + self._amount / rate

    def widen(self, catch_up_s: float) -> None:
        """Lets it catch up with more than before."""
        more_s = catch_up_s - self.catch_up_s
        if more_s > 0.0:
            self.catch_up_s = catch_up_s
            self._last -= more_s

    def take(self, now: float, amount: float, rate: float) -> None:
        """An amount departs."""
        due = self._last + self._amount / rate
        self._last = now if due > now else max(due, now - self.catch_up_s)
        self._amount = amount

    def give_back(self, amount: float, rate: float) -> None:
        """Returns what was taken and not used; negative to take what was used beyond."""
        self._last -= amount / rate

    def restart(self, now: float) -> None:
        """After a pause: no catching up, and the next attempt one request away."""
        self._last = max(self._last, now)
        self._amount = max(self._amount, 1.0)


class WindowLog:
    """What left within the last window, so that no window of the server can hold more than the limit.

    Amounts that left within 20 ms share an entry, so memory is bounded; each is remembered for as much longer,
    so the error is on the safe side.
    """

    __slots__ = ("_entries", "_kept_s", "limit", "total")

    def __init__(self, limit: float, window_s: float = 60.0) -> None:
        self.limit = limit
        self._kept_s = window_s + GUARD_S + BIN_S
        self.total = 0.0
        self._entries: deque[list[float]] = (
            deque()
        )  # [instant of the first, amount]; instant -1 once it has left

    def _expire(self, now: float) -> None:
        horizon = now - self._kept_s
        entries = self._entries
        while entries and entries[0][0] <= horizon:
            gone = entries.popleft()
            self.total -= gone[1]
            gone[0] = -1.0
        if not entries:
            self.total = 0.0

    def fits_at(self, now: float, amount: float) -> float:
        """When an amount fits: ``now`` or before it, a later instant, or infinity where it never does."""
        self._expire(now)
        excess = self.total + amount - self.limit
        if excess <= 0.0:
            return now
        for instant, entry_amount in self._entries:
            excess -= entry_amount
            if excess <= 1e-9:
                return instant + self._kept_s
        return float("inf")

    def take(self, now: float, amount: float) -> list[float]:
        """Takes an amount; keep what it returns for ``give_back``."""
        self.total += amount
        if self._entries and now - self._entries[-1][0] < BIN_S:
            entry = self._entries[-1]
            entry[1] += amount
            return entry
        entry = [now, amount]
        self._entries.append(entry)
        return entry

    def give_back(self, entry: list[float], given_back: float) -> None:
        """Corrects an amount taken earlier; one that has left the window changes nothing."""
        if entry[0] >= 0.0:
            entry[1] -= given_back
            self.total -= given_back
