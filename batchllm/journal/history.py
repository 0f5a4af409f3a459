"""Reads what a journal knows of the past of a job: how long answers took, and when requests were sent and refused.

It serves figures only, so checksums are not compared.
"""

from typing import NamedTuple

from batchllm.journal.reader import JournalReader

_STRETCHES = 60
"""Into how many stretches a run is divided."""


class Moment(NamedTuple):
    """A stretch of a run.

    Attributes:
        start_s: Its beginning, in seconds since the first request of the run.
        answered: Requests sent in it that brought an answer.
        refused: Those that a rate limit refused (HTTP 429).
        failed: Those that failed otherwise, or brought nothing.
    """

    start_s: float
    answered: int
    refused: int
    failed: int


class RunHistory(NamedTuple):
    """The requests of one run over time.

    Attributes:
        run_id: The run.
        began_at: When its first request was sent, in seconds since the epoch.
        step_s: The length of a stretch, in seconds.
        moments: The stretches, in order; those without a request are there too.
    """

    run_id: int
    began_at: float
    step_s: float
    moments: tuple[Moment, ...]


_LATENCIES = """
SELECT CAST(printf('%.4g', latency_s) AS REAL), count(*) FROM reply
WHERE status BETWEEN 200 AND 299 AND latency_s IS NOT NULL GROUP BY 1
"""

_TOTALS = """
SELECT count(*), ifnull(sum(reply.status BETWEEN 200 AND 299), 0), ifnull(sum(reply.status = 429), 0)
FROM attempt LEFT JOIN reply ON reply.attempt_id = attempt.attempt_id WHERE attempt.sent_at IS NOT NULL
"""

_LARGEST_RUN = """
SELECT run_id, count(*), min(sent_at), max(sent_at) FROM attempt WHERE sent_at IS NOT NULL
GROUP BY run_id ORDER BY 2 DESC LIMIT 1
"""

_MOMENTS = """
SELECT CAST((attempt.sent_at - ?) / ? AS INTEGER), count(*), ifnull(sum(reply.status BETWEEN 200 AND 299), 0),
       ifnull(sum(reply.status = 429), 0)
FROM attempt LEFT JOIN reply ON reply.attempt_id = attempt.attempt_id
WHERE attempt.run_id = ? AND attempt.sent_at IS NOT NULL GROUP BY 1
"""


def latency_counts(reader: JournalReader) -> list[tuple[float, int]]:
    """Returns how long answers took, in seconds to four significant digits, and how many took so long."""
    return [(seconds, count) for seconds, count in reader.select(_LATENCIES)]


def count_outcomes(reader: JournalReader) -> tuple[int, int, int]:
    """Returns how many requests all runs sent, how many brought an answer, and how many a rate limit refused."""
    ((sent, answered, refused),) = reader.select(_TOTALS)
    return sent, answered, refused


def run_history(reader: JournalReader) -> RunHistory | None:
    """Returns the requests over time of the run that sent the most; ``None`` if none was sent."""
    runs = reader.select(_LARGEST_RUN)
    if not runs:
        return None
    run_id, _, first, last = runs[0]
    step_s = (
        max((last - first) / _STRETCHES, 0.001) * 1.000001
    )  # so that the last request is in the last stretch
    found = {row[0]: row[1:] for row in reader.select(_MOMENTS, first, step_s, run_id)}
    moments = []
    for place in range(max(found) + 1):
        sent, answered, refused = found.get(place, (0, 0, 0))
        moments.append(Moment(place * step_s, answered, refused, sent - answered - refused))
    return RunHistory(run_id, first, step_s, tuple(moments))
