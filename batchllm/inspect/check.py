"""``check``: tests an endpoint with one small request, and a job without running it.

Each check stands alone, so one failure does not hide another: key, proxy, model, ``/models``, one request, rate-limit
headers, clock; for a job also template, input, output and lock.
"""

import asyncio
import re
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any

from batchllm import presets
from batchllm.answer import Reader
from batchllm.client import Client, check_route, proxy_of
from batchllm.endpoint import only, served
from batchllm.errors import ExitStatus, InputError, JobError, Unavailable
from batchllm.hosts import host_of, is_loopback
from batchllm.job import Job
from batchllm.journal import JobLock, JournalReader
from batchllm.prepare.existing_output import check_output
from batchllm.prepare.job_paths import JobPaths, check_job_paths, job_paths
from batchllm.prepare.prepared_job import prepare_job
from batchllm.printable import counted
from batchllm.records import Endpoint, Failure, Response
from batchllm.request.plain import plain_request
from batchllm.retry import Disposition, Verdict, classify
from batchllm.template import AnswerSpec

TIMEOUT_S = 60.0
CLOCK_TOLERANCE_S = 5.0
"""The Date header has whole seconds, and takes time to arrive."""

_LIMIT_HEADER = re.compile(r"rate-?limit|^retry-after", re.IGNORECASE)


class CheckStatus(StrEnum):
    """How a check ended."""

    OK = "ok"
    NOTE = "note"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check.

    Attributes:
        subject: What was checked: ``key``, ``proxy``, ….
        message: What was found, in one line.
        status: How the check ended.
        exit_status: The exit status of a run that has this problem.
    """

    subject: str
    message: str
    status: CheckStatus = CheckStatus.OK
    exit_status: ExitStatus = ExitStatus.OK


def check_job(job: Job, *, whole: bool) -> Iterator[CheckResult]:
    """Checks each of a job's endpoints with one small request, then the job.

    Args:
        job: The job to check.
        whole: Check template, input, output and lock too; otherwise only the endpoint.
    """
    with served(job) as job:
        for each in _of_one_endpoint(job):
            yield _endpoint(each)
            yield _key(each.endpoint)
            yield _proxy(each.endpoint.base_url)
            yield from asyncio.run(_ask(each))
    if whole:
        yield from _files(job)


def _of_one_endpoint(job: Job) -> Iterator[Job]:
    """Yields the job with each of its endpoints alone, and the model by its name there."""
    if not job.endpoints:
        yield job
    for each in job.endpoints:
        own = each.names.get(job.endpoint.model, job.endpoint.model)
        yield replace(job, endpoint=replace(each.endpoint, model=own), endpoints=())


def _wrong(subject: str, error: JobError) -> CheckResult:
    return CheckResult(subject, str(error), CheckStatus.WRONG, ExitStatus(error.exit_status))


def _endpoint(job: Job) -> CheckResult:
    endpoint = job.endpoint
    named = job.sources.get("provider", "default"), job.sources.get("base_url", "default")
    version = f", api-version {endpoint.azure_api_version}" if endpoint.azure_api_version else ""
    where = " and ".join(dict.fromkeys(named))
    return CheckResult("endpoint", f"{endpoint.preset} at {endpoint.base_url}{version} (from {where})")


def _key(endpoint: Endpoint) -> CheckResult:
    if endpoint.api_key is not None:
        return CheckResult("key", f"{masked(endpoint.api_key)} (from {endpoint.key_source})")
    preset = presets.load(endpoint.preset)
    if not preset.needs_key or is_loopback(host_of(endpoint.base_url)):
        return CheckResult("key", "none, and none is needed")
    message = f"none: set {preset.key_variable}, or give --api-key-file FILE"
    return CheckResult("key", message, CheckStatus.WRONG, ExitStatus.USAGE)


def masked(key: str) -> str:
    """Returns a key as it may be shown: enough to tell two apart, too little to use one."""
    return f"{key[:3]}…{key[-4:]}, {len(key)} characters" if len(key) >= 20 else f"{len(key)} characters"


def _proxy(base_url: str) -> CheckResult:
    try:
        proxy = proxy_of(base_url)
    except JobError as error:
        return _wrong("proxy", error)
    if proxy is None:
        return CheckResult("proxy", "none for this URL")
    return CheckResult("proxy", f"{proxy} (from {proxy.variable})")


async def _ask(job: Job) -> list[CheckResult]:
    try:
        check_route(job.endpoint.base_url)
    except JobError as error:
        return [_wrong("connection", error)]
    async with Client(job.endpoint, timeout_s=min(TIMEOUT_S, job.pace.timeout_s)) as client:
        try:
            models = await asyncio.wait_for(client.models(), TIMEOUT_S)
        except (JobError, TimeoutError) as error:
            if isinstance(error, TimeoutError):
                error = Unavailable(f"no answer within {TIMEOUT_S:g} s")
            if not job.endpoint.model:  # then the model is unknown, and there is nothing to ask for
                return [_wrong("/models", error)]
            models, listing = [], CheckResult("/models", str(error), CheckStatus.NOTE)
        else:
            some = ", ".join(models[:5]) + (", …" if len(models) > 5 else "")
            listing = CheckResult("/models", f"lists {len(models)}: {some}" if models else "lists none")
        try:
            model = job.endpoint.model or only(models, job.endpoint.base_url)
        except JobError as error:
            return [listing, _wrong("model", error)]
        outcome = await client.send(plain_request(job, model))
        tried = []
        if classify(outcome).disposition is Disposition.ANSWERED:
            tried = [check async for check in _needs(job, model, client)]
    known = {check.subject for check in tried}
    return [
        listing,
        _model(job, model, models),
        *_answered(outcome),
        *tried,
        *(check for check in _supports(job.endpoint) if check.subject not in known),
        *_headers(outcome),
    ]


async def _needs(job: Job, model: str, client: Client) -> AsyncIterator[CheckResult]:
    """Tries what the job's requests have beyond a plain one, each alone."""
    from batchllm.client.batches import CallFailed

    needs: dict[str, dict[str, Any]] = {}
    if job.schema is not None:
        needs["json_schema"] = {"schema": job.schema}
    if job.tools:
        needs["tools"] = {"tools": job.tools}
    if job.images:
        needs["images"] = {"images": job.images[:1]}
    for subject, more in needs.items():
        outcome = await client.send(plain_request(job, model, **more))
        verdict = classify(outcome)
        if verdict.disposition is Disposition.ANSWERED:
            yield CheckResult(subject, "a request with it is answered")
        elif verdict.disposition is Disposition.REFUSED:
            yield CheckResult(subject, verdict.message, CheckStatus.NOTE)
        else:
            message = f"a plain request is answered, one with it is not: {verdict.message}"
            yield CheckResult(subject, message, CheckStatus.WRONG, ExitStatus.USAGE)
    if job.via == "batch":
        try:
            await client.batches.probe()
        except CallFailed as failed:
            status = "" if failed.status is None else f"HTTP {failed.status}: "
            message = f"{status}{failed.verdict.message}; the endpoint may have no batches"
            yield CheckResult("batches", message, CheckStatus.WRONG, ExitStatus.USAGE)
        else:
            yield CheckResult("batches", "the endpoint lists them")


def _model(job: Job, model: str, models: list[str]) -> CheckResult:
    source = job.sources.get("model", "/models")
    if models and model not in models:
        return CheckResult("model", f"{model} (from {source}), which /models does not list", CheckStatus.NOTE)
    return CheckResult("model", f"{model} (from {source})")


def _answered(outcome: Response | Failure) -> list[CheckResult]:
    verdict = classify(outcome)
    if verdict.disposition is not Disposition.ANSWERED:
        status = f"HTTP {outcome.status}: " if isinstance(outcome, Response) else ""
        if isinstance(outcome, Response) and str(outcome.status) in verdict.message:
            status = ""
        result = CheckStatus.NOTE if verdict.disposition is Disposition.REFUSED else CheckStatus.WRONG
        return [CheckResult("request", f"{status}{verdict.message}", result, _status_of(verdict))]
    assert isinstance(outcome, Response), "only a response can be an answer"
    answer = Reader(AnswerSpec("response")).read(outcome.status, outcome.body)
    usage = answer.usage
    said = repr(answer.text[:40]) if answer.text else "no text"
    parts = [
        f"answered in {outcome.latency_s:.2f} s: {said}, finish_reason {answer.finish_reason or 'missing'}"
    ]
    if answer.model:
        parts.append(f"model {answer.model}")
    sent, received = ("unknown" if n is None else n for n in (usage.prompt_tokens, usage.completion_tokens))
    parts.append("no usage" if sent == received == "unknown" else f"{sent} + {received} tokens")
    return [CheckResult("request", ", ".join(parts))]


def _status_of(verdict: Verdict) -> ExitStatus:
    if verdict.disposition is Disposition.FATAL:
        return verdict.exit_status or ExitStatus.USAGE
    return ExitStatus.USAGE if verdict.disposition is Disposition.REJECTED else ExitStatus.UNAVAILABLE


def _supports(endpoint: Endpoint) -> Iterator[CheckResult]:
    """Reports what the preset says; trying it would take more requests."""
    preset = presets.load(endpoint.preset)
    for name, known, without in (
        (
            "json_schema",
            preset.json_schema,
            "--schema then asks for JSON in the prompt, and validates the answer all the same",
        ),
        ("tools", preset.tools, "--tools will be refused or passed over"),
    ):
        if known:
            yield CheckResult(name, f"{preset.name} supports it")
        else:
            message = (
                f"not supported by {preset.name}; {without}"
                if known is False
                else f"not known for {preset.name}"
            )
            yield CheckResult(name, message, CheckStatus.NOTE)


def _headers(outcome: Response | Failure) -> Iterator[CheckResult]:
    """Checks the rate limits and the clock by the answer's headers."""
    if not isinstance(outcome, Response):
        return
    limits = {name: value for name, value in outcome.headers.items() if _LIMIT_HEADER.search(name)}
    if limits:
        yield CheckResult("limits", ", ".join(f"{name}: {value}" for name, value in limits.items()))
    else:
        message = "no rate-limit headers; give the limits with --rpm and --tpm, or refusals show them"
        yield CheckResult("limits", message, CheckStatus.NOTE)
    try:
        theirs = parsedate_to_datetime(outcome.headers["date"]).timestamp()
    except (KeyError, ValueError):
        yield CheckResult("clock", "the answer has no Date header to compare with", CheckStatus.NOTE)
        return
    ahead_s = time.time() - theirs
    if abs(ahead_s) <= CLOCK_TOLERANCE_S:
        yield CheckResult("clock", "agrees with the endpoint's")
    else:
        message = f"{abs(ahead_s):,.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the endpoint's; set this machine's"
        yield CheckResult("clock", message, CheckStatus.NOTE)


def _files(job: Job) -> Iterator[CheckResult]:
    paths = job_paths(job)
    yield from _input(job, paths)
    try:
        check_job_paths(job, paths)
        if paths.output is not None and not job.into_folder:
            check_output(paths.output, written=_written(paths), force=job.force, journal=paths.journal)
    except JobError as error:
        yield _wrong("output", error)
    else:
        folder = paths.journal.parent
        free = shutil.disk_usage(folder if folder.exists() else folder.parent).free
        yield CheckResult(
            "output", f"{paths.output or 'standard output'}, {free / 1e9:,.1f} GB free beside the journal"
        )
    yield _lock(paths)


def _input(job: Job, paths: JobPaths) -> Iterator[CheckResult]:
    template = job.template
    if not job.inputs:
        yield CheckResult("input", "standard input, which check does not read", CheckStatus.NOTE)
        return
    try:
        with prepare_job(job, paths) as prepared:
            statistics, source = prepared.statistics, prepared.source
            used = ", ".join(sorted(prepared.builder.used_columns)) or "what each row brings"
            asks = f"{template.name}, {len(template.messages)} messages" if template else "each row's own"
            if job.steps:
                asks = f"{len(job.steps)} steps, {', '.join(step.name for step in job.steps)}"
                read = {name for step in prepared.flow.by_step.values() for name in step.used_columns}
                used = ", ".join(sorted(read & set(statistics.columns)))
            yield CheckResult(
                "template", f"{asks}; reads {used}; writes {', '.join(prepared.builder.answer_columns)}"
            )
            yield CheckResult(
                "input",
                f"{source.name}: {source.describe()}, {counted(statistics.rows, 'row')} of "
                f"{', '.join(statistics.columns)}",
            )
    except InputError as error:
        yield _wrong("input", error)
    except JobError as error:
        yield _wrong("template", error)


def _written(paths: JobPaths) -> dict[str, object] | None:
    if not paths.journal.exists():
        return None
    with JournalReader.open(paths.journal) as reader:
        written: dict[str, object] | None = reader.get("output")
        return written


def _lock(paths: JobPaths) -> CheckResult:
    if not paths.lock.exists():
        return CheckResult("lock", "free: no run of this job has begun")
    try:
        with JobLock(paths.lock):
            return CheckResult("lock", f"{paths.lock} is free")
    except JobError as error:
        return _wrong("lock", error)
