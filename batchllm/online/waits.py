"""Says what the run waits for and until when: beside the progress bar, and in lines of their own."""

import math
from datetime import datetime, timedelta

from batchllm.limiter import View
from batchllm.printable import counted
from batchllm.progress import compact
from batchllm.retry import Verdict

LEAST_TOLD_S = 2.0
"""A pause gets a line of its own if more than this is left of it."""
LONGER = 10.0
"""A later pause gets a line if it is this many times longer than the last one that got one."""
MOST_OUTAGES = 4
"""Outages that get a line in one run, so that an unstable endpoint does not fill a log."""
MOST_REASON = 160
"""The most characters shown of the endpoint's own message."""

_ANSWERED = "the endpoint answered "
"""The beginning of a message about a response, in contrast to a failed connection."""

_BROKEN = ("the answer ", "the connection broke", "the stream of events", "no whole answer")
"""How messages about answers begin that came in part or not at all, from an endpoint that can be reached."""


def waiting_words(view: View, now: float, wall: datetime, refusal: Verdict | None = None) -> str:
    """Returns what everything waits for, in some 40 characters; empty while requests leave.

    Args:
        view: The state of the limiter.
        now: The time now, on the limiter's clock.
        wall: The local time now.
        refusal: The latest refusal for a limit.
    """
    match view.limits:
        case "outage":
            return _outage(view, now, wall)
        case "pause":
            return _pause(view, now, wall, refusal)
        case "lease":
            return "waiting for new limits"
        case "concurrency" if view.granted == view.in_flight == 1 < view.waiting:
            return "waiting for the first answer"
    return ""


def limit_words(view: View) -> str:
    """Returns the limit that the pace comes from, in some 25 characters; empty if there is none."""
    match view.limits:
        case "requests" if view.requests_per_minute:
            return f"{_limit(view)}: {_number(view.requests_per_minute)} requests/min"
        case "tokens" if view.tokens_per_minute:
            return f"{_limit(view)}: {compact(round(view.tokens_per_minute))} tokens/min"
        case "requests" | "tokens":
            return f"{_limit(view)}: {view.limits}"
        case "concurrency":
            return f"limit: {counted(view.concurrency, 'request')} in flight"
    return ""


def outage_line(view: View, now: float, wall: datetime, endpoint: str) -> str:
    """Returns a sentence about an outage: what fails, why, and until when it is tried."""
    until = "" if view.gives_up_at is None else f" until {clock(view.gives_up_at, now, wall)}"
    if view.trouble.startswith((_ANSWERED, *_BROKEN)):
        reason = _clipped(view.trouble.removeprefix(_ANSWERED))
        return f"Every request to {endpoint} fails ({reason}); trying{until}."
    reason = _clipped(view.trouble)
    return f"Cannot reach {endpoint}{f' ({reason})' if reason else ''}; trying{until}."


def pause_line(view: View, now: float, wall: datetime, refusal: Verdict | None = None) -> str:
    """Returns a sentence about a pause: why, and until when everything waits."""
    resumes_at = now if view.resumes_at is None else view.resumes_at
    reason = "" if refusal is None else _clipped(refusal.message.removeprefix(_ANSWERED))
    because = f" ({reason})" if reason else ""
    wait = f"everything waits until {clock(resumes_at, now, wall)}."
    if refusal is None or refusal.retry_after_s is None:
        return f"The endpoint refuses requests{because}; {wait}"
    return f"The endpoint asks for a pause of {span_text(resumes_at - now)}{because}; {wait}"


class Events:
    """Decides which outages and pauses get a line of their own.

    Args:
        endpoint: Where the requests go.
    """

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._down = False
        self._outages = 0
        self._told_s = LEAST_TOLD_S / LONGER

    def line(self, view: View, now: float, wall: datetime, refusal: Verdict | None = None) -> str | None:
        """Returns the line for an outage or a pause that has just begun; ``None`` if there is nothing to say.

        Call it a few times a second; see ``waiting_words`` for the arguments.
        """
        began = view.limits == "outage" and not self._down
        self._down = view.limits == "outage"
        if began and self._outages < MOST_OUTAGES:
            self._outages += 1
            return outage_line(view, now, wall, self._endpoint)
        if view.limits == "pause" and view.resumes_at is not None:
            left = view.resumes_at - now
            if left > self._told_s * LONGER:
                self._told_s = left
                return pause_line(view, now, wall, refusal)
        return None


def clock(instant: float, now: float, wall: datetime) -> str:
    """Returns the time of day at an instant, with seconds within two minutes, with the date on another day."""
    moment = wall + timedelta(seconds=instant - now)
    near = abs(instant - now) < 120
    if not near:
        moment += timedelta(seconds=30)
    time = f"{moment:%H:%M:%S}" if near else f"{moment:%H:%M}"
    return time if moment.date() == wall.date() else f"{moment:%d %b} {time}"


def _outage(view: View, now: float, wall: datetime) -> str:
    failing = "failing" if view.trouble.startswith(_ANSWERED) else "unreachable"
    if view.gives_up_at is None:
        return f"endpoint {failing}"
    left = view.gives_up_at - now
    if left <= 0:
        return f"endpoint {failing}, the last try"
    if left < 120:
        return f"endpoint {failing}, trying for {span_text(left)}"
    until = clock(view.gives_up_at, now, wall)
    return f"endpoint {failing}, {'' if ' ' in until else 'trying '}until {until}"


def _pause(view: View, now: float, wall: datetime, refusal: Verdict | None) -> str:
    cause = {"overloaded": "the busy endpoint", "loading": "the model to load"}
    what = cause.get(refusal.reason if refusal is not None else "", "the rate limit")
    left = 0.0 if view.resumes_at is None else view.resumes_at - now
    if left <= 0:
        return f"waiting for {what}"
    if left < 120:
        return f"waiting {span_text(left)} for {what}"
    assert view.resumes_at is not None
    until = clock(view.resumes_at, now, wall)
    if " " in until:
        return f"waiting until {until} ({what.removeprefix('the ')})"
    return f"waiting until {until} for {what}"


def _limit(view: View) -> str:
    return "finding the limit" if view.searching else "limit"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def span_text(seconds: float) -> str:
    """Returns a time that is left: ``12 s``, ``14 min``, ``1 h 22 min``."""
    whole = max(1, math.ceil(seconds - 0.01))
    if whole < 120:
        return f"{whole} s"
    minutes = math.ceil(whole / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _clipped(text: str) -> str:
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= MOST_REASON else line[: MOST_REASON - 1] + "…"
