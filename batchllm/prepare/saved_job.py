"""The job as the journal keeps it, so that ``export``, ``show`` and ``status`` need only the OUTPUT.

The key and the headers are never in it. Pace and run control are not either: they belong to one run.
"""

from collections.abc import Mapping
from dataclasses import fields
from decimal import Decimal
from pathlib import Path
from typing import Any

from batchllm import template
from batchllm.job import Job
from batchllm.job.options import OPTIONS, RUN_CONTROL
from batchllm.job.record import JobStep, plain
from batchllm.journal import JournalReader
from batchllm.records import Endpoint
from batchllm.stores import located

ENDPOINT = ("preset", "base_url", "model", "azure_api_version", "charge")
_KINDS = {option.attribute: option.kind for option in OPTIONS.values()}
_OF_ONE_RUN = {option.attribute for option in OPTIONS.values() if option.panel == RUN_CONTROL}
_FIELDS = (
    {field.name for field in fields(Job)}
    - _OF_ONE_RUN
    - {
        "pace",
        "sources",
        "endpoint",
        "template",
        "steps",
        "raised_max_tokens",
    }
)


def saved(job: Job) -> dict[str, Any]:
    """Returns what the journal keeps of a job, JSON-able."""
    kept = {name: getattr(job, name) for name in _FIELDS - {"inputs"}}
    inputs = [str(path.absolute()) for path in job.inputs]
    kept["input"] = inputs if len(inputs) > 1 else inputs[0] if inputs else None
    return {
        **{
            name: plain(value.absolute() if isinstance(value, Path) else value)
            for name, value in sorted(kept.items())
        },
        "template": None
        if job.template is None
        else {"name": job.template.name, "source": job.template.source},
        "endpoint": {name: getattr(job.endpoint, name) for name in ENDPOINT},
        "steps": [{"name": step.name, "job": saved(step.job), "when": step.when} for step in job.steps],
    }


def job_in(reader: JournalReader) -> Job | None:
    """Returns the job of a journal; ``None`` where no run has begun."""
    kept = reader.get("job")
    return None if kept is None else restored(kept)


def restored(kept: Mapping[str, Any]) -> Job:
    """Returns the job that was saved, without a key: good for looking, not for sending."""
    found = {name: _restored(name, kept[name]) for name in _FIELDS & kept.keys()}
    inputs = kept["input"] or ()
    found["inputs"] = tuple(map(located, [inputs] if isinstance(inputs, str) else inputs))
    described = kept["template"]
    found["template"] = described and template.parse(described["source"], described["name"])
    task = found.get("task")
    if described and task in template.builtin_names():
        builtin = template.load(task)
        if described["source"] != builtin.source:  # a template of one's own
            found["template"] = found["template"].read_as(builtin)
    steps = tuple(
        JobStep.named(step["name"], restored(step["job"]), step["when"]) for step in kept.get("steps", ())
    )
    if steps:
        found["template"] = steps[0].job.template
    return Job(endpoint=Endpoint(**kept["endpoint"]), steps=steps, **found)


def _restored(name: str, value: Any) -> Any:
    """A value of JSON as the type that the option of this field has."""
    kind = _KINDS.get(name)
    if kind is None or value is None:
        return value
    if kind.python_type is tuple:
        return kind(value) if value else ()
    if kind.python_type is Path and isinstance(value, str):
        return located(value)
    if kind.python_type is Decimal and isinstance(value, str):
        return Decimal(value)
    return value
