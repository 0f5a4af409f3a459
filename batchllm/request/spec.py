"""How a job reads its answers, and how it asks for a schema."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from batchllm.answer import answer_columns, schema_of
from batchllm.errors import UsageError
from batchllm.job import Job
from batchllm.request.parameters import merge_layers
from batchllm.template import AnswerSpec, Template, builtin_names, literal, load, parameter_value, text_column

CLASSIFY = "classify"
VISION_MAX_TOKENS = 300
ROW_COLUMN = "response"  # where rows that bring their own task get their answer


def answer_spec(job: Job) -> AnswerSpec:
    """Returns how the answers of a job are read, with the labels and the schema of the job.

    Raises:
        UsageError: The schema is written wrong.
    """
    base = (
        AnswerSpec(ROW_COLUMN)
        if job.template is None
        else _with_variables(job.template, job.variables).answer
    )
    base = with_tools(base, *tool_layers(job, job.template))
    if job.schema is not None:
        return replace(base, read="json", labels=(), schema=schema_of(job.schema))
    if base.schema is not None:
        return replace(base, schema=schema_of(base.schema))
    return base


def job_columns(job: Job) -> tuple[str, ...]:
    """Returns the columns that the answers of a job fill, of all its steps."""
    jobs = [step.job for step in job.steps] or [job]
    return tuple(column for one in jobs for column in answer_columns(answer_spec(one)))


def tool_layers(job: Job, template: Template | None) -> tuple[Mapping[str, Any], ...]:
    """Returns where a request's tools come from, the later before the earlier."""
    own = {"tools": job.tools, "tool_choice": job.tool_choice}
    return ({} if template is None else template.parameters, own, job.parameters)


def with_tools(spec: AnswerSpec, *layers: Mapping[str, Any]) -> AnswerSpec:
    """Returns the spec with the tools of a request's parameters; a later layer wins over an earlier one."""
    tools, choice = spec.tools or (), spec.tool_choice
    for layer in layers:
        given = {name: layer[name] for name in ("tools", "tool_choice") if layer.get(name)}
        given = {name: parameter_value(name, it) if isinstance(it, str) else it for name, it in given.items()}
        tools, choice = given.get("tools", tools), given.get("tool_choice", choice)
    return replace(spec, tools=tuple(tools) if isinstance(tools, list | tuple) else None, tool_choice=choice)


def _with_variables(template: Template, variables: Mapping[str, Any]) -> Template:
    return template.with_variables({name: value for name, value in variables.items() if value is not None})


def prepared(job: Job, template: Template) -> Template:
    """Returns the template with the job's variables, system message and instructions.

    Where it classifies and none of its messages reads the labels, the system message ends with what that of
    ``classify`` says about them, so that they are always sent.
    """
    ready = _with_variables(template, job.variables)
    if job.system is not None:
        ready = ready.with_system(job.system)
    if CLASSIFY in (job.task, template.name) and ready.answer.read == "label" and not _states_labels(ready):
        builtin = load(CLASSIFY)
        ready = replace(
            ready.with_system_end(_label_rules(builtin)), variables={**builtin.variables, **ready.variables}
        )
    return ready if job.instructions is None else ready.with_system_end(literal(job.instructions))


_READS_LABELS = re.compile(r"\{[{%][^{}]*\blabels\b")


def _states_labels(template: Template) -> bool:
    return any(_READS_LABELS.search(str(message.content)) for message in template.messages)


def _label_rules(builtin: Template) -> str:
    """The system message of ``classify`` without its first paragraph, which says what the task is."""
    return str(builtin.messages[0].content).partition("\n\n")[2]


def check_names(job: Job, gold: frozenset[str], columns: Sequence[str] | None) -> None:
    """Refuses columns of texts and images that there are not, or that hold the known answers.

    Raises:
        UsageError: There is such a one.
    """
    for column in (*job.images, *([job.column] if job.column else [])):
        if column in gold:
            raise UsageError(
                f"the column {column!r} holds the known answers (--gold), which no prompt may show"
            )
    for column in job.images:
        if columns is not None and column not in columns:
            text_column(columns, (), column)  # raises, naming the columns there are


def job_parameters(job: Job, schema: Mapping[str, Any] | None, *, asks_schema: bool) -> dict[str, Any]:
    """Returns the parameters that a job sets, without the model.

    Args:
        job: The job.
        schema: The schema that answers must fit.
        asks_schema: The endpoint takes schemas, and otherwise only JSON.
    """
    layer: dict[str, Any] = {}
    own_template = job.template is not None and job.template.name not in (*builtin_names(), "run")
    if job.images and not (own_template and job.template and "max_tokens" in job.template.parameters):
        layer["max_tokens"] = VISION_MAX_TOKENS
    if schema is not None:
        layer["response_format"] = response_format(schema) if asks_schema else {"type": "json_object"}
    if job.tools:
        layer["tools"] = job.tools
    if job.tool_choice is not None:
        layer["tool_choice"] = job.tool_choice
    if job.confidence:
        layer["logprobs"] = True
    if job.reasoning_effort is not None:
        layer["reasoning_effort"] = job.reasoning_effort
    return merge_layers(layer, job.parameters)


def response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parameter that asks for an answer by a schema; strict where the schema allows it."""
    title = schema.get("title")
    name = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in str(title or "answer"))[
        :64
    ]
    try:
        body = {"name": name, "schema": _strict(schema), "strict": True}
    except _NotStrict:
        body = {"name": name, "schema": schema, "strict": False}
    return {"type": "json_schema", "json_schema": body}


def schema_in_words(schema: Mapping[str, Any], written: str) -> dict[str, Any]:
    """Returns a system message with the schema, for endpoints that support JSON but no schemas."""
    fields = ", ".join(schema.get("properties", {})) or "as the schema says"
    text = f"Answer with one JSON object and nothing else (fields: {fields}). It must fit this JSON Schema:\n{written}"
    return {"role": "system", "content": text}


class _NotStrict(Exception):
    """A schema says what strict mode cannot."""


def _strict(schema: Any) -> Any:
    """Returns a schema as strict mode has to have it: closed, with its nullable properties required too.

    What is sent is then stricter than what is accepted: ``null`` says the same as a property that is missing.

    Raises:
        _NotStrict: An object of it is open, or may lack another property, or a keyword is not allowed.
    """
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    found = dict(schema)
    for key in ("items", "anyOf"):
        if key in schema:
            found[key] = _strict(schema[key])
    for key in ("properties", "$defs", "definitions"):
        if isinstance(schema.get(key), Mapping):
            found[key] = {name: _strict(part) for name, part in schema[key].items()}
    properties, required = schema.get("properties"), schema.get("required", [])
    if isinstance(properties, Mapping) and isinstance(required, list):
        found["required"] = [
            name for name, field in properties.items() if name in required or _is_nullable(field)
        ] + [name for name in required if name not in properties]
    kind = schema.get("type")
    is_object = "properties" in schema or kind == "object" or (isinstance(kind, list) and "object" in kind)
    is_open = schema.get("additionalProperties") is not False
    if is_object and (is_open or set(found.get("properties", {})) != set(found.get("required", ()))):
        raise _NotStrict
    if not _NEVER_STRICT.isdisjoint(schema):
        raise _NotStrict
    return found


_NEVER_STRICT = frozenset({"oneOf", "allOf", "not", "if", "patternProperties"})


def _is_nullable(field: Any) -> bool:
    if not isinstance(field, Mapping):
        return False
    kind, choices = field.get("type"), field.get("anyOf")
    return (isinstance(kind, list) and "null" in kind) or (
        isinstance(choices, list) and {"type": "null"} in choices
    )
