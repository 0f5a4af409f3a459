"""Checks the options about long texts that are asked about in parts (``--on-long split``)."""

from batchllm.errors import UsageError
from batchllm.job.layers import Given
from batchllm.job.options import OPTIONS
from batchllm.job.record import Job

SMALLEST_PART = 16
"""Tokens that the text of a request must have room for; two answers that are combined share them."""

VOTE = "vote"

_ONLY_SPLIT = ("overlap", "combine")
_NO_COMBINE = (
    "says how to ask, and not how the answers about the parts of a long text become one; write a template file with a "
    'table [combine] that has prompt = "Make one answer of these about the parts of a text: {{ answers }}"'
)


def check_split(job: Job, given: Given) -> None:
    """Refuses what does not go together with parts of texts.

    Raises:
        UsageError: The options do not go together, or nothing says how answers are combined.
    """
    called = given.called("on_long")
    if not job.splits:
        for name in _ONLY_SPLIT:
            is_set = given.get(name) != OPTIONS[name].default_value
            if is_set and not given.is_of_environment(name):
                raise UsageError(
                    f"{given.called(name)} is about the parts of long texts; it needs --on-long split"
                )
        return
    others = {
        "samples": job.samples > 1,
        "conversation": job.conversation is not None,
        "tools": job.tools is not None or "tools" in job.all_parameters,
        "image": bool(job.images),
    }
    for name, is_given in others.items():
        if is_given:
            raise UsageError(f"{called} split and {given.called(name)} do not go together yet; leave one out")
    if job.template is None:
        raise UsageError(
            f"{called} split cuts the text of a row, and the rows of this job bring their own requests; "
            "leave it out"
        )
    read = job.template.answer.read
    if job.combine == VOTE and read != "label":
        raise UsageError(f"{given.called('combine')} vote counts labels, and this job asks for none")
    if job.template.combine is None and read in ("text", "code"):
        raise UsageError(f"{called} split: template {job.template.name} {_NO_COMBINE}")
    limit = job.max_input_tokens
    if limit is not None and limit < SMALLEST_PART:
        raise UsageError(
            f"{called} split needs parts of at least {SMALLEST_PART} tokens, and "
            f"{given.called('max_input_tokens')} is {limit}"
        )
    if limit is not None and job.overlap > limit // 2:
        raise UsageError(
            f"{given.called('overlap')} is {job.overlap}, and may be at most half of "
            f"{given.called('max_input_tokens')} ({limit})"
        )
