"""Holds requests to ``--max-input-tokens`` and to the context window of the model.

Counting tokens costs more than everything else that is done for a row. No token is shorter than a byte, so a text
is counted only if it has more bytes than it may have tokens.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

from batchllm import tokens
from batchllm.job import Job
from batchllm.records import Row
from batchllm.request.messages import TokenCount
from batchllm.request.outcome import InvalidRow, Messages

SMALLEST_WINDOW = 4096
"""Requests below this fit every model, so the model's window is not looked up."""

ESTIMATE_SLACK = 0.7
"""The share of an estimated count that is certain enough to fail a row without asking the endpoint."""

WINDOW_SLACK = 1.1
"""Published context windows are often rounded (128,000 for 131,072) and sometimes out of date, so a row fails here
only if it is well over the window; the endpoint decides about the rest."""


class MeasuredRequest(NamedTuple):
    """What a request takes of a model's context.

    Attributes:
        prompt_tokens: Tokens of its prompt.
        max_tokens: The most that its answer may have; ``None`` where nothing bounds it.
        window: The published context window of its model in tokens; ``None`` where it is unknown.
        exact: They were counted with the model's own vocabulary.
    """

    prompt_tokens: int
    max_tokens: int | None
    window: int | None
    exact: bool


class LengthLimits:
    """Holds rows to the limits of a job.

    Args:
        job: Its ``max_input_tokens`` and ``on_long``.
        context_window: Tokens of a model's context, ``None`` where unknown.

    Attributes:
        window: Returns the published context window of a model in tokens; ``None`` where it is unknown.
        truncated: How many times a text was cut.
    """

    def __init__(self, job: Job, context_window: Callable[[str], int | None]) -> None:
        self._limit = job.max_input_tokens
        self._cut = job.on_long == "truncate"
        self._model = job.endpoint.model
        self.window = cache(context_window)
        self.truncated = 0

    def text(self, row: Row, column: str) -> Row:
        """Returns the row with a text of at most ``--max-input-tokens``.

        Raises:
            InvalidRow: It has more, and is not to be cut.
        """
        limit, text = self._limit, row.values.get(column)
        if limit is None or not isinstance(text, str) or len(text.encode("utf-8", "replace")) <= limit:
            return row
        found = tokens.counter(self._model)(text)
        if found <= limit:
            return row
        if not self._cut:
            raise InvalidRow(
                "too_long",
                f"the text has {found} tokens, and --max-input-tokens is {limit}; --on-long split asks "
                "about its parts, --on-long truncate cuts it off",
            )
        self.truncated += 1
        return row._replace(values={**row.values, column: tokens.truncate(text, limit, self._model)})

    def own_messages(self, messages: Messages) -> None:
        """Holds the messages that a row brought to ``--max-input-tokens``; there is no text column to cut.

        Raises:
            InvalidRow: They have more.
        """
        if self._limit is None:
            return
        found = TokenCount(tokens.counter(self._model)).prompt(messages, {})
        if found > self._limit:
            raise InvalidRow(
                "too_long", f"the messages have {found} tokens, and --max-input-tokens is {self._limit}"
            )

    def measured(
        self, model: str, messages: Messages, parameters: Mapping[str, Any], bound: int | None
    ) -> MeasuredRequest:
        """Counts a request with the vocabulary of its model, or the nearest one."""
        counter = tokens.counter(model)
        found = TokenCount(counter).prompt(messages, parameters)
        return MeasuredRequest(found, bound, self.window(model), counter.exact)

    def context(
        self, model: str, size: int, messages: Messages, parameters: Mapping[str, Any], answer_tokens: int
    ) -> None:
        """Holds a request of ``size`` bytes to the context of its model.

        Raises:
            InvalidRow: Prompt and answer together do not fit.
        """
        if size + answer_tokens <= SMALLEST_WINDOW:
            return
        window = self.window(model)
        if window is None or size + answer_tokens <= window:
            return
        found, _, _, exact = self.measured(model, messages, parameters, answer_tokens)
        if (found if exact else found * ESTIMATE_SLACK) + answer_tokens > window * WINDOW_SLACK:
            about = "" if exact else "about "
            raise InvalidRow(
                "context_length",
                f"{about}{found} tokens of prompt and {answer_tokens} of answer do not fit into the {window} tokens "
                f"of {model}; --on-long split asks about the parts of the text, --max-input-tokens with --on-long "
                "truncate shortens it",
            )
