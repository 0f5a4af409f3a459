"""Makes a ``Job`` of flags, environment, job file, template and preset, in this order.

Every file that the job names is read here, and every value checked, so that wrong use is found at once. After this,
only what depends on the rows can turn out to be wrong.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchllm import presets
from batchllm.errors import UsageError, did_you_mean
from batchllm.formats import format_named
from batchllm.formats.suffixes import labelled
from batchllm.job import jobfile, paths, texts
from batchllm.job.attachments import read_examples, read_instructions, read_schema, read_tools, tool_choice
from batchllm.job.checks import check
from batchllm.job.endpoints import check_names, endpoints
from batchllm.job.layers import STANDARD_STREAM, Given, environment_layer, flag_layer
from batchllm.job.options import OPTIONS, TABLES
from batchllm.job.parameters import request_parameters, template_variables
from batchllm.job.record import Job
from batchllm.job.steps import of_steps
from batchllm.printable import one_line
from batchllm.records import Pace

if TYPE_CHECKING:
    from batchllm.template import Template

CONFIDENCE = "confidence"
"""The column of ``--confidence``."""

RUN = "run"


def assemble(
    task: str,
    flags: Mapping[str, Any],
    environ: Mapping[str, str] = os.environ,
    *,
    needs_key: bool = True,
    api_key: str | None = None,
) -> Job:
    """Makes the job that these options describe.

    Args:
        task: ``summarize``, ``classify``, ``codegen`` or ``run``.
        flags: Options by name (``job.options.OPTIONS``), ``None`` where not given, and ``job_file``.
        environ: The environment: ``BATCHLLM_*``, the SDK's variables, keys.
        needs_key: Refuse a job without the key that its endpoint needs.
        api_key: The key itself, of a program.

    Raises:
        UsageError: An option is unknown, missing or wrong; the message names the flag, variable or key, and says
            what to do.
    """
    flags = dict(flags)
    path = flags.pop("job_file", None)
    file = jobfile.read(Path(path)) if path is not None else None
    layers = (flag_layer(flags), environment_layer(environ), *(file.layers if file else ()))

    assembled = partial(_assembled, task, file=file, environ=environ, needs_key=needs_key, api_key=api_key)
    if file is not None and file.steps:
        job = of_steps(file.path, file.steps, Given(layers), assembled)
    else:
        job = assembled(Given(layers))
    check_names(job)
    return job


def _assembled(
    task: str,
    given: Given,
    file: jobfile.JobFile | None,
    environ: Mapping[str, str],
    *,
    needs_key: bool,
    api_key: str | None,
) -> Job:
    task, template = _template(task, given, file)
    variables = template_variables(given, template)
    template, schema = _with_schema(template.with_variables(variables) if template else None, given)
    template, template_model = _without_model(template, given)
    pace = Pace(**_values(given, "pace"))
    place, several = endpoints(
        given, environ, pace=pace, template_model=template_model, needs_key=needs_key, api_key=api_key
    )
    inputs, input_format = paths.input_paths(given.get("input"), given.get("input_format"))
    output, output_format = paths.output_path(
        _output(given),
        inputs,
        format_named(input_format).name if input_format else None,
        label=_label(task, template, file),
        simulated=place.preset == presets.SIMULATOR,
        has_slash=str(given.raw("output")).endswith("/"),
        shard=paths.shard_label(given.get("shard")),
        in_parts=given.get("engine") is not None,
    )
    if template is None and input_format is not None and not format_named(input_format).nested:
        raise UsageError(NOTHING_ASKED)
    tools = read_tools(given.get("tools"), given.called("tools")) if given.has("tools") else None
    examples = given.get("examples")
    effort = _reasoning_effort(given, place.model)
    computed = {
        "task": task,
        "template": template,
        "inputs": inputs,
        "output": output,
        "journal": paths.journal_path(given.get("journal"), output),
        "endpoint": place,
        "endpoints": several,
        "pace": several[0].pace if len(several) == 1 else pace,
        "variables": variables,
        "parameters": request_parameters(given, template, place, effort),
        "input_format": given.get("input_format"),
        "text_from": texts.text_from(given.get("text_from"), inputs, input_format),
        "output_format": output_format,
        "into_parts": given.get("engine") is not None and output is not None and output_format is None,
        "per_row": template is None,
        "schema": schema,
        "examples": read_examples(examples, given.called("examples")) if given.has("examples") else None,
        "instructions": read_instructions(given.get("instructions"), given.called("instructions")),
        "tools": tools,
        "tool_choice": tool_choice(given.get("tool_choice"), tools, given.called("tool_choice")),
        "job_file": None if file is None else file.path,
        "sources": given.sources,
    }
    job = Job(**{**_values(given), **computed})
    check(job, given)
    return _with_confidence_column(job)


def _with_confidence_column(job: Job) -> Job:
    if not job.confidence or CONFIDENCE in (*job.add, *(job.columns or ())):
        return job
    return replace(job, add=(*job.add, CONFIDENCE))


def _output(given: Given) -> Path | None:
    """The output as it is named; one that a job file names for all shards gets the shard's number."""
    output: Path | None = given.get("output")
    shard = given.get("shard")
    if output is None or shard is None or str(output) == STANDARD_STREAM:
        return output
    of_file = given.layers[given.rank("output")].file is not None
    return labelled(output, paths.shard_label(shard)) if of_file else output


def _label(task: str, template: "Template | None", file: jobfile.JobFile | None) -> str:
    """What the default output is named after."""
    if file is not None and file.steps:
        return file.path.stem
    return template.name if template and task == RUN else task


def _values(given: Given, record: str = "") -> dict[str, Any]:
    """The fields of the job, or of a record in it, that hold the value of one option each."""
    found = {}
    for name, option in OPTIONS.items():
        owner, _, field = option.attribute.rpartition(".")
        if owner == record and field not in TABLES:
            found[field] = given.get(name)
    return found


NOTHING_ASKED = "run needs to know what to ask: -p 'a prompt with {{ text }}', -t TEMPLATE or a job file"


def check_task(task: str) -> None:
    """Refuses a task that does not exist.

    Raises:
        UsageError: It is neither a built-in task nor ``run``.
    """
    from batchllm import template

    tasks = [*template.builtin_names(), RUN]
    if task not in tasks:
        prompt = isinstance(task, str) and ("{{" in task or " " in task.strip())
        near = "" if prompt or not isinstance(task, str) else did_you_mean(task, tasks)
        own = "; a prompt of your own goes into --prompt" if prompt else ""
        raise UsageError(
            f"there is no task {one_line(repr(task), 60)}{near}; there are {', '.join(tasks[:-1])} and {RUN}{own}"
        )


def _template(task: str, given: Given, file: jobfile.JobFile | None) -> tuple[str, "Template | None"]:
    """Returns task and template; the strongest layer that names a prompt, a template or a task decides."""
    from batchllm import template

    builtin = template.builtin_names()
    if task != RUN:
        check_task(task)
        own = given.get("template")
        loaded = template.load(task)
        return task, loaded if own is None else template.load(own).read_as(loaded)
    ranks = {name: given.rank(name) for name in ("prompt", "template", "task")}
    rank = min(ranks.values())
    if rank < len(given.layers):
        named = [name for name, own in ranks.items() if own == rank]
        in_file = file is not None and file.layers[0] is given.layers[rank]
        if len(named) > 1 or (in_file and file is not None and file.template is not None):
            others = [given.called(name) for name in named]
            raise UsageError(
                f"only one can say what to ask: {' or '.join([*others, *(['[[messages]]'] if in_file else [])])}"
            )
        value = given.get(named[0])
        if named[0] == "prompt":
            return RUN, template.from_prompt(value)
        return (value if value in builtin else RUN), template.load(value)
    if file is not None and file.template is not None:
        given.sources["template"] = str(file.path)
        return RUN, file.template
    return RUN, None


def _with_schema(
    template: "Template | None", given: Given
) -> tuple["Template | None", Mapping[str, Any] | None]:
    """Returns the template with the schema of the answers, and this: the option's, else the template's."""
    from batchllm import answer
    from batchllm.template import AnswerSpec

    if text := given.get("schema"):
        from_file = given.layers[given.rank("schema")].file is not None
        schema = read_schema(text, given.called("schema"), may_import=not from_file)
    elif template is not None and template.answer.schema is not None:
        schema = answer.schema_of(template.answer.schema)
    else:
        return template, None
    answer.Reader(AnswerSpec("response", "json", schema=schema))
    if template is not None:
        template = replace(template, answer=replace(template.answer, read="json", schema=schema))
    return template, schema


def _without_model(template: "Template | None", given: Given) -> tuple["Template | None", Any]:
    """Splits a model that is a plain name off the template's parameters; the endpoint takes it.

    A model that is rendered for each row stays in the template, unless ``--model`` is given.
    """
    model = template.parameters.get("model") if template else None
    if template is None or not isinstance(model, str):
        return template, None
    rendered = "{{" in model or "{%" in model
    if rendered and not given.has("model"):
        return template, None
    others = {name: value for name, value in template.parameters.items() if name != "model"}
    return replace(template, parameters=others), None if rendered else model


def _reasoning_effort(given: Given, model: str) -> str | None:
    """The effort; refused where the model is known not to take it."""
    effort: str | None = given.get("reasoning_effort")
    known = presets.reasoning(model)
    if effort and known and effort not in known.efforts:
        takes = f"{model} takes {', '.join(known.efforts)}" if known.efforts else f"{model} takes no effort"
        raise UsageError(f"{given.called('reasoning_effort')} {effort}: {takes}")
    return effort
