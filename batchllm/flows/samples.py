"""Asks several times for the same answer, and takes the majority."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from batchllm.flows.asking import together
from batchllm.flows.flow import Ask, Flow, RequestFailed
from batchllm.flows.part_columns import said
from batchllm.job import Job
from batchllm.records import Answer

AGREEMENT, SAMPLES = "agreement", "samples"
"""The columns that samples add: the share of the samples that gave the row's answer, and all answers."""


def sample_columns(job: Job) -> tuple[str, ...]:
    """Returns the columns that the samples of a job add."""
    return (AGREEMENT, SAMPLES) if job.samples > 1 else ()


def sampled(ask: Ask, count: int, answered: Callable[[Ask], Flow]) -> Flow:
    """Yields a request ``count`` times at once; each gets an answer of its own.

    Args:
        ask: The request.
        count: The number of samples.
        answered: Makes the flow of one sample of its request.

    Returns:
        The answer of the samples together; see ``majority``.

    Raises:
        RequestFailed: No sample has an answer.
    """
    asks = [ask._replace(path=f"sample/{number}") for number in range(1, count + 1)]
    results = yield from together([answered(each) for each in asks])
    failures = [result for result in results if isinstance(result, RequestFailed)]
    if len(failures) == count:
        raise failures[0]
    given = [None if isinstance(result, RequestFailed) else result for result in results]
    return majority(given, votes=ask.reader.spec.read in ("label", "json"))


def majority(answers: Sequence[Answer | None], *, votes: bool) -> Answer:
    """Returns the answer of several samples; the first of equally frequent values wins.

    Args:
        answers: The samples; ``None`` is a missing one, which agrees with nothing.
        votes: Each column that is a label or a scalar has the most frequent value; otherwise the first answer is the
            row's. Columns that are lists or objects are the first answer's.

    Returns:
        The row's answer, with the columns ``agreement``, the mean share of the samples that gave the chosen values
        (``None`` where nothing is voted on), and ``samples``, all answers.
    """
    given = [answer for answer in answers if answer is not None]
    columns = dict(given[0].columns)
    shares = []
    for name in columns if votes else ():
        values = [answer.columns.get(name) for answer in given]
        if all(value is None or isinstance(value, str | int | float) for value in values):
            chosen, count = Counter(map(_ballot, values)).most_common(1)[0]
            columns[name] = next(value for value in values if _ballot(value) == chosen)
            shares.append(count / len(answers))
    agreement = round(sum(shares) / len(shares), 4) if shares else None
    first = next((answer for answer in given if answer.columns == columns), given[0])
    everything = [None if answer is None else said(answer) for answer in answers]
    return first._replace(columns={**columns, AGREEMENT: agreement, SAMPLES: everything})


def _ballot(value: Any) -> tuple[str, str]:
    """Tells ``1``, ``True`` and ``"1"`` apart."""
    return type(value).__name__, str(value)
