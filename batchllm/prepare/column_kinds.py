"""The kinds of the columns that come from an answer: those of a schema's fields, and what a flow adds."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import GenericAlias
from typing import Any

from batchllm.flows.part_columns import PART_ANSWERS, PARTS
from batchllm.flows.samples import AGREEMENT, SAMPLES
from batchllm.formats import Columns
from batchllm.formats.kinds import Kind
from batchllm.job import Job
from batchllm.request.spec import answer_spec, job_columns

_SAMPLED: Mapping[str, Kind] = {AGREEMENT: float, SAMPLES: object}
_IN_PARTS: Mapping[str, Kind] = {PARTS: int, PART_ANSWERS: object}
_KINDS: Mapping[Any, Kind] = {"string": str, "integer": int, "number": float, "boolean": bool}


def with_kinds(columns: Columns, job: Job) -> Columns:
    """Returns the columns with the kinds of those that come from the answer too.

    Args:
        columns: The columns of the output.
        job: Whose schema says the kinds of an answer's fields; text without one.
    """
    known = {**(_SAMPLED if job.samples > 1 else {}), **(_IN_PARTS if job.splits else {})}
    of_flow = {written: known[name] for written, name in columns.answer if name in known}
    return replace(columns, kinds={**_of_answer(columns, job), **of_flow, **columns.kinds})


def _of_answer(columns: Columns, job: Job) -> dict[str, Kind]:
    """The kinds of the columns that come from the answer."""
    if job.steps:
        kinds: dict[str, Kind] = {}
        for step in job.steps:
            filled = job_columns(step.job)
            own = tuple((written, name) for written, name in columns.answer if name in filled)
            kinds |= _of_answer(replace(columns, answer=own), step.job)
        return kinds
    spec = answer_spec(job)
    if spec.read != "json":
        return {}
    schema = spec.schema if isinstance(spec.schema, Mapping) else {}
    properties = schema.get("properties", {})
    return {written: kind_of_field(properties.get(name, {}), schema) for written, name in columns.answer}


def kind_of_field(declared: Any, schema: Mapping[str, Any]) -> Kind:
    """Returns the kind of a schema's field; ``object`` where several are allowed, or an object.

    Args:
        declared: The schema of the field.
        schema: The schema that it is part of, for references.
    """
    if not isinstance(declared, Mapping):
        return object
    reference = declared.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/$defs/"):
        declared = schema.get("$defs", {}).get(reference.removeprefix("#/$defs/"), {})
    names = set(_types(declared))
    if names == {"integer", "number"}:
        return float
    if names == {"array"} and declared.get("type") in ("array", ["array", "null"]):
        items = kind_of_field(declared.get("items"), schema)
        return object if items is object else GenericAlias(list, (items,))
    return _KINDS.get(next(iter(names)), object) if len(names) == 1 else object


def _types(declared: Mapping[str, Any]) -> Iterable[Any]:
    """The types that a field may have, ``None`` for one that is not said; that of ``null`` does not count."""
    kinds = declared.get("type")
    names = set(kinds if isinstance(kinds, list) else [kinds])
    for choice in declared.get("anyOf", ()):
        names.add(choice.get("type") if isinstance(choice, Mapping) else None)
    for value in declared.get("enum", ()):
        names.add("string" if isinstance(value, str) else "null" if value is None else None)
    names -= {"null"}
    if "anyOf" in declared or ("enum" in declared and kinds is None):
        names -= {None}
    return names or {None}
