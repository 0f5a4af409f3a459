"""Whether a row is tried again, and after how long."""

import random

from batchllm.errors import ExitStatus
from batchllm.retry.verdict import Fate, Verdict

FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 60.0
MAYBE_PAID_MORE = 2
ENDPOINTS_OWN = 5
"""Different rows that are refused one after another, in order of arrival: the endpoint refuses, not the rows."""


class RetryPolicy:
    """How often, and after how long, a row is tried again within one run.

    Args:
        max_attempts: Attempts of a row, the first included; refusals are not attempts.
        rng: Source of jitter; give a seeded one to repeat a run.
    """

    def __init__(self, max_attempts: int = 5, rng: random.Random | None = None) -> None:
        self.max_attempts = max_attempts
        self._rng = rng or random.Random()

    def delay_s(self, attempts_used: int, maybe_paid: int, verdict: Verdict) -> float | None:
        """Seconds until the row may wait for its next grant, or ``None``: give up, it is final.

        Args:
            attempts_used: Attempts that counted so far, the one just judged included.
            maybe_paid: How many of them may have been paid, the one just judged included.
            verdict: What the attempt was.
        """
        if verdict.fate is Fate.REFUSED:
            return 0.0
        if (
            verdict.fate not in (Fate.OVERLOADED, Fate.TRANSIENT, Fate.UNKNOWN)
            or verdict.should_retry is False
        ):
            return None
        if attempts_used >= self.max_attempts or maybe_paid > MAYBE_PAID_MORE:
            return None
        ceiling = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2 ** min(attempts_used - 1, 10))
        return max(self._rng.uniform(0.0, ceiling), verdict.retry_after_s or 0.0)


class SameRejection:
    """Sees that the first rows are all rejected with one status: a wrong setting, not bad rows."""

    def __init__(self, rows: int = 10) -> None:
        self._rows = rows
        self._first: str | None = None
        self._seen = 0
        self._over = False

    def stops(self, verdict: Verdict) -> bool:
        """Told every final verdict in turn; ``True`` once the first ``rows`` are equal rejections."""
        if self._over or verdict.fate not in (Fate.REJECTED, Fate.ANSWERED):
            return False
        if verdict.fate is Fate.ANSWERED or self._first not in (None, verdict.reason):
            self._over = True
            return False
        self._first = verdict.reason
        self._seen += 1
        return self._seen >= self._rows


def may_be_the_rows_own(verdict: Verdict) -> bool:
    """Whether a fatal verdict may be about one row alone; TLS and a spent quota never are."""
    return verdict.fate is Fate.FATAL and verdict.exit_status is ExitStatus.USAGE and verdict.reason != "tls"
