"""Decides what an attempt was and whether to retry it, without I/O.

``classify`` turns an outcome into a ``Verdict``, and ``RetryPolicy`` turns that into a delay. What decides is whether
the attempt was billed:

- Not billed (no connection, 408, 409, 5xx): retry with full jitter (M. Brooker, "Exponential Backoff And Jitter").
- Possibly billed (timeout or reset after sending, a body cut off): at most two more attempts.
- Billed (any answer): never retried.
"""

from batchllm.retry.pauses import seconds, structured
from batchllm.retry.policy import (
    ENDPOINT_REFUSALS,
    LONGEST_BACKOFF_S,
    RetryPolicy,
    is_connection,
    may_be_setting,
    may_concern_one_row,
)
from batchllm.retry.reading import classify
from batchllm.retry.verdict import Disposition, Verdict, reason_text

__all__ = [
    "ENDPOINT_REFUSALS",
    "LONGEST_BACKOFF_S",
    "Disposition",
    "RetryPolicy",
    "Verdict",
    "classify",
    "is_connection",
    "may_be_setting",
    "may_concern_one_row",
    "reason_text",
    "seconds",
    "structured",
]
