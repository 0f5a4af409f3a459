"""Refuses options that do not go together, and files that cannot be used."""

from batchllm import presets, prices
from batchllm.errors import UsageError
from batchllm.job.layers import Given
from batchllm.job.options import OPTIONS
from batchllm.job.paths import refuse_same_file
from batchllm.job.record import Job
from batchllm.job.split import check_split
from batchllm.job.texts import are_documents

_ONLY_ENGINE = ("ray_address", "workers", "work")


def check(job: Job, given: Given) -> None:
    """Checks a job as a whole, once its values are right one by one.

    Raises:
        UsageError: Something does not go together; the message names the options.
    """
    refuse_same_file(
        job.inputs,
        output=job.output,
        journal=job.journal,
        summary=job.summary,
        log=job.log_file,
    )
    if job.media_root is not None and not job.media_root.is_dir():
        raise UsageError(f"{given.called('media_root')} {job.media_root} is not a folder")
    _check_texts(job)
    for one, other in (("limit", "sample"), ("keep", "drop")):
        if getattr(job, one) and getattr(job, other):
            raise UsageError(f"{given.called(one)} and {given.called(other)} exclude each other; give one")
    if job.bad_rows == "skip" and job.output is None:
        raise UsageError(
            f"{given.called('bad_rows')} skip writes the rows that it leaves out beside the output; name one with -o"
        )
    _check_answers(job, given)
    if job.prices:
        prices.load_table(job.prices)
    check_split(job, given)
    _check_batch(job, given)


def _check_texts(job: Job) -> None:
    """Refuses what does not go together with texts in files."""
    if job.text_from is None:
        return
    is_document = are_documents(job.inputs, job.input_format)
    called = "a document as input" if is_document else "--text-from"
    if not is_document and job.media_root is None:
        raise UsageError("--text-from reads files, and --media-root DIR says where they may be; add it")
    if job.column is not None:
        raise UsageError(
            f"--column names a text in the rows, and with {called} the text is in a file; leave one out"
        )
    if job.conversation is not None:
        raise UsageError(f"--conversation does not go together with {called}")
    if job.per_row:
        raise UsageError(f"{called}: rows that bring their own requests have their texts in them")


def _check_answers(job: Job, given: Given) -> None:
    """Refuses options that say something about what the job does not have."""
    if job.confidence and (job.template is None or job.template.answer.read != "label"):
        raise UsageError(
            f"{given.called('confidence')} is the probability of a label, and this job asks for none"
        )
    if job.on is not None and not job.gold:
        raise UsageError(
            f"{given.called('on')} says what a file with known answers has in common; name it with --gold"
        )
    if job.examples is None and given.has("shots") and not given.is_of_environment("shots"):
        raise UsageError(f"{given.called('shots')} needs {OPTIONS['examples'].flag} FILE")
    for name in _ONLY_ENGINE:
        if job.engine is None and given.has(name) and not given.is_of_environment(name):
            raise UsageError(
                f"{given.called(name)} is for a job on many machines; add --engine ray, or leave it out"
            )
    if job.examples is not None and (job.per_row or job.images):
        rows = "rows that bring their own requests" if job.per_row else "rows with images"
        raise UsageError(f"{given.called('examples')}: {rows} cannot have examples")


def _check_batch(job: Job, given: Given) -> None:
    if job.via != "batch":
        return
    if len(job.endpoints) > 1:
        raise UsageError(
            f"{given.called('via')} batch goes to one endpoint, and this job has {len(job.endpoints)}; name one with "
            "--base-url or --provider"
        )
    preset = job.endpoint.preset
    if presets.load(preset).batch is None:
        able = [name for name in presets.names() if presets.load(name).batch]
        raise UsageError(
            f"{given.called('via')} batch: {preset} has no Batch API; there is one at {', '.join(able)}"
        )
