"""Keeps the keys of a job's requests when its endpoints are reordered or removed.

The key of a request has the preset of the first endpoint and the job's model. So the journal keeps both, and the
presets that the job's endpoints have had. As long as a run has one of these, no request is asked again.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from batchllm.job import Job
from batchllm.job.endpoints import JobEndpoint, endpoints_of, with_model
from batchllm.journal import JournalReader

PRESETS = "presets"
"""The journal's key for the first preset, the model, and all presets that the job's endpoints have had."""


def presets_of(job: Job, known: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns what the journal keeps.

    Args:
        job: The job, as ``with_first_preset`` returned it.
        known: What the journal kept before.
    """
    own = {endpoint.preset for endpoint in endpoints_of(job)}
    if known is not None and known["first"] == job.endpoint.preset:
        own |= set(known["all"])
    return {"first": job.endpoint.preset, "model": job.endpoint.model, "all": sorted(own)}


def with_first_preset(job: Job, journal: Path) -> Job:
    """Returns a job whose requests have the first preset and the model that the journal keeps.

    Args:
        job: The job; without a journal, or where none of its endpoints has had a part in the job, it is returned as it
            is.
        journal: Its journal.

    Raises:
        InputError: The journal cannot be read.
    """
    if job.restart or not journal.exists():
        return job
    with JournalReader.open(journal) as reader:
        known = reader.get(PRESETS)
    own = {endpoint.preset for endpoint in endpoints_of(job)}
    if known is None or not own & set(known["all"]):
        return job
    model = job.endpoint.model
    if known["model"] and _is_of_endpoint(job.sources.get("model", "")) and model != known["model"]:
        job = with_model(job, known["model"])
    if job.endpoint.preset == known["first"]:
        return job
    several = job.endpoints or (JobEndpoint(endpoint=job.endpoint, pace=job.pace),)
    steps = tuple(
        replace(step, job=replace(step.job, endpoint=replace(step.job.endpoint, preset=known["first"])))
        for step in job.steps
    )
    return replace(job, endpoint=replace(job.endpoint, preset=known["first"]), endpoints=several, steps=steps)


def _is_of_endpoint(source: str) -> bool:
    """Whether the model was decided by the first endpoint, and not by the user."""
    return source.startswith("preset ") or source in ("[[endpoints]]", "/models")
