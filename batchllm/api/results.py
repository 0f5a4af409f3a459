"""Results of tables: the caller's own kind of table with the answer columns beside its own."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from decimal import Decimal
from os import PathLike
from pathlib import Path
from typing import Any

from batchllm.api.messages import python_words
from batchllm.api.tables import AnswerColumn, Table, table_of
from batchllm.evaluate.answered import AnsweredRows, answered_rows
from batchllm.evaluate.evaluation import Evaluation
from batchllm.evaluate.gold import GoldWords
from batchllm.formats import Columns
from batchllm.formats.memory import ROWS
from batchllm.job import Job
from batchllm.runner import FinishedRow, Result


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TableResult(Result):
    """A finished run over a table.

    Attributes:
        table: The given table with the answer columns.
    """

    table: Any = field(compare=False)

    def evaluate(self, gold: GoldWords, *, on: str | None = None, kind: str | None = None) -> Evaluation:
        """Compares the answers with known answers; see ``Result``."""
        with python_words():
            return Result.evaluate(self, gold, on=on, kind=kind)

    def report(
        self, path: str | PathLike[str], *, gold: GoldWords | None = None, on: str | None = None
    ) -> Path:
        """Writes one HTML page to look at; see ``Result``."""
        with python_words():
            return Result.report(self, path, gold=gold, on=on)

    def _answered(self, purpose: str) -> AnsweredRows:
        return answered_table(table_of(self.table), self.job)

    def frame(self) -> Any:
        """Returns the given table, its own columns, index and types untouched, with the answer columns beside them.

        It is of the kind that was given: a pandas or polars frame, an Arrow table, a list of dictionaries. After a
        trial (``limit=``, ``sample=``) it has the rows that were tried.
        """
        return self.table


def answered_table(table: Table, job: Job | None = None, name: str = ROWS) -> AnsweredRows:
    """Returns the rows of a table with their answers, as figures are made of them."""
    columns = tuple(dict.fromkeys(table.columns))
    return answered_rows(lambda: table.records(columns), columns, job, name, table.sample())


def with_table(result: Result, table: Any, parsed: tuple[Any, ...] | None) -> TableResult:
    """Returns a result as that of a table."""
    values = {each.name: getattr(result, each.name) for each in fields(Result)}
    return TableResult(**{**values, "models": parsed}, table=table)


def answer_columns(columns: Columns, job: Job, answers: Sequence[Mapping[str, Any]]) -> list[AnswerColumn]:
    """Returns the answer columns of rows, with their types.

    Args:
        columns: The columns of the output.
        job: Whose schema says the types of an answer's fields.
        answers: The answers of the rows, in order.
    """
    found = []
    for name in columns.order:
        declared = columns.kinds.get(name, str)
        kind = declared if isinstance(declared, type) else object
        found.append(AnswerColumn(name, kind, [_typed(row.get(name), kind) for row in answers]))
    return found


def _typed(value: Any, kind: type) -> Any:
    """A value of JSON as its column's type: 1.0 is an integer to JSON Schema."""
    if value is None or kind is object:
        return value
    if kind is float and isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def parsed_of(model: Any, rows: Iterable[FinishedRow]) -> tuple[Any, ...]:
    """Returns instances of a pydantic model; ``None`` for a row that has no answer, or that the model refuses."""
    is_object = "properties" in model.model_json_schema()
    return tuple(None if row.error is not None else _instance(model, row.fields, is_object) for row in rows)


def _instance(model: Any, answer: Mapping[str, Any], is_object: bool) -> Any:
    """A field that the answer left out is ``None`` in it, and has the model's default."""
    given = {name: value for name, value in answer.items() if value is not None}
    for value in (dict(answer), given) if is_object else answer.values():
        try:
            return model.model_validate(value)
        except ValueError:
            continue  # validators of the model's own may refuse what fits its schema
    return None
