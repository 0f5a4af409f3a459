"""How an outcome becomes a row of the journal, and back.

Nothing here may fail on what a server sends: between the last byte of an answer and its commit, an exception
would lose money. The body goes down as the bytes that came. Headers are kept by an allow-list: what names a
request for a support case, and what says why the endpoint was slow; never cookies, never anything we sent.
"""

import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import orjson

from batchllm.journal.inbox import NO_NUMBER, NO_TEXT
from batchllm.printable import printable
from batchllm.records import Failure, FailureKind, Paid, Response

UNKNOWN = "unknown"
"""The failure of an attempt whose run died before it could save an outcome."""

_KEPT = frozenset(
    {
        "date",
        "content-type",
        "retry-after",
        "retry-after-ms",
        "x-should-retry",
        "x-request-id",
        "request-id",
        "apim-request-id",
        "x-ms-request-id",
        "x-ms-region",
        "cf-ray",
        "openai-processing-ms",
        "openai-version",
    }
)
_KEPT_PREFIXES = ("x-ratelimit", "ratelimit", "anthropic-ratelimit", "x-rate-limit")
_FACTS = struct.Struct("<qqdd")

_kept_of: dict[tuple[str, ...], tuple[str, ...]] = {}  # an endpoint sends few sets of names
_MOST_SETS = 256

ReplyRow = tuple[int, float, float, int | str, str | int, str | int, str | int, int, str | int, bytearray]
"""A row of ``reply``, in the order of the trigger in ``inbox``, with its signs for what is missing."""


def pack(attempt_id: int, received_at: float, outcome: Response | Failure) -> ReplyRow:
    """The row that keeps an outcome."""
    if isinstance(outcome, Response):
        status, latency_s, body = outcome.status, _finite(outcome.latency_s), outcome.body
        crc = seal(attempt_id, status, latency_s, received_at, None, None, None, body)
        headers = kept_headers(outcome.headers)
        return (
            attempt_id, received_at, latency_s, status, NO_TEXT, NO_TEXT, NO_TEXT, crc,
            NO_TEXT if headers is None else headers, bytearray(body),
        )  # fmt: skip
    kind, message, paid = str(outcome.kind), printable(outcome.message), str(outcome.paid)
    latency_s, body = _finite(outcome.latency_s), outcome.partial
    crc = seal(attempt_id, None, latency_s, received_at, kind, message, paid, body)
    return (
        attempt_id, received_at, latency_s, NO_NUMBER, kind, message, paid, crc, NO_TEXT, bytearray(body)
    )  # fmt: skip


def unpack(
    status: int | None,
    headers: str | None,
    body: bytes,
    latency_s: float | None,
    failure: str | None,
    message: str | None,
    paid: str | None,
) -> Response | Failure:
    """The outcome that a row keeps; an attempt of a dead run reads as a reset that may have been paid."""
    if status is not None:
        return Response(status, json.loads(headers) if headers else {}, body, latency_s or 0.0)
    kind = FailureKind.RESET if failure is None or failure == UNKNOWN else FailureKind(failure)
    return Failure(kind, message or "", Paid(paid or Paid.MAYBE), latency_s or 0.0, body)


def seal(
    attempt_id: int,
    status: int | None,
    latency_s: float | None,
    received_at: float | None,
    failure: str | None,
    message: str | None,
    paid: str | None,
    body: bytes,
) -> int:
    """CRC-32 over everything of a reply that a row's output is made of."""
    facts = _FACTS.pack(attempt_id, status or 0, latency_s or 0.0, received_at or 0.0)
    if failure is not None:
        facts += f"{failure}\0{message}\0{paid}".encode("utf-8", "surrogatepass")
    return zlib.crc32(body, zlib.crc32(facts))


def _finite(seconds: float) -> float:
    """SQLite keeps NaN as NULL, which would no longer match the seal."""
    return seconds if seconds == seconds else 0.0


def kept_headers(headers: Mapping[str, str]) -> str | None:
    """The headers worth keeping, as a JSON object; ``None`` where there are none."""
    names = tuple(headers)
    kept = _kept_of.get(names)
    if kept is None:
        kept = tuple(name for name in names if name in _KEPT or name.startswith(_KEPT_PREFIXES))
        if len(_kept_of) < _MOST_SETS:
            _kept_of[names] = kept
    if not kept:
        return None
    chosen: dict[str, Any] = {name: headers[name] for name in kept}
    try:
        return orjson.dumps(chosen).decode()
    except TypeError:  # bytes that are no UTF-8 arrive as lone surrogates, which only ASCII escapes can carry
        return json.dumps(chosen, default=repr)
