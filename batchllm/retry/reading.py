"""Classifies the outcome of an attempt, whichever dialect of errors the endpoint uses."""

import logging
import re
from urllib.parse import urlsplit

from batchllm.error_body import ErrorBody, error_within, read_error
from batchllm.error_words import BUSY, LOADING, QUOTA, QUOTA_NAMED, THROTTLED, status_meant
from batchllm.errors import ExitStatus
from batchllm.event_stream import STREAM_CUT, parse_reply
from batchllm.printable import one_line
from batchllm.records import Failure, FailureKind, Paid, Response
from batchllm.retry.pauses import retry_after
from batchllm.retry.verdict import Disposition, Verdict

log = logging.getLogger("batchllm.retry")

_PROXY_FORM = "http://name:password@host:port"

_ANSWERED = Verdict(Disposition.ANSWERED, "answered")
_LIMIT_REQUESTED = re.compile(r"limit:?\s*(\d[\d,]*).{0,80}?requested:?\s*(\d[\d,]*)", re.I | re.S)
_URL_OR_MODEL = re.compile(
    r"model|deployment|engine|url|path|route|endpoint|page|resource|^\W*not found\W*$", re.I
)


def classify(outcome: Response | Failure) -> Verdict:
    """Returns the verdict on an attempt; never raises."""
    if isinstance(outcome, Failure):
        return _of_failure(outcome)
    try:
        return _of_response(outcome)
    except Exception as trouble:  # noqa: BLE001 - a saved reply must never stop its job
        log.warning("a reply with status %s cannot be judged: %r", outcome.status, trouble)
        if 200 <= outcome.status < 300:
            return _ANSWERED
        return Verdict(
            Disposition.REJECTED,
            f"http_{outcome.status}",
            f"the endpoint answered {outcome.status}, unreadably",
        )


def _of_response(outcome: Response) -> Verdict:
    status = outcome.status
    if 200 <= status < 300:
        return _of_success(outcome)
    if 300 <= status < 400:
        return _redirected(outcome.headers.get("location", ""), status)
    return _of_error(status, read_error(outcome.body), outcome)


def _of_failure(failure: Failure) -> Verdict:
    match failure.kind:
        case FailureKind.TLS | FailureKind.REDIRECT | FailureKind.PROXY | FailureKind.UNKNOWN_HOST:
            return Verdict(
                Disposition.FATAL, str(failure.kind), failure.message, exit_status=ExitStatus.USAGE
            )
        case FailureKind.TOO_LARGE:
            return Verdict(Disposition.REJECTED, "body_too_large", failure.message)
        case FailureKind.ENCODING:
            return Verdict(Disposition.REJECTED, "encoding", failure.message)
    disposition = Disposition.UNKNOWN if failure.paid is Paid.MAYBE else Disposition.TRANSIENT
    return Verdict(disposition, str(failure.kind), failure.message)


def _of_success(outcome: Response) -> Verdict:
    """Classifies a 2xx: an answer, an error inside, JSON without choices, or no JSON at all."""
    try:
        parsed = parse_reply(outcome.body)
    except ValueError:
        parsed = None
    if type(parsed) is list and parsed:  # Gemini
        parsed = parsed[0]
    if type(parsed) is not dict:
        if parsed is None and outcome.body.lstrip()[:1] == b"{" and b'"choices"' in outcome.body:
            return _ANSWERED  # an answer that no parser reads is billed too
        message = f"the endpoint answered {outcome.status} with a body that is not a chat completion"
        return Verdict(Disposition.TRANSIENT, "bad_body", message, retry_after(outcome.headers, ErrorBody()))
    error = error_within(parsed)
    if error is None:
        return _ANSWERED
    if error.code == STREAM_CUT:
        return Verdict(Disposition.UNKNOWN, STREAM_CUT, error.message)
    if not (error.message or error.code or error.type):
        message = f"the endpoint answered {outcome.status} with neither choices nor an error"
        return Verdict(Disposition.TRANSIENT, "no_choices", message, retry_after(outcome.headers, error))
    return _of_error(status_meant(error.code, error.type, error.message), error, outcome)


def _redirected(location: str, status: int) -> Verdict:
    try:
        parts = urlsplit(location)
        target = f"{parts.scheme}://{parts.netloc}" if parts.netloc else location[:200] or "nowhere"
    except ValueError:
        target = "an invalid address"
    target = target.encode("utf-8", "replace").decode()
    message = f"the endpoint redirects to {target} ({status}), which is never followed; correct --base-url"
    return Verdict(Disposition.FATAL, "redirect", message, exit_status=ExitStatus.USAGE)


def _of_error(status: int, error: ErrorBody, outcome: Response) -> Verdict:
    headers = outcome.headers
    said = error.message if error.is_json else ""  # a proxy's page does not speak for the endpoint
    text = error.message or outcome.body[:200].decode("utf-8", "replace").strip() or "no explanation"
    inside = " with an error" if outcome.status < 300 else ""
    message = f"the endpoint answered {outcome.status}{inside}: {one_line(text, 500)}"
    if status == 407:
        message = (
            f"the proxy refused name and password, or got none: set HTTP_PROXY to {_PROXY_FORM} ({message})"
        )
    if status == 400 and THROTTLED.search(f"{error.code} {error.type}"):  # AWS
        status = 429
    pause = retry_after(headers, error, refused=status == 429)
    should = {"true": True, "false": False}.get(headers.get("x-should-retry", "").strip().lower())
    limit, requested = _limit_and_requested(said)
    is_beyond = requested is not None and limit is not None and requested > limit
    disposition, reason = _meaning(status, error, said, is_beyond, pause is not None, should is True)
    exit_status = None
    if disposition is Disposition.FATAL:
        exit_status = ExitStatus.UNAVAILABLE if reason == "quota" else ExitStatus.USAGE
    return Verdict(disposition, reason, message, pause, exit_status, requested, limit, should)


def _meaning(
    status: int, error: ErrorBody, said: str, is_beyond: bool, has_pause: bool, should: bool
) -> tuple[Disposition, str]:
    """Returns what an error means, and one word for counting it.

    Args:
        status: HTTP status, or the one that the error means.
        error: What the body says.
        said: Its message; empty where somebody else speaks for the endpoint.
        is_beyond: The request asks for more tokens than the limit grants.
        has_pause: The endpoint asks for a pause.
        should: The endpoint asks for a retry.
    """
    words = f"{error.code} {error.type} {said}"
    fault = error.row_fault(status)
    if status == 402 or (status in (400, 403, 429) and _is_quota(status, error, said)):
        return Disposition.FATAL, "quota"
    if fault == "context_length":
        return Disposition.REJECTED, "context_length"
    if fault == "too_large" or (status in (400, 413, 422, 429) and is_beyond):
        return Disposition.REJECTED, "request_too_large"
    if "slow_down" in (error.code, error.type):
        return Disposition.REFUSED, "slow_down"
    if status == 429:
        return Disposition.REFUSED, "rate_limit"
    if status in (401, 405, 407) or (status == 403 and fault != "content_filter"):
        return Disposition.FATAL, f"http_{status}"
    if status == 404 and (not said or _URL_OR_MODEL.search(words)):
        return Disposition.FATAL, "http_404"
    if status == 503 and LOADING.search(words):
        return Disposition.REFUSED, "loading"
    if status == 529 or (status == 503 and has_pause):
        return Disposition.REFUSED, "overloaded"
    if status in (503, 498) or (status >= 500 and BUSY.search(words)):
        return Disposition.OVERLOADED, "overloaded"
    if status >= 500 or status in (408, 409, 425) or should:
        return Disposition.TRANSIENT, f"http_{status}"
    return Disposition.REJECTED, f"http_{status}"


def _is_quota(status: int, error: ErrorBody, said: str) -> bool:
    if QUOTA.search(f"{error.code} {error.type}"):
        return True
    return (QUOTA if status == 429 else QUOTA_NAMED).search(said) is not None


def _limit_and_requested(message: str) -> tuple[int | None, int | None]:
    """Returns the numbers of "Limit 30000, … Requested 30601"."""
    found = _LIMIT_REQUESTED.search(message)
    if not found:
        return None, None
    limit, requested = (text.replace(",", "") for text in found.groups())
    return (int(limit), int(requested)) if len(limit) < 16 and len(requested) < 16 else (None, None)
