"""Refuses options that a job on many machines cannot have."""

from batchllm.errors import UsageError
from batchllm.job import Job
from batchllm.job.connection import API_KEY
from batchllm.job.endpoints import endpoints_of
from batchllm.presets import SIMULATOR


def check_options(job: Job) -> None:
    """Refuses what a job on many machines cannot have.

    Raises:
        UsageError: An option does not go with ``--engine``.
    """
    if job.work is None:
        raise UsageError(
            "--engine needs --work: a folder that all machines see, or the URL of an object store"
        )
    if job.into_parts and job.output is not None and job.output.absolute() == job.work.absolute():
        raise UsageError("-o and --work name the same folder; give each its own")
    if job.via == "batch":
        raise UsageError(
            "--via batch does not go with --engine: one machine is enough for the upload of a batch; leave out --engine"
        )
    if not job.inputs:
        raise UsageError("--engine needs an input that every machine can read, which standard input is not")
    if job.endpoint.preset == SIMULATOR and not job.endpoint.base_url:
        raise UsageError(
            "--provider simulator is on this machine alone; run `batchllm simulate` and name it with --base-url"
        )
    if API_KEY in (each.key_source for each in endpoints_of(job)):
        raise UsageError(
            "api_key= stays in this process; with --engine every node has the key in an environment variable, or in "
            "the file of --api-key-file"
        )
    if job.shard is not None:
        raise UsageError(
            "--shard is for schedulers without --engine, which cuts the job into shards itself: leave out one of them"
        )
    of_one_output = {
        "-n": job.limit,
        "--sample": job.sample,
        "--retry-cut-off": job.retry_cut_off,
        "--journal": "journal" in job.sources,
        "--gold": job.gold,
    }
    for flag, given in of_one_output.items() if job.into_parts else ():
        if given:
            raise UsageError(f"{flag} does not go with a folder of parts; name a file with -o")
