"""The outcome of a row, and the columns that can be made of it."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any, NamedTuple

from batchllm.formats.columns import Columns
from batchllm.records import Answer


class Outcome(NamedTuple):
    """The outcome of one row.

    Attributes:
        row_index: The row, by its position in the input from 0.
        answer: Its answer, which may be a failure; ``None`` where the row was skipped.
        attempts: Requests sent for it, over all runs.
        latency_s: Seconds of the attempt that brought the answer.
        cost: What the answer cost, in US dollars; ``None`` is unknown.
        extra: Values of answer columns that replace those of the answer.
    """

    row_index: int
    answer: Answer | None
    attempts: int = 0
    latency_s: float | None = None
    cost: Decimal | None = None
    extra: Mapping[str, Any] = MappingProxyType({})


ColumnReader = Callable[[Outcome, Answer], Any]
"""Returns the value of one column, given an outcome and its answer (an empty one where there is none)."""

FIELDS: Mapping[str, ColumnReader] = {
    "finish_reason": lambda outcome, answer: answer.finish_reason,
    "prompt_tokens": lambda outcome, answer: answer.usage.prompt_tokens,
    "completion_tokens": lambda outcome, answer: answer.usage.completion_tokens,
    "total_tokens": lambda outcome, answer: answer.usage.total_tokens,
    "model": lambda outcome, answer: answer.model,
    "attempts": lambda outcome, answer: outcome.attempts,
    "error": lambda outcome, answer: answer.error,
    "response_id": lambda outcome, answer: answer.response_id,
    "created": lambda outcome, answer: answer.created,
    "latency_s": lambda outcome, answer: None if outcome.latency_s is None else round(outcome.latency_s, 3),
    "cost": lambda outcome, answer: outcome.cost,
    "reasoning_tokens": lambda outcome, answer: answer.usage.reasoning_tokens,
    "cached_tokens": lambda outcome, answer: answer.usage.cached_tokens,
    "tool_calls": lambda outcome, answer: answer.tool_calls,
}
"""The columns that do not come from the text of the answer, by name."""


def answer_reader(name: str) -> ColumnReader:
    """Returns the reader of an answer column such as ``summary``."""

    def read(outcome: Outcome, answer: Answer) -> Any:
        value = answer.columns.get(name)
        return outcome.extra.get(name, value) if outcome.extra else value

    return read


def column_readers(columns: Columns) -> tuple[tuple[str, ColumnReader], ...]:
    """Returns the names of ``columns.order``, each with its reader."""
    found = {written: answer_reader(name) for written, name in columns.answer}
    found |= {written: FIELDS[name] for written, name in columns.fields}
    return tuple((written, found[written]) for written in columns.order)
