"""Pacing: when the next request is due, and the log of what was sent within the last minute.

The pace keeps the limit whatever window the server counts in. GCRA (ITU-T I.371) at rate ``r = L(1-m)/W`` with
catch-up ``tau`` lets at most ``r * (X + tau) + 1`` requests through in any span ``X``. If the network delays each by
up to ``J``, any window ``W`` of the server holds at most ``r * (W + tau + J) + 1``, so a limit of ``L`` per ``W`` is
kept while ``tau + J <= m * W / (1 - m)``. With ``m`` = 0.5 % of a minute that is 300 ms: 50 for catch-up and 250 for
the network. A bucket that starts full would send twice the limit in the first minute; without catch-up, every timer
that is late would lower the rate.

An amount of any size may be sent once the amount before it is paid for by elapsed time. So a wait does not depend on
the size of the waiting request, and a large one does not block the queue. ``WindowLog`` holds back what would exceed a
server's strict window.
"""

from collections import deque

from batchllm.limiter.terms import MINUTE_S

MARGIN = 0.005
CATCH_UP_S = 0.05
GUARD_S = 0.25
BIN_S = 0.02


class Pacer:
    """Computes when the next request is due: its predecessor's due time plus that one's amount over the current rate.

    A debt is one request at the current rate, never a sum. So a new rate holds at once, and requests sent without a
    rate leave no debt.

    Args:
        now: The time now, in seconds.
        catch_up_s: How late a request may be and still be caught up with.
    """

    def __init__(self, now: float, catch_up_s: float = CATCH_UP_S) -> None:
        self.catch_up_s = catch_up_s
        self._last = now - catch_up_s  # when the last attempt was due
        self._amount = 0.0

    def ready_at(self, rate: float) -> float:
        """Returns the earliest time of the next request, whatever its size.

        Args:
            rate: The current amount per second; may be infinite.
        """
        return self._last + self._amount / rate

    def change(self, now: float, rate: float, new_rate: float) -> None:
        """Replaces the rate, so that what has elapsed is paid for at the old one, and only the rest at the new one."""
        if rate == float("inf") or new_rate == float("inf") or not rate or not new_rate:
            return
        early_s = now - self.ready_at(rate)  # it has been ready for so long, or will be ready so much later
        ready_at = now - min(early_s, self.catch_up_s) if early_s > 0.0 else now - early_s * rate / new_rate
        self._last = ready_at - self._amount / new_rate

    def widen(self, catch_up_s: float) -> None:
        """Raises the catch-up to ``catch_up_s``."""
        more_s = catch_up_s - self.catch_up_s
        if more_s > 0.0:
            self.catch_up_s = catch_up_s
            self._last -= more_s

    def take(self, now: float, amount: float, rate: float) -> None:
        """Records that an amount is sent."""
        due = self._last + self._amount / rate
        self._last = now if due > now else max(due, now - self.catch_up_s)
        self._amount = amount

    def give_back(self, amount: float, rate: float) -> None:
        """Gives back what was taken and not used; a negative amount was used in addition."""
        self._last -= amount / rate

    def restart(self, now: float) -> None:
        """Starts again after a pause, without catch-up: the next request is due one request later."""
        self._last = max(self._last, now)
        self._amount = max(self._amount, 1.0)


class WindowLog:
    """Logs what was sent within the last minute, so that no window of the server holds more than the limit.

    Amounts sent within 20 ms share an entry, which bounds the memory; an entry is kept 20 ms longer for it.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._kept_s = MINUTE_S + GUARD_S + BIN_S
        self.total = 0.0
        self._entries: deque[list[float]] = (
            deque()
        )  # [time of the first, amount]; the time is -1 once it has expired

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
        """Returns when an amount fits: ``now``, a later time, or infinity if it never does."""
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
        """Takes an amount; returns the entry for ``give_back``."""
        self.total += amount
        if self._entries and now - self._entries[-1][0] < BIN_S:
            entry = self._entries[-1]
            entry[1] += amount
            return entry
        entry = [now, amount]
        self._entries.append(entry)
        return entry

    def give_back(self, entry: list[float], given_back: float) -> None:
        """Gives back a part of an amount taken earlier; does nothing if that has left the window."""
        if entry[0] >= 0.0:
            entry[1] -= given_back
            self.total -= given_back
