"""Runs that die at a request: the journal takes no more, as after a power cut, and the next run goes on from it."""

from collections.abc import Callable
from typing import Any, Protocol
from unittest.mock import patch

from batchllm.journal import Journal
from tests.batch_kills import Killed


class Mortal(Protocol):
    """An endpoint that kills its run at a request, before or after the answer."""

    dies_at: int | None
    after: bool
    journal: Journal | None


def run_killed(endpoint: Mortal, at: int | None, *, after: bool, work: Callable[[], object]) -> bool:
    """One run that dies at a request; returns whether it finished."""
    endpoint.dies_at, endpoint.after = at, after
    open_journal = Journal.open.__func__  # type: ignore[attr-defined]

    def remember(cls: type[Journal], *args: Any, **named: Any) -> Journal:
        endpoint.journal = open_journal(cls, *args, **named)
        assert endpoint.journal is not None
        return endpoint.journal

    with patch.object(Journal, "open", classmethod(remember)):
        try:
            work()
        except (Killed, RuntimeError):
            return False
    return True
