"""Says what happens to each of several endpoints: lines of their own, and words beside the progress bar."""

from datetime import datetime
from typing import Any

from batchllm.counters import EndpointFigures
from batchllm.limiter import EndpointRouter, EndpointState
from batchllm.online.waits import MOST_OUTAGES, outage_line
from batchllm.printable import counted, one_line

WORKING = ("works", "waits")


class EndpointEvents:
    """Decides which changes of endpoints get a line.

    Args:
        router: The endpoints.
    """

    def __init__(self, router: EndpointRouter[Any]) -> None:
        self.router = router
        self._states: dict[str, str] = {}
        self._told: dict[str, int] = {}

    def lines(self, states: list[EndpointState], now: float, wall: datetime) -> list[str]:
        """Returns a sentence for each endpoint that went out, down or spent since the last call, or came back.

        Args:
            states: What the endpoints do.
            now: The time now, on the limiter's clock.
            wall: The local time now.
        """
        news = self.router.excluded.news
        lines, news[:] = list(news), []
        for state in states:
            before = self._states.get(state.name, "works")
            self._states[state.name] = state.state
            line = ""
            if state.state == "down" and before != "down":
                line = outage_line(state.view, now, wall, state.name)
            elif state.state == "spent" and before != "spent":
                line = f"{state.name} is left out for now ({one_line(state.why, 160)})."
            elif state.state in WORKING and before in ("down", "spent"):
                line = f"{state.name} takes requests again."
            if line and self._told.get(state.name, 0) < 2 * MOST_OUTAGES:
                self._told[state.name] = self._told.get(state.name, 0) + 1
                lines.append(line)
        return lines

    @staticmethod
    def words(states: list[EndpointState]) -> str:
        """Returns how many endpoints work, in some 20 characters."""
        working = sum(state.state in WORKING for state in states)
        return f"{working} of {counted(len(states), 'endpoint')}" if working < len(states) else ""


def figures_of(states: list[EndpointState]) -> tuple[EndpointFigures, ...]:
    """Returns what endpoints did in this run, for the summary and for ``status``."""
    return tuple(
        EndpointFigures(
            endpoint=state.name,
            state=state.state,
            why=one_line(state.why),
            attempts=state.attempts,
            answers=state.answers,
            refusals=state.refusals,
            failures=state.failures,
            requests_per_minute=None
            if state.requests_per_minute is None
            else round(state.requests_per_minute, 2),
        )
        for state in states
    )
