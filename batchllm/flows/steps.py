"""Asks one request after the other; each step reads the answers of the steps before it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchllm.answer import Reader, answer_columns
from batchllm.flows.asking import first_of_several, reasking, values_of
from batchllm.flows.flow import Ask, Flow, RequestFailed, Unsent, sendable
from batchllm.flows.stand_in import STAND_IN
from batchllm.job.record import JobStep
from batchllm.records import Answer, AnswerSpec, Row
from batchllm.request import RequestBuilder, Skipped, Unsendable
from batchllm.request.condition import Condition
from batchllm.template import RenderError


@dataclass(frozen=True, slots=True)
class PreparedStep:
    """A step that is compiled for the columns of the input and of the steps before it.

    Attributes:
        name: Its name, which is also the path of its request.
        builder: Makes its request.
        reader: Reads its answer.
        columns: The columns that its answer fills.
        when: Decides whether a row takes it; ``None``: every row does.
        reasks: How often an answer that does not validate is re-asked.
    """

    name: str
    builder: RequestBuilder
    reader: Reader
    columns: tuple[str, ...]
    when: Condition | None
    reasks: int

    @property
    def used_columns(self) -> frozenset[str]:
        """The columns that prompt and condition read."""
        return self.builder.used_columns | (self.when.used_columns if self.when else frozenset())


def prepare_steps(steps: Sequence[JobStep], builder: RequestBuilder) -> tuple[PreparedStep, ...]:
    """Compiles the steps of a job.

    Args:
        steps: The steps.
        builder: The job's own, which knows the input.

    Raises:
        UsageError: A step reads what neither the input nor an earlier step has.
    """
    found: list[PreparedStep] = []
    earlier: list[str] = []
    for step in steps:
        own = builder.of_step(step.job, earlier)
        reader = own.reader(Row(0, 0, {}))
        columns = answer_columns(reader.spec)
        when = None if step.when is None else own.condition(step.name, step.when)
        reasks = step.job.reasks if reader.spec.read == "json" else 0
        found.append(PreparedStep(step.name, own, reader, columns, when, reasks))
        earlier += columns
    return tuple(found)


def chained(steps: Sequence[PreparedStep], row: Row) -> Flow:
    """Yields the request of each step that the row takes, one after the other.

    A step that is not taken, or has nothing to ask, leaves its columns empty. If one fails, the row fails with what
    the steps before it answered.

    Raises:
        Unsent: No step asks anything, or the first one that does cannot be sent.
    """
    columns: dict[str, Any] = {}
    assumed: set[str] = set()
    labels: tuple[str, ...] = ()
    last: Answer | None = None
    for step in steps:
        now = row._replace(values={**row.values, **columns})
        columns |= dict.fromkeys(step.columns)
        try:
            ask = _ask(steps, step, row, now, assumed, first=last is None)
        except Unsent as unsent:
            if isinstance(unsent.outcome, Skipped):
                continue
            error, reason = unsent.outcome.error, unsent.outcome.reason
            if last is None:
                raise Unsent(Unsendable(row.index, f"{step.name}: {error}", reason)) from None
            failed = Answer(columns, error=error, reason=reason)
            raise RequestFailed([failed], step.name, failed) from None
        try:
            last = yield from reasking(step.builder, ask, step.reasks)
        except RequestFailed as found:
            answer = found.answer._replace(columns=columns)
            raise RequestFailed(found.answers, found.path, answer, given_up=found.given_up) from None
        labels += last.labels
        if last.response_id == STAND_IN:
            assumed.update(step.columns)
            columns |= _stand_ins(step, last.text)
        else:
            columns |= last.columns
    if last is None:
        raise Unsent(Skipped(row.index))
    return last._replace(columns=columns, labels=labels)


def _ask(
    steps: Sequence[PreparedStep], step: PreparedStep, row: Row, now: Row, assumed: set[str], *, first: bool
) -> Ask:
    """Returns the request of a step.

    Raises:
        Unsent: The row does not take the step, or it cannot be sent.
    """
    try:
        taken = step.when is None or bool(step.when.used_columns & assumed) or step.when.holds(now)
    except RenderError as error:
        raise Unsent(Unsendable(row.index, f"the condition cannot be decided: {error}", "bad_row")) from error
    built = sendable(step.builder.build(now) if taken else Skipped(row.index))
    if not first:
        return Ask(step.name, built.key, step.reader, built, model=built.model)
    values = values_of(row, {name for each in steps for name in each.used_columns})
    return first_of_several(step.name, built, values, step.reader, built.model)


def _stand_ins(step: PreparedStep, text: str) -> dict[str, Any]:
    """Returns values of the types that a step's columns have, as long as its answer."""
    spec: AnswerSpec = step.reader.spec
    if spec.read == "label":
        return dict.fromkeys(step.columns, spec.labels[0])
    schema = spec.schema if isinstance(spec.schema, Mapping) else {}
    properties = schema.get("properties") or {}
    return {name: _stand_in(properties.get(name), text) for name in step.columns}


def _stand_in(field: Any, text: str) -> Any:
    if not isinstance(field, Mapping):
        return text
    if choices := field.get("enum"):
        return choices[0]
    kind = field.get("type")
    kinds = kind if isinstance(kind, list) else [kind]
    match next((each for each in kinds if each != "null"), None):
        case "integer" | "number":
            return field.get("minimum", 1)
        case "boolean":
            return True
        case "array":
            return [_stand_in(field.get("items"), text)]
        case "object":
            return {}
    return text
