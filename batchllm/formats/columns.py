"""The outcome of a row, and the columns that the output gets of it.

Which columns there are, and what they are called, is decided before the first request.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from types import MappingProxyType
from typing import Any, NamedTuple

from batchllm.errors import UsageError, did_you_mean, listed
from batchllm.formats.kinds import Kind
from batchllm.records import Answer


class Outcome(NamedTuple):
    """The outcome of one row.

    Attributes:
        row_index: The row, by its position in the input from 0.
        answer: Its answer, which may be a failure; ``None`` where the row was skipped.
        attempts: Requests sent for it, over all runs.
        latency_s: Seconds of the attempt that brought the answer.
        cost: What the answer cost, in US dollars; ``None`` is unknown.
        endpoint: The endpoint that brought the answer; ``None`` where nobody asked for it, or it is not recorded.
        extra: Values of answer columns that replace those of the answer.
        source_file: The file that the row came from, where that is asked for.
    """

    row_index: int
    answer: Answer | None
    attempts: int = 0
    latency_s: float | None = None
    cost: Decimal | None = None
    endpoint: str | None = None
    extra: Mapping[str, Any] = MappingProxyType({})
    source_file: str | None = None


SOURCE_FILE = "source_file"
"""The column with the file that a row came from."""

ColumnReader = Callable[[Outcome, Answer], Any]
"""Returns the value of one column, given an outcome and its answer (an empty one where there is none)."""


class AddedColumn(NamedTuple):
    """A column beside the answer.

    Attributes:
        kind: What it holds.
        read: Returns its value.
    """

    kind: Kind
    read: ColumnReader


STANDARD: Mapping[str, AddedColumn] = {
    "finish_reason": AddedColumn(str, lambda outcome, answer: answer.finish_reason),
    "prompt_tokens": AddedColumn(int, lambda outcome, answer: answer.usage.prompt_tokens),
    "completion_tokens": AddedColumn(int, lambda outcome, answer: answer.usage.completion_tokens),
    "total_tokens": AddedColumn(int, lambda outcome, answer: answer.usage.total_tokens),
    "model": AddedColumn(str, lambda outcome, answer: answer.model),
    "attempts": AddedColumn(int, lambda outcome, answer: outcome.attempts),
    "error": AddedColumn(str, lambda outcome, answer: answer.error),
}
"""The columns beside the answer by default."""

ENDPOINT = "endpoint"

ADDABLE: Mapping[str, AddedColumn] = {
    "response_id": AddedColumn(str, lambda outcome, answer: answer.response_id),
    "created": AddedColumn(int, lambda outcome, answer: answer.created),
    "latency_s": AddedColumn(
        float, lambda outcome, answer: None if outcome.latency_s is None else round(outcome.latency_s, 3)
    ),
    "cost": AddedColumn(float, lambda outcome, answer: outcome.cost),
    "reasoning_tokens": AddedColumn(int, lambda outcome, answer: answer.usage.reasoning_tokens),
    "cached_tokens": AddedColumn(int, lambda outcome, answer: answer.usage.cached_tokens),
    "tool_calls": AddedColumn(object, lambda outcome, answer: answer.tool_calls),
    "raw_finish_reason": AddedColumn(str, lambda outcome, answer: answer.raw_finish_reason),
    "confidence": AddedColumn(float, lambda outcome, answer: answer.confidence),
    SOURCE_FILE: AddedColumn(str, lambda outcome, answer: outcome.source_file),
    ENDPOINT: AddedColumn(str, lambda outcome, answer: outcome.endpoint),
}
"""The columns that ``--add`` adds."""

_FIELDS = {**STANDARD, **ADDABLE}


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of an output.

    Attributes:
        input: The columns of the input.
        answer: Added columns that come from the answer: name in the output, name in ``Answer.columns``.
        fields: The other added columns: name in the output, name in ``STANDARD`` or ``ADDABLE``.
        order: All added columns by their names in the output, in order.
        kinds: What added columns hold, by their names in the output, for formats with types; see ``kinds``. Text where
            nothing is said.
        input_kinds: The same of the columns of the input, where the output is a part of one that has more rows;
            ``None``: the rows that are written decide.
    """

    input: tuple[str, ...]
    answer: tuple[tuple[str, str], ...]
    fields: tuple[tuple[str, str], ...]
    order: tuple[str, ...]
    kinds: Mapping[str, Kind] = field(default_factory=dict, compare=False)
    input_kinds: Mapping[str, Kind] | None = field(default=None, compare=False)

    @property
    def names_file(self) -> bool:
        """Whether the file of a row is among them."""
        return any(name == SOURCE_FILE for _, name in self.fields)

    def with_text(self, name: str) -> "Columns":
        """Returns the same columns, with one added column as text."""
        return replace(self, kinds={**self.kinds, name: str})


class UnfitValueError(Exception):
    """A value of an added column is none of the column's kind; the column can be text.

    Attributes:
        column: Its name in the output.
    """

    def __init__(self, column: str) -> None:
        super().__init__(column)
        self.column = column


def kept_columns(
    columns: Sequence[str], keep: Sequence[str] | None, drop: Sequence[str] | None
) -> tuple[str, ...]:
    """Returns the columns of the input that the output has.

    Args:
        columns: All of them.
        keep: Names of ``--keep``, whose order is that of the output; ``None`` keeps all.
        drop: Names of ``--drop``; the others keep their order.

    Raises:
        UsageError: There is no such column.
    """
    for option, names in (("--keep", keep or ()), ("--drop", drop or ())):
        for name in names:
            if name not in columns:
                hint = did_you_mean(name, columns)
                raise UsageError(
                    f"{option}: the input has no column {name!r}{hint}; its columns are: {listed(columns)}"
                )
    if keep is not None:
        return tuple(keep)
    return tuple(name for name in columns if name not in drop) if drop else tuple(columns)


def written_name(name: str, prefix: str = "", rename: Mapping[str, str] | None = None) -> str:
    """Returns what an added column is called in the output: as ``--rename`` says, else with the prefix."""
    return (rename or {}).get(name, prefix + name)


def plan_columns(
    input_columns: Sequence[str],
    answer_columns: Sequence[str],
    add: Sequence[str] = (),
    columns: Sequence[str] | None = None,
    prefix: str = "",
    parameter_columns: Collection[str] = frozenset(),
    taken: Collection[str] = (),
    rename: Mapping[str, str] | None = None,
) -> Columns:
    """Decides the columns of an output.

    Args:
        input_columns: Columns of the input that the output has; see ``kept_columns``.
        answer_columns: Columns that the task writes: ``summary``, or the fields of a schema.
        add: Names of ``--add``.
        columns: Names of ``--columns``, in order, out of the answer columns, ``STANDARD`` and ``ADDABLE``;
            ``None`` takes the answer columns and ``STANDARD``.
        prefix: Put before the name of each added column.
        parameter_columns: Input columns that are parameters of the request. An added column of the same name
            (``model``), or with the name of a field of the answer, becomes ``response_model``.
        taken: Further names that an added column must not have.
        rename: Names of added columns, to the names that they get instead of the one with the prefix.

    Raises:
        UsageError: There is no such column, or the input already has one of that name.
    """
    rename = rename or {}
    _refuse_unknown("--add", add, tuple(_FIELDS), input_columns)
    _refuse_unknown("--rename", tuple(rename), (*answer_columns, *_FIELDS), input_columns)
    for old, new in rename.items():
        if not new.strip():
            raise UsageError(f"--rename {old}={new}: the new name is missing")
    if columns is None:
        chosen = (*answer_columns, *STANDARD, *add)
    else:
        _refuse_unknown("--columns", columns, (*answer_columns, *_FIELDS), input_columns)
        chosen = (*columns, *add)
    answer: list[tuple[str, str]] = []
    fields: list[tuple[str, str]] = []
    order: dict[str, None] = {}
    for name in chosen:
        written = written_name(name, prefix, rename)
        if name in answer_columns and (written, name) not in answer:
            _refuse_twice(written, order, rename)
            answer.append((written, name))
        elif name in _FIELDS:
            if name in answer_columns or written in parameter_columns:
                written = f"{prefix}response_{name}"
            if written not in order:
                fields.append((written, name))
            elif (written, name) not in fields:
                _refuse_twice(written, order, rename)
        order[written] = None
    _refuse_collisions({*input_columns, *taken}, tuple(order), prefix, rename)
    kinds = {written: _FIELDS[name].kind for written, name in fields}
    return Columns(tuple(input_columns), tuple(answer), tuple(fields), tuple(order), kinds)


def _refuse_unknown(
    option: str, names: Sequence[str], known: Sequence[str], input_columns: Sequence[str]
) -> None:
    for name in names:
        if name in known:
            continue
        if name in input_columns:
            raise UsageError(
                f"{option}: {name!r} is a column of the input, which --keep and --drop choose; the option is about"
                f" {', '.join(known)}"
            )
        raise UsageError(
            f"{option}: there is no column {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}"
        )


def _refuse_twice(written: str, order: Collection[str], rename: Mapping[str, str]) -> None:
    if written in order and written in rename.values():
        raise UsageError(f"--rename: two columns of the output would be called {written!r}; name another")


def _refuse_collisions(
    taken: Collection[str], ours: Sequence[str], prefix: str, rename: Mapping[str, str]
) -> None:
    double = [name for name in ours if name in taken]
    if not double:
        return
    for old, new in rename.items():
        if new in double:
            raise UsageError(f"--rename {old}={new}: the input already has a column {new!r}; name another")
    bare = [name.removeprefix(prefix) for name in ours]
    candidates = ["llm_", *(f"llm{number}_" for number in range(2, len(taken) + 3))]
    free = next(found for found in candidates if not any(found + name in taken for name in bare))
    raise UsageError(
        f"the input already has {'the column' if len(double) == 1 else 'the columns'}"
        f" {', '.join(map(repr, double))}, which the answer would get too; add --prefix {free}"
    )


def column_readers(columns: Columns) -> tuple[tuple[str, ColumnReader], ...]:
    """Returns the names of ``columns.order``, each with its reader."""
    found = {written: _answer_reader(name) for written, name in columns.answer}
    found |= {written: _FIELDS[name].read for written, name in columns.fields}
    return tuple((written, found[written]) for written in columns.order)


def _answer_reader(name: str) -> ColumnReader:
    def read(outcome: Outcome, answer: Answer) -> Any:
        value = answer.columns.get(name)
        return outcome.extra.get(name, value) if outcome.extra else value

    return read
