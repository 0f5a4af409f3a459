"""Flags, environment, job file, template and preset, in this order, become one ``Job``.

Every file that a job is made of is read here, and every value held against its limits, so that a wrong one is
found at once: after this, nothing of the job can turn out to be wrong use but what depends on the rows.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchllm import presets, prices
from batchllm.errors import UsageError
from batchllm.job import jobfile, paths
from batchllm.job.attachments import read_schema, read_tools, tool_choice
from batchllm.job.connection import endpoint
from batchllm.job.layers import Given, environment_layer, flag_layer
from batchllm.job.parameters import request_parameters, template_variables
from batchllm.job.record import Job
from batchllm.records import Pace

if TYPE_CHECKING:
    from batchllm.template import Template

RUN = "run"


def assemble(
    task: str, flags: Mapping[str, Any], environ: Mapping[str, str] = os.environ, *, needs_key: bool = True
) -> Job:
    """The job that these settings describe.

    Args:
        task: ``summarize``, ``classify``, ``codegen`` or ``run``.
        flags: Settings by name (``job.settings.SETTINGS``), ``None`` where not given, and ``job_file``.
        environ: The environment: ``BATCHLLM_*``, the SDK's variables, keys.
        needs_key: Refuse a job whose endpoint needs a key that there is not; what sends nothing does without.

    Raises:
        UsageError: A setting is unknown, missing, or not what it may be; the message names the flag,
            variable or key, and says what to do.
    """
    flags = dict(flags)
    path = flags.pop("job_file", None)
    file = jobfile.read(Path(path)) if path is not None else None
    layers = (flag_layer(flags), environment_layer(environ), *((file.layer,) if file else ()))
    given = Given(layers)
    task, template = _template(task, given, file)
    variables = template_variables(given, template, file)
    template = template.with_variables(variables) if template else None
    schema = _schema(given, template)
    if schema is not None and template is not None:
        template = replace(template, answer=replace(template.answer, read="json", schema=schema))
    template, template_model = _without_model(template, given)
    place = endpoint(given, environ, template_model=template_model, needs_key=needs_key)
    effort = _reasoning_effort(given, place.model)
    source, input_format = paths.input_path(given.path("input"), given.get("input_format"))
    label = template.name if template and task == RUN else task
    output, output_format = paths.output_path(
        given.path("output"), source, input_format, label=label, simulated=place.preset == presets.SIMULATOR
    )
    journal = paths.journal_path(given.path("journal"), output)
    summary = given.path("summary")
    paths.refuse_same_file(input=source, output=output, journal=journal, summary=summary)
    if template is None and input_format not in (None, "jsonl"):
        raise UsageError(
            "run needs to know what to ask: -p 'a prompt with {{ text }}', -t TEMPLATE or a job file"
        )
    return Job(
        task=task,
        template=template,
        input=source,
        output=output,
        journal=journal,
        endpoint=place,
        pace=_pace(given),
        variables=variables,
        parameters=request_parameters(given, template, file, place, effort),
        input_format=input_format,
        output_format=output_format,
        per_row=template is None,
        schema=schema,
        reasoning_effort=effort,
        summary=summary,
        **_reading(given),
        **_request(given),
        **_columns(given),
        **_trying(given, place.preset),
        **_manners(given),
        sources=given.sources,
    )


def _template(task: str, given: Given, file: jobfile.JobFile | None) -> tuple[str, "Template | None"]:
    """What is asked: the strongest place that names a prompt, a template or a task decides."""
    from batchllm import template

    builtin = template.builtin_names()
    if task != RUN:
        if task not in builtin:
            raise UsageError(f"there is no task {task}; there are {', '.join(builtin)} and run")
        return task, template.load(task)
    ranks = {name: given.rank(name) for name in ("prompt", "template", "task")}
    rank = min(ranks.values())
    if rank < len(given.layers):
        named = [name for name, own in ranks.items() if own == rank]
        in_file = file is not None and file.layer is given.layers[rank]
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


def _schema(given: Given, template: "Template | None") -> Mapping[str, Any] | None:
    """The schema of the answers, of the settings or else of the template."""
    from batchllm import answer
    from batchllm.template import AnswerSpec

    if text := given.get("schema"):
        schema = read_schema(text, given.called("schema"))
    elif template is not None and template.answer.schema is not None:
        schema = answer.schema_of(template.answer.schema)
    else:
        return None
    answer.Reader(AnswerSpec("response", "json", schema=schema))
    return schema


def _without_model(template: "Template | None", given: Given) -> tuple["Template | None", Any]:
    """The template without its model, and the model if it is a plain name: that is the endpoint's business.

    A model that is rendered for each row stays, unless a stronger place names one.
    """
    model = template.parameters.get("model") if template else None
    if template is None or not isinstance(model, str):
        return template, None
    rendered = "{{" in model or "{%" in model
    if rendered and given.rank("model") == len(given.layers):
        return template, None
    others = {name: value for name, value in template.parameters.items() if name != "model"}
    return replace(template, parameters=others), None if rendered else model


def _reasoning_effort(given: Given, model: str) -> str | None:
    """The effort, if the model is not known to refuse it."""
    effort: str | None = given.get("reasoning_effort")
    known = presets.reasoning(model)
    if effort and known and effort not in known.efforts:
        takes = f"{model} takes {', '.join(known.efforts)}" if known.efforts else f"{model} takes no effort"
        raise UsageError(f"{given.called('reasoning_effort')} {effort}: {takes}")
    return effort


def _pace(given: Given) -> Pace:
    usual = Pace()
    return Pace(
        requests_per_minute=given.get("rpm"),
        tokens_per_minute=given.get("tpm"),
        concurrency=given.get("concurrency"),
        max_attempts=given.get("max_attempts", default=usual.max_attempts),
        timeout_s=given.get("timeout", default=usual.timeout_s),
        max_wait_s=given.get("max_wait", default=usual.max_wait_s),
        max_outage_s=given.get("max_outage", default=usual.max_outage_s),
    )


def _reading(given: Given) -> dict[str, Any]:
    """How the input is read."""
    return {
        "column": given.get("column"),
        "delimiter": given.get("delimiter"),
        "encoding": given.get("encoding"),
        "conversation": given.get("conversation"),
        "max_input_tokens": given.get("max_input_tokens"),
        "on_long": given.get("on_long", default="fail"),
    }


def _request(given: Given) -> dict[str, Any]:
    """What a request has beside messages and parameters."""
    folder = given.path("media_root")
    if folder is not None and not folder.is_dir():
        raise UsageError(f"{given.called('media_root')} {folder} is not a folder")
    path = given.path("tools")
    tools = read_tools(path, given.called("tools")) if path else None
    return {
        "system": given.get("system"),
        "images": given.get("image", default=()),
        "detail": given.get("detail", default="auto"),
        "media_root": folder,
        "tools": tools,
        "tool_choice": tool_choice(given.get("tool_choice"), tools, given.called("tool_choice")),
        "reask": given.get("reask", default=1),
    }


def _columns(given: Given) -> dict[str, Any]:
    """Which answer columns are written, and their names."""
    return {
        "columns": given.get("columns"),
        "add": given.get("add", default=()),
        "prefix": given.get("prefix", default=""),
    }


def _trying(given: Given, preset: str) -> dict[str, Any]:
    """Trial, money and road."""
    if given.get("limit") and given.get("sample"):
        raise UsageError(f"{given.called('limit')} and {given.called('sample')} exclude each other; give one")
    if table := given.path("prices"):
        prices.load_table(table)
    via = given.get("via", default="online")
    if via == "batch" and presets.load(preset).batch is None:
        able = [name for name in presets.names() if presets.load(name).batch]
        raise UsageError(
            f"{given.called('via')} batch: {preset} has no Batch API; there is one at {', '.join(able)}"
        )
    return {
        "limit": given.get("limit"),
        "sample": given.get("sample"),
        "seed": given.get("seed", default=0),
        "dedupe": given.get("dedupe", default=False),
        "reuse": tuple(map(Path, given.get("reuse", default=()))),
        "max_cost": given.get("max_cost"),
        "max_requests": given.get("max_requests"),
        "max_total_tokens": given.get("max_total_tokens"),
        "prices": table,
        "early_stop": not given.get("no_early_stop", default=False),
        "via": via,
    }


def _manners(given: Given) -> dict[str, Any]:
    """What may be overwritten, paid again, waited for."""
    return {
        "force": given.get("force", default=False),
        "restart": given.get("restart", default=False),
        "accept_change": given.get("accept_change", default=False),
        "retry_failed": given.get("retry_failed", default=False),
        "allow_failed": given.get("allow_failed", default=0.0),
        "grace_s": given.get("grace", default=30.0),
        "wait_lock_s": given.get("wait_lock", default=0.0),
    }
