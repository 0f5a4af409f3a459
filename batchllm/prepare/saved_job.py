"""The job as the journal keeps it, so that ``export``, ``show`` and ``status`` need only the OUTPUT.

The key and the headers are never in it; pace and manners are not either, since they belong to one run.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchllm import template
from batchllm.job import Job
from batchllm.records import Endpoint

PATHS = ("input", "output", "journal", "media_root", "prices")
PLAIN = (
    "task", "variables", "parameters", "system", "column", "delimiter", "encoding", "input_format",
    "output_format", "per_row", "images", "detail", "tools", "tool_choice", "schema", "reask", "conversation",
    "max_input_tokens", "on_long", "reasoning_effort", "columns", "add", "prefix", "limit", "sample", "seed", "dedupe",
)  # fmt: skip
TUPLES = ("images", "columns", "add")
ENDPOINT = ("preset", "base_url", "model", "azure_api_version", "charge")


def saved(job: Job) -> dict[str, Any]:
    """What the journal keeps of a job, JSON-able."""
    return {
        **{name: getattr(job, name) for name in PLAIN},
        **{name: _absolute(getattr(job, name)) for name in PATHS},
        "template": None
        if job.template is None
        else {"name": job.template.name, "source": job.template.source},
        "endpoint": {name: getattr(job.endpoint, name) for name in ENDPOINT},
    }


def restored(kept: Mapping[str, Any]) -> Job:
    """The job that was saved, without a key; good for looking, not for sending."""
    fields = {name: kept[name] for name in PLAIN}
    fields |= {name: tuple(fields[name]) for name in TUPLES if fields[name] is not None}
    fields |= {name: None if kept[name] is None else Path(kept[name]) for name in PATHS}
    described = kept["template"]
    if described is not None:
        fields["template"] = template.parse(described["source"], described["name"])
    else:
        fields["template"] = None
    return Job(endpoint=Endpoint(**kept["endpoint"]), **fields)


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())
