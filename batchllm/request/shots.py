"""Few-shot examples: pairs of a question and its answer, sent as earlier turns of every request.

They are chosen in the order of the file, one of each label in turn, so that every label has its share. All rows get the
same examples, which an endpoint's prompt cache then covers; only a row that is itself one of them gets another instead.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchllm.answer import Labels, SeveralLabels, labels_in
from batchllm.answer.schema import Schema
from batchllm.errors import UsageError, listed
from batchllm.exact import parse_json
from batchllm.records import AnswerSpec, Row
from batchllm.request.outcome import InvalidRow, Messages, RowRequest
from batchllm.template import RenderError, to_json


@dataclass(frozen=True, slots=True)
class Shot:
    """One example.

    Attributes:
        question: The user message.
        answer: What the assistant answered.
        same_as: Equal for messages that ask the same.
        labels: Its labels, where the answers are labels.
    """

    question: Mapping[str, Any]
    answer: str
    same_as: str
    labels: tuple[str, ...]


class Shots:
    """Puts examples before the row's own turn.

    Args:
        examples: The rows of the examples file: the columns that the prompt reads, and the answer's.
        count: How many a request carries; fewer where the file has fewer.
        spec: How the answers are read.
        ask: Makes the request of a row, as for the rows of the job.
        column: The text column, where the prompt reads one: rows of equal texts are the same.

    Attributes:
        usual: The examples that a row gets that is none of them.

    Raises:
        UsageError: An example lacks a column, or its answer is none that the task has; the message names its row.
    """

    def __init__(
        self,
        examples: Sequence[Mapping[str, Any]],
        count: int,
        spec: AnswerSpec,
        ask: Callable[[Row], RowRequest],
        column: str | None = None,
    ) -> None:
        self._column = column
        self._count = count
        write = _writer(spec)
        shots: dict[str, Shot] = {}
        for number, values in enumerate(examples, 1):
            try:
                shot = self._shot(Row(number - 1, number, values), ask, write)
            except RenderError as error:
                raise UsageError(f"--examples, row {number}: {error}") from None
            shots.setdefault(shot.same_as, shot)
        self._shots = list(shots.values())
        self.usual = _balanced(self._shots, count, spec.labels)
        self._labels = spec.labels
        self._usual_turns = _turns(self.usual)
        self._usual_questions = {shot.same_as for shot in self.usual}

    def before(self, row: Row, request: RowRequest) -> RowRequest:
        """Returns a row's request with examples before its own turn."""
        own = self._same_as(row, request)
        turns = self._usual_turns
        if own in self._usual_questions:
            others = [shot for shot in self._shots if shot.same_as != own]
            turns = _turns(_balanced(others, self._count, self._labels))
        messages = [*request.messages[: request.own], *turns, *request.messages[request.own :]]
        return request._replace(messages=messages, own=request.own + len(turns))

    def _shot(self, row: Row, ask: Callable[[Row], RowRequest], write: "_Writer") -> Shot:
        request = ask(row)
        if request.own >= len(request.messages):
            raise InvalidRow("bad_example", "the template has no user message that could be an earlier turn")
        answer, labels = write(row.values)
        return Shot(request.messages[request.own], answer, self._same_as(row, request), labels)

    def _same_as(self, row: Row, request: RowRequest) -> str:
        """Returns a text that is equal for rows that ask the same, however their white space is."""
        if self._column is not None:
            said = row.values.get(self._column)
        else:
            said = [message.get("content") for message in request.messages[request.own :]]
        return " ".join((said if isinstance(said, str) else to_json(said)).split())


def _turns(shots: Iterable[Shot]) -> Messages:
    return [
        turn
        for shot in shots
        for turn in (dict(shot.question), {"role": "assistant", "content": shot.answer})
    ]


def _balanced(shots: Sequence[Shot], count: int, labels: Sequence[str]) -> list[Shot]:
    """Returns ``count`` examples: the first of each label in turn, then the second of each, and so on."""
    names = dict.fromkeys([*labels, *(label for shot in shots for label in shot.labels)]) or {"": None}
    queues = [[shot for shot in shots if not name or name in shot.labels] for name in names]
    picked: dict[str, Shot] = {}
    while any(queues) and len(picked) < count:
        for queue in queues:
            while queue and queue[0].same_as in picked:
                queue.pop(0)
            if queue and len(picked) < count:
                shot = queue.pop(0)
                picked[shot.same_as] = shot
    return list(picked.values())


_Writer = Callable[[Mapping[str, Any]], tuple[str, tuple[str, ...]]]


def _writer(spec: AnswerSpec) -> _Writer:
    """Returns a function that writes the answer of an example as the model should, and names its labels.

    It raises ``InvalidRow`` where the example has no such answer.
    """
    if spec.read == "json":
        schema = Schema(spec.schema) if spec.schema else None
        return lambda values: (_data(values, spec, schema), ())
    if spec.read == "label":
        find = SeveralLabels(spec.labels).find if spec.multi_label else Labels(spec.labels).whole
        return lambda values: _label(values, spec, find)
    if spec.read == "code":
        return lambda values: (_fenced(_text(values, spec.column)), ())
    return lambda values: (_text(values, spec.column), ())


def _cell(values: Mapping[str, Any], column: str) -> Any:
    if column not in values:
        raise InvalidRow(
            "bad_example", f"there is no column {column!r} with the answer; the columns are: {listed(values)}"
        )
    return values[column]


def _text(values: Mapping[str, Any], column: str) -> str:
    cell = _cell(values, column)
    text = cell if isinstance(cell, str) else "" if cell is None else to_json(cell)
    if not text.strip():
        raise InvalidRow("bad_example", f"the answer in column {column!r} is empty")
    return text


def _label(
    values: Mapping[str, Any], spec: AnswerSpec, find: Callable[[str], str | None]
) -> tuple[str, tuple[str, ...]]:
    text = _text(values, spec.column)
    found = find(text)
    if found is None:
        raise InvalidRow("bad_example", f"{text!r} is none of the labels {', '.join(spec.labels)}")
    return found, labels_in(found, spec)


def _fenced(code: str) -> str:
    return code if "```" in code else f"```\n{code.rstrip()}\n```"


def _data(values: Mapping[str, Any], spec: AnswerSpec, schema: Schema | None) -> str:
    if schema is None or not schema.fields:
        return _text(values, spec.column)
    document = spec.schema if isinstance(spec.schema, Mapping) else {}
    properties = document.get("properties", {})
    required = document.get("required", ())
    answer = {}
    for name in schema.fields:
        if name not in values and name not in required:
            continue
        answer[name] = _typed(_cell(values, name), properties.get(name))
    fault = schema.fault(answer)
    if fault is not None:
        raise InvalidRow("bad_example", f"the answer does not fit the schema: {fault}")
    return to_json(answer)


def _typed(cell: Any, schema: Any) -> Any:
    """Returns a cell as its field has it: text of CSV becomes a number, a list or ``null`` where that is asked for."""
    kind = schema.get("type") if isinstance(schema, Mapping) else None
    kinds = kind if isinstance(kind, list) else [kind]
    if not isinstance(cell, str) or ("string" in kinds and (cell or "null" not in kinds)):
        return cell
    if not cell.strip():
        return None
    try:
        return parse_json(cell.strip().lower() if "boolean" in kinds else cell)
    except ValueError:
        return [part.strip() for part in cell.split(";")] if "array" in kinds else cell
