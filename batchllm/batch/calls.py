"""Calls that may be made again: a few tries with full jitter, then the job's error."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from batchllm.client.batches import CallFailed
from batchllm.errors import ExitStatus, JobError, Unavailable, UsageError
from batchllm.retry import Disposition

log = logging.getLogger("batchllm.runner")

T = TypeVar("T")

TRIES = 5
LONGEST_PAUSE_S = 60.0
_AGAIN = (Disposition.REFUSED, Disposition.OVERLOADED, Disposition.TRANSIENT, Disposition.UNKNOWN)


async def steadily(call: Callable[[], Awaitable[T]]) -> T:
    """Makes a call that does no harm when it is made twice, until it succeeds.

    Raises:
        CallFailed: The endpoint says no, or says nothing useful time and again.
    """
    tries = 0
    while True:
        try:
            return await call()
        except CallFailed as failed:
            tries += 1
            pause_s = pause_of(failed, tries)
            if pause_s is None:
                raise
            log.info("%s; once more in %.1f s", failed, pause_s)
            await asyncio.sleep(pause_s)


def pause_of(failed: CallFailed, tries: int) -> float | None:
    """Seconds until a failed call is made again; ``None``: it is not."""
    verdict = failed.verdict
    asked_s = verdict.retry_after_s or 0.0
    if verdict.disposition not in _AGAIN or tries >= TRIES or asked_s > LONGEST_PAUSE_S:
        return None
    return max(asked_s, random.uniform(0.0, min(LONGEST_PAUSE_S, 0.25 * 2**tries)))


def possibly_done(failed: CallFailed) -> bool:
    """Whether a call that failed may have had its effect: no answer came, or the endpoint broke over it."""
    if failed.status is None:
        return failed.verdict.disposition is Disposition.UNKNOWN
    return failed.status >= 500 or failed.status == 408


def job_error(failed: CallFailed, *, what: str, paid: bool) -> JobError:
    """The job's error for a call that failed for good.

    Args:
        failed: The call.
        what: What was to be done, in words.
        paid: Whether anything was paid in this job: then it is the endpoint's trouble, not wrong use.
    """
    message = f"{what}: {failed}; the same command goes on when that is corrected"
    wrong_use = (
        failed.verdict.exit_status is ExitStatus.USAGE or failed.verdict.disposition is Disposition.REJECTED
    )
    return UsageError(message) if wrong_use and not paid else Unavailable(message)
