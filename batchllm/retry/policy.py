"""Decides whether a row is retried, and after how long."""

import random

from batchllm.errors import ExitStatus
from batchllm.retry.verdict import Disposition, Verdict

FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 60.0
POSSIBLY_BILLED_MORE = 2
ENDPOINT_REFUSALS = 5
"""This many different rows refused one after another mean that the endpoint refuses, not the rows."""


class RetryPolicy:
    """Decides how often, and after how long, a row is retried within one run.

    Args:
        max_attempts: Attempts of a row, the first included; refusals are not attempts.
        rng: Source of jitter; give a seeded one to repeat a run.
    """

    def __init__(self, max_attempts: int = 5, rng: random.Random | None = None) -> None:
        self.max_attempts = max_attempts
        self._rng = rng or random.Random()

    def delay_s(self, attempts_used: int, possibly_billed: int, verdict: Verdict) -> float | None:
        """Returns the seconds until the row may queue again, or ``None`` where the outcome is final.

        Args:
            attempts_used: Attempts that counted so far, the one just judged included.
            possibly_billed: How many of them may have been billed, the one just judged included.
            verdict: The verdict on the attempt.
        """
        if verdict.disposition is Disposition.REFUSED:
            return 0.0
        if (
            verdict.disposition not in (Disposition.OVERLOADED, Disposition.TRANSIENT, Disposition.UNKNOWN)
            or verdict.should_retry is False
        ):
            return None
        if attempts_used >= self.max_attempts or possibly_billed > POSSIBLY_BILLED_MORE:
            return None
        ceiling = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2 ** min(attempts_used - 1, 10))
        return max(self._rng.uniform(0.0, ceiling), verdict.retry_after_s or 0.0)


_CONNECTION = frozenset({"tls", "proxy", "unknown_host"})


def is_connection(verdict: Verdict) -> bool:
    """Returns whether no connection was made for a reason that a setting corrects, before any success.

    After a success the same is an outage: a certificate that is being replaced, a name service or a proxy that is down.
    """
    return verdict.disposition is Disposition.FATAL and verdict.reason in _CONNECTION


def may_concern_one_row(verdict: Verdict) -> bool:
    """Returns whether a fatal verdict may concern one row alone; a connection and a spent quota never do."""
    return (
        verdict.disposition is Disposition.FATAL
        and verdict.exit_status is ExitStatus.USAGE
        and not is_connection(verdict)
    )


_ROWS_OWN = frozenset(
    {"context_length", "request_too_large", "body_too_large", "content_filter", "too_large"}
)


def may_be_setting(verdict: Verdict) -> bool:
    """Returns whether a row may be rejected for a setting of the job, and not for its own content."""
    return verdict.disposition is Disposition.REJECTED and verdict.reason not in _ROWS_OWN
