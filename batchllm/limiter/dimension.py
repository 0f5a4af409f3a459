"""One limit of a lane, and the pace that follows from everything known about it."""

import logging
import math

from batchllm.limiter.header_pacer import HeaderPacer
from batchllm.limiter.pace import CATCH_UP_S, MARGIN, Pacer, WindowLog
from batchllm.limiter.rate_estimate import Ramp, RateEstimate, SendRecord
from batchllm.limiter.terms import MINUTE_S, REQUESTS

log = logging.getLogger("batchllm.limiter")

TOKEN_CATCH_UP_S = 2.0
LONGEST_CATCH_UP_S = 10.0
WIDEST_MARGIN = 0.055
_CLEAN_S = 1800.0
TAU_S = 2.0
"""The time over which the remaining amount in headers is spent, or one latency if that is longer."""
GIVEN_TAU_S = 0.5
"""The same if the user gave the limit, so that the remaining amount is only a safeguard."""
SURE_S = 2.0
"""If room is expected within this time, requests wait for it."""
LOOK_FIRST_S = 0.8
LOOK_LATER = 0.1


class Dimension:
    """Requests or tokens a minute.

    The pace is the least of what is known: the limit that the user gave, less a margin that widens with refusals; what
    headers show as left (``header_pacer``); what was found (``estimate``); a ramp after ``slow_down``.

    Args:
        name: ``requests``, ``tokens``, ``input_tokens`` or ``output_tokens``.
        now: The time now, in seconds.
        given: The limit per minute that the user gave; infinite without one.

    Attributes:
        given: The limit that the user gave, or the share of it that this run may use.
        whole: The whole limit.
        sent: What was sent.
        usual: The usual amount of a request.
        estimate: The estimated limit; set once refusals contradict what was given or shown.
    """

    def __init__(self, name: str, now: float, *, given: float = math.inf) -> None:
        self.name = name
        self.given = self.whole = given
        self.header_pacer: HeaderPacer | None = None
        self.estimate: RateEstimate | None = None
        self.ramp: Ramp | None = None
        self.margin = MARGIN
        self.sent = SendRecord()
        self.usual = 1.0 if name == REQUESTS else 0.0
        self.catch_up_s = CATCH_UP_S if name == REQUESTS else TOKEN_CATCH_UP_S
        self.pacer = Pacer(now, self.catch_up_s)
        self.log = WindowLog(given) if given < math.inf and name != REQUESTS else None
        self._clean_since = now
        self._last_at = -math.inf
        self._starved_since: float | None = None

    def share(self, now: float, share: float | None, whole: float | None) -> None:
        """Goes at a part of a limit that many runs share.

        Args:
            now: The time now.
            share: The part, a minute; ``None`` without a limit.
            whole: The whole limit, against which a request is too large; ``None`` is none.
        """
        # The minute before says nothing: the share was another one then. And nothing is caught up with at its expense.
        self.log = None
        self.pacer.catch_up_s = min(self.pacer.catch_up_s, CATCH_UP_S)
        self.whole = math.inf if whole is None else whole
        given = math.inf if share is None else share
        if given != self.given:
            kept = (1.0 - self.margin) / MINUTE_S
            self.pacer.change(now, self.given * kept, given * kept)
            self.given = given

    @property
    def known(self) -> bool:
        """Whether the limit was given, or is shown."""
        return self.given < math.inf or self.shown

    @property
    def shown(self) -> bool:
        """Whether headers show what is left, and are trusted."""
        return self.header_pacer is not None and self.header_pacer.samples > 0 and self.header_pacer.trusted

    @property
    def limit(self) -> float:
        """The whole limit per minute, given or shown; infinite if neither."""
        return self.whole if self.header_pacer is None else min(self.whole, self.shown_limit or math.inf)

    @property
    def shown_limit(self) -> float | None:
        """The limit per minute that several answers have shown; ``None`` without them."""
        pacer = self.header_pacer
        return pacer.limit if pacer is not None and pacer.samples >= 3 else None

    @property
    def told(self) -> float:
        """What this run may use per minute, as given or shown; infinite if neither."""
        return min(self.given, self.shown_limit or math.inf)

    def rate(self, now: float, latency_s: float) -> float:
        """Returns the current pace per second; infinite without a limit."""
        if self.margin > MARGIN and now - self._clean_since > _CLEAN_S:
            self._clean_since = now
            self.margin = max(MARGIN, self.margin / 1.25)
        rate = self.given * (1.0 - self.margin) / MINUTE_S
        if self.header_pacer is not None:
            tau_s = max(TAU_S, latency_s) if self.given > self.header_pacer.limit else GIVEN_TAU_S
            rate = min(rate, self.header_pacer.rate(now, self.usual or 1.0, tau_s))
        if self.estimate is not None:
            rate = min(rate, self.estimate.pace(now))
        if self.ramp is not None:
            rate = min(rate, self.ramp.pace(now))
        return rate

    def fits_at(self, now: float, amount: float) -> float:
        """Returns when an amount fits into what was sent within the minute and into what is shown as left."""
        at = now
        if self.log is not None and not self.shown:
            at = self.log.fits_at(now, min(amount, self.log.limit))
        pacer = self.header_pacer
        if pacer is None or not pacer.trusted:
            return at
        shown_at = pacer.fits_at(now, amount)
        sure = pacer.daily or pacer.kind == "window" or (shown_at or now) <= now + SURE_S
        if shown_at is None or not sure:
            # It is uncertain when there is room again: after a while one request is sent to find out.
            since = self._starved_since
            if since is None:
                since = self._starved_since = now
            look_at = (
                max(since, self._last_at) + LOOK_FIRST_S + LOOK_LATER * (max(since, self._last_at) - since)
            )
            shown_at = look_at if shown_at is None else min(shown_at, look_at)
        elif shown_at <= now:
            self._starved_since = None
        return max(at, shown_at)

    def take(self, now: float, amount: float, rate: float) -> list[float] | None:
        """Takes an amount; returns the entry for ``give_back``."""
        self.sent.add(now, amount)
        self._last_at = now
        if self.name != REQUESTS:
            self.usual = amount if not self.usual else self.usual + 0.05 * (amount - self.usual)
            if rate < math.inf and (self.log is not None or self.given == math.inf):
                # A large request is a burst; what the log holds back meanwhile has to be caught up with.
                self.pacer.widen(min(LONGEST_CATCH_UP_S, 2.0 * amount / rate))
        self.pacer.take(now, amount, rate)
        if self.header_pacer is not None:
            self.header_pacer.take(now, amount)
        return self.log.take(now, amount) if self.log is not None else None

    def refused(self, position: float, sent_at: float, amount: float, entry: list[float] | None) -> None:
        """Records that the request at a position was refused and took nothing."""
        self.sent.refused(position, sent_at, amount)
        if self.header_pacer is not None:
            self.header_pacer.give_back(position, amount)
            self.header_pacer.refused()
        if self.log is not None and entry is not None:
            self.log.give_back(entry, amount)

    def give_back(
        self, position: float, sent_at: float, entry: list[float] | None, given_back: float, rate: float
    ) -> None:
        """Gives back what was taken and not used."""
        self.sent.give_back(sent_at, given_back)
        self.pacer.give_back(given_back, rate)
        if self.header_pacer is not None:
            self.header_pacer.give_back(position, given_back)
        if self.log is not None and entry is not None:
            self.log.give_back(entry, given_back)

    def widen_margin(self, now: float) -> bool:
        """Lowers the pace a little after a refusal in spite of a given limit; returns whether that was possible."""
        self._clean_since = now
        if self.margin >= WIDEST_MARGIN:
            return False
        self.margin = min(WIDEST_MARGIN, 1.45 * self.margin)
        if self.name == REQUESTS:
            self.pacer.catch_up_s = max(0.01, self.pacer.catch_up_s / 2.0)
        log.debug("%s: margin now %.2f %%", self.name, 100.0 * self.margin)
        return True
