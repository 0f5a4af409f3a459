"""A changed job never pays for rows again by surprise."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

from batchllm.errors import UsageError
from batchllm.job import Job
from batchllm.journal import Journal
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.records import ChatRequest, Row

_PAGE = 256


def check_unchanged(prepared: PreparedJob, journal: Journal, chosen: "range | frozenset[int] | None") -> None:
    """Refuses a job that was changed after answers were paid, unless the change is consented to.

    Consent is ``--accept-change``, or a bound: ``-n``, ``--sample``, a budget.

    Raises:
        UsageError: Rows that have an answer would be paid again; the message says how many, and what changed.
    """
    before, now = journal.get("fingerprint"), prepared.job.fingerprint()
    if before is None or before == now or _consents(prepared.job) or chosen is not None:
        return
    answered = journal.reader().count_answered()
    if not answered:
        return
    again = min(answered, _without_answer(prepared, journal))
    if again:
        changed = ", ".join(sorted(name for name in now if now[name] != before.get(name)))
        raise UsageError(
            f"{changed} changed since this job began: {again:,} rows that have an answer would be paid again; "
            "agree with --accept-change, or write to another output with -o"
        )


def _consents(job: Job) -> bool:
    bounds = (job.max_cost, job.max_requests, job.max_total_tokens)
    return job.accept_change or any(bound is not None for bound in bounds)


def _without_answer(prepared: PreparedJob, journal: Journal) -> int:
    """Rows of the input whose request, as the job is now, has no answer yet."""
    reader = journal.reader()
    ordinals: Counter[bytes] = Counter()
    missing = 0
    for page in _pages(_requests(prepared, prepared.source.rows()), _PAGE):
        wanted = []
        for request in page:
            wanted.append((request.key, 0 if prepared.job.dedupe else ordinals[request.key]))
            ordinals[request.key] += 1
        missing += len(wanted) - len(reader.answers_for(list(dict.fromkeys(wanted))))
    return missing


def _requests(prepared: PreparedJob, rows: Iterable[Row]) -> Iterator[ChatRequest]:
    for row in rows:
        if isinstance(built := prepared.builder.build(row), ChatRequest):
            yield built


def _pages(requests: Iterator[ChatRequest], size: int) -> Iterator[list[ChatRequest]]:
    while page := list(islice(requests, size)):
        yield page
