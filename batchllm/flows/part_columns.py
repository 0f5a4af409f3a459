"""The columns that the parts of long texts add to a row."""

from collections.abc import Mapping, Sequence
from typing import Any

from batchllm.job import Job
from batchllm.records import Answer

PARTS, PART_ANSWERS = "parts", "part_answers"
"""The columns of a split job: how many parts the text was asked about in, and with ``--add`` their answers."""

WHOLE: Mapping[str, Any] = {PARTS: 1}
"""The values of these for a text that was asked about whole."""


def split_columns(job: Job) -> tuple[str, ...]:
    """Returns the columns that a job adds for the parts of its texts."""
    if not job.splits:
        return ()
    return (PARTS, PART_ANSWERS) if PART_ANSWERS in job.add else (PARTS,)


def with_parts(job: Job, answer: Answer, columns: Mapping[str, Any], answers: Sequence[Answer]) -> Answer:
    """Returns a row's answer with the columns about its parts.

    Args:
        job: The job.
        answer: The row's answer.
        columns: Its columns.
        answers: The answers about the parts.
    """
    found = {**columns, PARTS: len(answers)}
    if PART_ANSWERS in job.add:
        found[PART_ANSWERS] = [said(each) for each in answers] if len(answers) > 1 else None
    return answer._replace(columns=found)


def said(answer: Answer) -> Any:
    """Returns what an answer says: the value of its only column, or all by name."""
    values = list(answer.columns.values())
    return values[0] if len(values) == 1 else dict(answer.columns)
