"""How much text a request has room for, by ``--max-input-tokens`` and by the context of the model."""

from collections.abc import Callable
from typing import NamedTuple

from batchllm import tokens
from batchllm.context_error import said_limit
from batchllm.job import Job
from batchllm.job.split import SMALLEST_PART
from batchllm.records import Answer, Row
from batchllm.request.builder import RequestBuilder
from batchllm.request.limits import MeasuredRequest
from batchllm.template import RenderError

UNLIMITED = 10**9
"""Stands for a room that nothing limits, or nothing known."""

ALWAYS_FITS = 2048
"""Bytes of a text that fits every model."""

_WORDS = 128
_SEAM = 8  # tokens that a text may add where it meets the words around it
_ESTIMATED = 0.9  # the share of a context that is used where another vocabulary counts


_TOO_LONG = frozenset({"context_length", "too_large"})


def is_too_long(answer: Answer) -> bool:
    """Whether the endpoint did not take a request because of its length."""
    return answer.reason in _TOO_LONG


class Room(NamedTuple):
    """Tokens of text that a request has room for.

    Attributes:
        whole: For a text that is asked about whole.
        part: For a part, beside the longest answer and its re-asks.
    """

    whole: int
    part: int


class LongText:
    """Measures rooms for the texts of rows.

    Args:
        job: The job.
        builder: Makes its requests; it must not hold texts to a limit itself.

    Attributes:
        count: Counts the tokens of a text exactly, as ``--max-input-tokens`` means them.
    """

    def __init__(self, job: Job, builder: RequestBuilder) -> None:
        self.count = tokens.counter(job.endpoint.model)
        self._limit = job.max_input_tokens or UNLIMITED
        self._builder = builder
        self._asked = 1 + job.reasks
        # Where a prompt reads nothing but the text, it has the same other words in all rows.
        self._is_constant = builder.same_for_all_rows and len(builder.used_columns) == 1 and not builder.shots
        self._constant: tuple[MeasuredRequest, int, int] | None = None

    def may_exceed(self, text: str) -> bool:
        """Whether a text has to be counted: no token is shorter than a byte."""
        least = min(self._limit, ALWAYS_FITS)
        return len(text) * 4 > least and len(text.encode("utf-8", "replace")) > least

    def exceeds(self, text: str, room: int) -> bool:
        """Whether a text has more tokens; reads no more of it than that takes."""
        if len(text) * 4 <= room:
            return False
        size = room * 8
        return (len(text) > size and self.count(text[:size]) > room + _SEAM) or self.count(text) > room

    def room(self, row: Row) -> Room:
        """Returns the rooms of a row's request; negative where not even its other words fit."""
        overhead = self._overhead(row)
        if overhead is None or overhead[0].window is None:
            return Room(self._limit, self._limit)
        measured, words, times = overhead
        window = overhead[0].window
        window = window if measured.exact else int(window * _ESTIMATED)
        answer = measured.max_tokens
        part = window // 4 if answer is None else answer * self._asked
        left = window - words - _SEAM * times
        whole, part = (left - (answer or 0)) // times, (left - part) // times
        return Room(min(self._limit, whole), min(self._limit, part))

    def has_window(self, row: Row) -> bool:
        """Whether the context of a row's model is known."""
        overhead = self._overhead(row)
        return overhead is not None and overhead[0].window is not None

    def room_after(self, row: Row, error: str) -> Callable[[str], int]:
        """Returns the room for parts of a text whose request the endpoint found too long, by the text.

        Args:
            row: The row.
            error: The endpoint's words.
        """
        said, most = said_limit(error), self.room(row).part
        overhead = self._overhead(row)
        if overhead is None:
            return lambda text: max(SMALLEST_PART, self.count(text) // 2)
        measured, words, times = overhead

        def room_after(text: str) -> int:
            size = self.count(text)
            room = size // 2
            if said.limit is not None:
                answer = said.answer or measured.max_tokens or said.limit // 4
                allowed = max(said.limit - answer, said.limit // 8)
                prompt = words + size * times
                # The endpoint's tokens in ours; where it does not say what it counted, ours were too few by a quarter.
                ours = prompt / said.counted if said.counted else min(1.0, 0.75 * prompt / allowed)
                room = int((allowed * ours * _ESTIMATED - words) / times)
            return max(SMALLEST_PART, min(room, size * 9 // 10, most))

        return room_after

    def _overhead(self, row: Row) -> tuple[MeasuredRequest, int, int] | None:
        """What ``_measured`` returns; ``None`` where the row cannot be sent."""
        if self._constant is None or not self._is_constant:
            try:
                self._constant = self._measured(row)
            except RenderError:
                return None
        return self._constant

    def _measured(self, row: Row) -> tuple[MeasuredRequest, int, int]:
        """Measures a row with a short text: it, the tokens of its other words, and how often it has the text."""
        few, many = (
            self._builder.measured(self._builder.with_text(row, "word " * words)) for words in (1, _WORDS + 1)
        )
        times = max(1, -(-(many.prompt_tokens - few.prompt_tokens) // _WORDS))
        return few, few.prompt_tokens - times, times
