"""Turns what an attempt brought into a row of the journal, and back.

Nothing here may fail on what a server sends: between the last byte of an answer and its commit, an exception would lose
money. The body is saved as it came. Headers are kept by an allow-list: those that identify a request for the endpoint's
support, and those that explain why it was slow; never cookies, never anything that was sent.
"""

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from batchllm.journal import bulk
from batchllm.journal.bulk import MISSING, BulkRow
from batchllm.journal.sqlite_errors import damaged, report_damage
from batchllm.printable import printable
from batchllm.records import Failure, FailureKind, Paid, Response

UNKNOWN = "unknown"
"""The failure of an attempt whose run died before it could save an outcome."""
LOST = "the run ended before an answer was saved"
"""Its message."""

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

REPLY = ", ".join(
    f"reply.{column}"
    for column in (
        "received_at", "latency_s", "status", "failure", "message", "possibly_billed", "crc", "headers", "body",
    )
)  # fmt: skip
"""The columns that ``read_stored`` needs."""


class StoredReply(NamedTuple):
    """What the journal keeps of a reply.

    Attributes:
        received_at: When it was saved, in seconds since the epoch.
        latency_s: Seconds that the attempt took.
        status: HTTP status; ``None`` where no HTTP answer came.
        failure: One word why none came; ``None`` where one did.
        message: The same in one sentence.
        possibly_billed: 1 for a failure that may be on the bill, else 0; ``None`` where an HTTP answer came.
        headers: The headers that are kept, as a JSON object.
        body: The raw body, or the part of it that arrived.
    """

    received_at: float
    latency_s: float | None
    status: int | None
    failure: str | None
    message: str | None
    possibly_billed: int | None
    headers: str | None
    body: bytes


def pack(attempt_id: int, received_at: float, outcome: Response | Failure) -> BulkRow:
    """Returns the row that saves what an attempt brought."""
    latency_s = outcome.latency_s
    if latency_s != latency_s:
        latency_s = 0.0  # SQLite stores NaN as NULL, which would not match the CRC
    if isinstance(outcome, Response):
        status, body, headers = outcome.status, outcome.body, kept_headers(outcome.headers)
        crc = reply_crc(attempt_id, received_at, latency_s, status, None, None, None, body)
        return (
            bulk.REPLY, attempt_id, received_at, latency_s, status, MISSING, MISSING, MISSING, crc,
            MISSING if headers is None else headers, bytearray(body),
        )  # fmt: skip
    kind, message, billed = str(outcome.kind), printable(outcome.message), int(outcome.paid is Paid.MAYBE)
    reply = StoredReply(received_at, latency_s, None, kind, message, billed, None, outcome.partial)
    return reply_row(attempt_id, reply)


def lost_reply(attempt_id: int, now: float) -> BulkRow:
    """Returns the row that closes an attempt whose run died before it could save an outcome."""
    return reply_row(attempt_id, StoredReply(now, None, None, UNKNOWN, LOST, 1, None, b""))


def reply_row(attempt_id: int, reply: StoredReply) -> BulkRow:
    """Returns the row that saves a reply."""
    received_at, latency_s, status, failure, message, billed, headers, body = reply
    crc = reply_crc(attempt_id, received_at, latency_s, status, failure, message, billed, body)
    cells = (MISSING if cell is None else cell for cell in reply[:6])
    return (bulk.REPLY, attempt_id, *cells, crc, MISSING if headers is None else headers, bytearray(body))


def reply_crc(
    attempt_id: int,
    received_at: float | None,
    latency_s: float | None,
    status: int | None,
    failure: str | None,
    message: str | None,
    possibly_billed: int | None,
    body: bytes,
) -> int:
    """Returns the CRC-32 of everything of a reply that the output is made of."""
    facts = _FACTS.pack(attempt_id, status or 0, latency_s or 0.0, received_at or 0.0)
    if failure is not None:
        facts += f"{failure}\0{message}\0{possibly_billed}".encode("utf-8", "surrogatepass")
    return zlib.crc32(body, zlib.crc32(facts))


@report_damage
def read_stored(path: Path, attempt_id: int, fields: Sequence[Any]) -> StoredReply:
    """Reads the columns ``REPLY``."""
    received_at, latency_s, status, failure, message, billed, crc, headers, body = fields
    if crc != reply_crc(attempt_id, received_at, latency_s, status, failure, message, billed, body):
        raise damaged(path, f"the reply to attempt {attempt_id} does not match its CRC")
    return StoredReply(received_at, latency_s, status, failure, message, billed, headers, body)


@report_damage
def outcome_of(path: Path, reply: StoredReply) -> Response | Failure:
    """Returns what a reply says; that of an attempt of a dead run says that the connection broke."""
    _, latency_s, status, failure, message, possibly_billed, headers, body = reply
    if status is not None:
        return Response(status, json.loads(headers) if headers else {}, body, latency_s or 0.0)
    kind = FailureKind.RESET if failure is None or failure == UNKNOWN else FailureKind(failure)
    paid = Paid.NO if possibly_billed == 0 else Paid.MAYBE
    return Failure(kind, message or "", paid, latency_s or 0.0, body)


def read_response(path: Path, attempt_id: int, fields: Sequence[Any]) -> Response:
    """Reads the columns ``REPLY`` of an attempt that has an HTTP answer."""
    outcome = outcome_of(path, read_stored(path, attempt_id, fields))
    if not isinstance(outcome, Response):
        raise damaged(path, f"attempt {attempt_id} has no HTTP answer")
    return outcome


def kept_headers(headers: Mapping[str, str]) -> str | None:
    """Returns the headers that are kept, as a JSON object; ``None`` where there are none."""
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
