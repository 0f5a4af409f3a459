"""What a failed call to the Batch API means, and what a batch that failed its validation means."""

import asyncio
import logging
import random
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from batchllm.client.batches import CallFailed
from batchllm.errors import ExitStatus, JobError, Unavailable, UsageError
from batchllm.retry import Disposition

log = logging.getLogger("batchllm.runner")

T = TypeVar("T")

TRIES = 5
LONGEST_PAUSE_S = 60.0
MOST_LINE_ERRORS = 100
"""Endpoints list at most 100 line errors; that many with one code mean that the whole batch is wrong."""

_RETRIED = (Disposition.REFUSED, Disposition.OVERLOADED, Disposition.TRANSIENT, Disposition.UNKNOWN)
_QUEUE_FULL = re.compile(
    r"token_limit_exceeded|enqueued[_ ]token|max[_ ]enqueued|too many (?:enqueued|queued)|queue (?:is )?full",
    re.I,
)
_TOO_LONG = re.compile(
    r"too_many_(?:tasks|requests)|too many requests in|(?:file|input)[_ ](?:is )?too[_ ]large", re.I
)
_LIMIT = re.compile(r"limit:?\s*(\d[\d,]*)", re.I)

_NO_SUCH_CALL = (404, 405, 501)

LineError = Mapping[str, Any]


async def retry_call(call: Callable[[], Awaitable[T]]) -> T:
    """Makes a call, which has to be idempotent, until it succeeds.

    Raises:
        CallFailed: The endpoint refuses, or failed ``TRIES`` times.
    """
    tries = 0
    while True:
        try:
            return await call()
        except CallFailed as failed:
            tries += 1
            delay_s = retry_delay_s(failed, tries)
            if delay_s is None:
                raise
            log.info("%s; retry in %.1f s", failed, delay_s)
            await asyncio.sleep(delay_s)


def retry_delay_s(failed: CallFailed, tries: int) -> float | None:
    """Returns the seconds until a failed call is made again, with full jitter; ``None`` if it is not."""
    verdict = failed.verdict
    asked_s = verdict.retry_after_s or 0.0
    if verdict.disposition not in _RETRIED or tries >= TRIES or asked_s > LONGEST_PAUSE_S:
        return None
    return max(asked_s, random.uniform(0.0, min(LONGEST_PAUSE_S, 0.25 * 2**tries)))


def possibly_done(failed: CallFailed) -> bool:
    """Whether a failed call may have had its effect: no answer came, or the endpoint failed while handling it."""
    if failed.status is None:
        return failed.verdict.disposition is Disposition.UNKNOWN
    return failed.status >= 500 or failed.status == 408


def job_error(failed: CallFailed, *, what: str, paid: bool) -> JobError:
    """Makes the job's error of a call that failed for good.

    Args:
        failed: The call.
        what: What the call was to do, for the message.
        paid: The job has paid answers, so that this is the endpoint's trouble and not wrong use.
    """
    message = f"{what}: {failed}; the same command goes on when that is corrected"
    if failed.status in _NO_SUCH_CALL:
        message = f"{what}: {failed}; the endpoint seems to have no Batch API: leave out --via batch"
    wrong_use = (
        failed.verdict.exit_status is ExitStatus.USAGE or failed.verdict.disposition is Disposition.REJECTED
    )
    return UsageError(message) if wrong_use and not paid else Unavailable(message)


@dataclass(frozen=True, slots=True)
class BatchRejection:
    """Why a batch failed its validation, which comes after its creation.

    Attributes:
        message: The endpoint's message.
        queue_full: The endpoint's queue has no room for its tokens: its requests wait.
        limit_tokens: The tokens that may be queued, if the endpoint says so.
        too_long: The file has too many lines or bytes: its requests go into shorter ones.
        lines: Line, from 0, to its error, if only these lines are wrong: their rows fail, the others are sent again.
        systemic: Everything is wrong alike (a model without a Batch API): no row fails, the job stops.
    """

    message: str
    queue_full: bool = False
    limit_tokens: int | None = None
    too_long: bool = False
    lines: Mapping[int, LineError] | None = None
    systemic: bool = False


def read_rejection(errors: Sequence[LineError], requests: int, *, answered: bool) -> BatchRejection:
    """Reads the errors of a failed batch.

    Args:
        errors: The objects of ``errors.data``.
        requests: Lines of its file.
        answered: The job has an answer, so that a batch of wrong lines is no wrong setting.
    """
    messages = [f"{error.get('code') or ''}: {error.get('message') or ''}".strip(": ") for error in errors]
    first = messages[0] if messages else "no reason given"
    if full := next((text for text in messages if is_queue_full(text)), None):
        found = _LIMIT.search(full)
        limit = int(found[1].replace(",", "")) if found else None
        return BatchRejection(full, queue_full=True, limit_tokens=limit)
    if requests > 1 and (long := next((text for text in messages if _TOO_LONG.search(text)), None)):
        return BatchRejection(long, too_long=True)
    lines = {line - 1: error for error in errors if (line := _line(error)) is not None and line <= requests}
    alike = len({error.get("code") for error in errors}) == 1
    whole_batch = len(lines) >= MOST_LINE_ERRORS or (len(lines) == requests and not answered)
    if not lines or (alike and whole_batch):
        return BatchRejection(first, systemic=True)
    return BatchRejection(first, lines=lines)


def is_queue_full(text: str) -> bool:
    """Whether an error says that no more tokens may be queued."""
    return _QUEUE_FULL.search(text) is not None


def _line(error: LineError) -> int | None:
    line = error.get("line")
    return line if isinstance(line, int) and not isinstance(line, bool) and line >= 1 else None
