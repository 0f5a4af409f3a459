"""One limit of a lane, and which law sets its pace."""

import logging
import math

from batchllm.limiter.finder import Finder, Ramp
from batchllm.limiter.lawful import Lawful
from batchllm.limiter.pace import CATCH_UP_S, MARGIN, Pacer, WindowLog
from batchllm.limiter.terms import MINUTE_S, REQUESTS

log = logging.getLogger("batchllm.limiter")

TOKEN_CATCH_UP_S = 2.0
LONGEST_CATCH_UP_S = 10.0
WIDEST_MARGIN = 0.055
_CLEAN_S = 1800.0


class Dimension:
    """Requests or tokens a minute, held by the best law there is.

    The laws, best first: the endpoint's own level (``lawful``); a limit that is known, less a margin that
    widens with every refusal; a limit that is searched for (``finder``, ``ramp``).

    Args:
        name: ``requests``, ``tokens``, ``input_tokens`` or ``output_tokens``.
        now: The present.
        limit: The grant per minute; infinite where it is searched for.
        told: The user told the limit, rather than the endpoint.
        search: What searches for it.

    Attributes:
        taken: All that has been granted, for comparing with what an answer shows.
        refunded: All that has been given back.
    """

    __slots__ = (
        "_clean_since",
        "_governed_at",
        "lawful",
        "limit",
        "log",
        "margin",
        "name",
        "pacer",
        "refunded",
        "search",
        "taken",
        "told",
    )

    def __init__(
        self,
        name: str,
        now: float,
        *,
        limit: float = math.inf,
        told: bool = False,
        search: Finder | Ramp | None = None,
    ) -> None:
        self.name = name
        self.limit = limit
        self.told = told
        self.search = search
        self.lawful: Lawful | None = None
        self.margin = MARGIN
        self.taken = 0.0
        self.refunded = 0.0
        requests = name == REQUESTS
        self.log = WindowLog(limit) if not requests or isinstance(search, Finder) else None
        self._clean_since = now
        self._governed_at = now
        catch_up_s = CATCH_UP_S if requests else TOKEN_CATCH_UP_S
        self.pacer = Pacer(self._rate(now), now=now, catch_up_s=catch_up_s)

    def _rate(self, now: float) -> float:
        if self.search is not None:
            return self.search.rate(now)
        if self.lawful is not None:
            return self.limit / MINUTE_S * self.lawful.multiple
        return self.limit * (1.0 - self.margin) / MINUTE_S

    def govern(self, now: float) -> None:
        """Sets the pace that the law asks for now."""
        if self.search is None and self.lawful is None:
            if self.margin > MARGIN and now - self._clean_since > _CLEAN_S:
                self._clean_since = now
                self.margin = max(MARGIN, self.margin / 1.25)
                self.pacer.set_rate(self._rate(now), now)
        elif now - self._governed_at >= 0.1:
            self._governed_at = now
            self.pacer.set_rate(self._rate(now), now)
            if isinstance(self.search, Finder) and self.log is not None and self.search.hard is not None:
                self.log.limit = max(self.search.hard, self.pacer.rate * MINUTE_S + 1.0)

    def take(self, now: float, amount: float) -> list[float] | None:
        """Takes an amount from pace and log; keep what it returns for ``settle``."""
        self.taken += amount
        pacer = self.pacer
        if self.log is not None and 2.0 * amount > pacer.catch_up_s * pacer.rate:
            # Large requests are bursts by themselves; what the log holds back must be caught up with afterwards.
            pacer.catch_up_s = min(LONGEST_CATCH_UP_S, 2.0 * amount / pacer.rate)
        pacer.take(now, amount)
        return self.log.take(now, amount) if self.log is not None else None

    def settle(self, entry: list[float] | None, given_back: float) -> None:
        """Returns what was taken and not used."""
        self.refunded += given_back
        self.pacer.give_back(given_back)
        if self.log is not None and entry is not None:
            self.log.settle(entry, given_back)

    def refused(self, now: float) -> bool:
        """An epoch of refusal in spite of a known limit; ``False``: widening the margin is no help any more."""
        self._clean_since = now
        if self.lawful is not None:
            self.lawful.refused()
            return True
        if self.margin >= WIDEST_MARGIN:
            return False
        self.margin = min(WIDEST_MARGIN, 1.5 * self.margin)
        if self.name == REQUESTS:
            self.pacer.catch_up_s = max(0.01, self.pacer.catch_up_s / 2.0)
        self.pacer.set_rate(self._rate(now), now)
        log.debug("%s: margin now %.2f %%", self.name, 100.0 * self.margin)
        return True
