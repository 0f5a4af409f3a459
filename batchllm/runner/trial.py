"""Where a run writes: a trial (``-n``, ``--sample``) never replaces a finished output."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from batchllm.formats.suffixes import labelled
from batchllm.job import Job
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.records import ChatRequest, Chosen, Row

OUTPUT = "output"
"""The journal's key for what is known of the job's output."""

TRIAL_OUTPUT = "trial_output"
"""The same for the output of its trials."""


@dataclass(frozen=True, slots=True)
class OutputDestination:
    """Where a run writes its output.

    Attributes:
        path: The file; ``None`` is standard output.
        key: The journal's key for what is known of that file.
        instead_of: The finished output that stays, where a trial was to be written there.
    """

    path: Path | None
    key: str = OUTPUT
    instead_of: Path | None = None


def destination_of(
    job: Job,
    output: Path | None,
    chosen: Chosen,
    written: Mapping[str, Any] | None,
) -> OutputDestination:
    """Returns where a run writes.

    A trial is written to ``….trial.ext``; an output that ``-o`` names is taken as long as it holds no finished job.

    Args:
        job: The job.
        output: Its output.
        chosen: The only rows of a trial, ``None`` for all rows.
        written: What the journal says of the output.
    """
    if chosen is None or output is None:
        return OutputDestination(output)
    finished = output.exists() and written is not None and written.get("complete", True)
    named = "output" in job.sources
    if named and not finished:
        return OutputDestination(output)
    trial = output.with_name(f"{output.name}.trial") if job.into_folder else labelled(output, "trial")
    return OutputDestination(trial, TRIAL_OUTPUT, output if named else None)


def asked_of(prepared: PreparedJob, rows: Sequence[int]) -> tuple[str, ...]:
    """Returns what some rows asked: the text column, or the last message where none is read.

    Args:
        prepared: The job and its input.
        rows: The rows, from 0, in ascending order.
    """
    found: list[str] = []
    for row in prepared.source.rows() if rows else ():
        if row.index in rows:
            text = row.values.get(prepared.builder.column or "")
            found.append(_last_message(prepared, row) if text is None else str(text))
        if row.index >= rows[-1]:
            break
    return tuple(found)


def _last_message(prepared: PreparedJob, row: Row) -> str:
    built = prepared.builder.unlimited().build(row)  # a text that is split is more than one request takes
    if not isinstance(built, ChatRequest):
        return ""
    content = orjson.loads(built.body)["messages"][-1]["content"]
    return content if isinstance(content, str) else str(content)
