"""What shapes the answers of a job, read from the requests that it sends."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import orjson

from batchllm.printable import counted
from batchllm.records import ChatRequest

_TEMPERATURE = "temperature"


@dataclass(frozen=True, slots=True)
class AnswerSettings:
    """What shapes the answers, as a sample of the requests has it.

    Attributes:
        column: The text column; ``None`` if no single one is read.
        shots: The examples that each request carries.
        max_tokens: The limits of an answer, in ascending order; ``None`` among them: no limit is sent.
        temperature: The temperatures, in the same way.
    """

    column: str | None = None
    shots: int = 0
    max_tokens: tuple[float | None, ...] = ()
    temperature: tuple[float | None, ...] = ()

    def to_text(self) -> str:
        """Returns them for the line before the run: ``column review, at most 10 tokens an answer, temperature 0``."""
        return ", ".join(self._parts())

    def _parts(self) -> Iterator[str]:
        if self.column is not None:
            yield f"column {self.column}"
        if self.shots:
            yield counted(self.shots, "example")
        if self.max_tokens:
            limit = _range(self.max_tokens)
            some = " (some requests set no limit)" if None in self.max_tokens else ""
            yield f"at most {limit} tokens an answer{some}" if limit else "no limit of an answer set"
        if self.temperature:
            temperature = _range(self.temperature)
            some = " (some requests set none)" if None in self.temperature else ""
            yield f"temperature {temperature}{some}" if temperature else "temperature not set"


def answer_settings(column: str | None, shots: int, requests: Iterable[ChatRequest]) -> AnswerSettings:
    """Reads the settings from requests.

    Args:
        column: The text column.
        shots: The examples that each request carries.
        requests: Some of the requests.
    """
    limits: set[float | None] = set()
    temperatures: set[float | None] = set()
    for request in requests:
        limits.add(request.max_tokens)
        found = orjson.loads(request.body).get(_TEMPERATURE) if b'"temperature"' in request.body else None
        temperatures.add(found if isinstance(found, int | float) else None)
    return AnswerSettings(column, shots, _sorted(limits), _sorted(temperatures))


def _sorted(values: set[float | None]) -> tuple[float | None, ...]:
    return tuple(sorted(values, key=lambda value: (value is None, value or 0)))


def _range(values: tuple[float | None, ...]) -> str:
    """``10`` or ``10 to 50``; empty if none is set."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    low, high = (f"{value:,}" if isinstance(value, int) else f"{value:g}" for value in (known[0], known[-1]))
    return low if low == high else f"{low} to {high}"
