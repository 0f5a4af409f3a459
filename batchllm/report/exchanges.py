"""The prompts and the raw answers of some rows, from the input and the journal."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batchllm.errors import InputError, UsageError
from batchllm.exact import loads
from batchllm.flows import Ask, Unsent
from batchllm.journal import JournalReader
from batchllm.plan.replay import ReplayedRequest, Replayer, first_asks
from batchllm.prepare.job_paths import job_paths
from batchllm.prepare.prepared_job import PreparedJob, prepare_job
from batchllm.prepare.saved_job import restored
from batchllm.report.texts import clean, content_text

_MOST_REQUESTS = 20


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request of a row, and what came back.

    Attributes:
        path: Its name in the row's flow; empty where the row has one request.
        prompt: Its messages, each after the name of its role.
        parameters: Everything else that was sent, but for the model.
        reply: The raw answer, or why there is none.
    """

    path: str
    prompt: str
    reply: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


def read_exchanges(
    journal: Path, wanted: Collection[int], rows: int
) -> tuple[dict[int, tuple[Exchange, ...]], str | None]:
    """Reads the requests of rows.

    Args:
        journal: The journal of the job.
        wanted: The rows, by their place in the output.
        rows: How many rows the output has.

    Returns:
        The requests of each row, and a sentence that says why there are none.
    """
    try:
        with JournalReader.open(journal) as reader:
            indexes = {}
            count = 0
            for place, row_index in enumerate(finished_row_indexes(reader)):
                count += 1
                if place in wanted:
                    indexes[row_index] = place
            if count != rows:
                return (
                    {},
                    "The journal has other rows than the output, so prompts and raw answers are left out.",
                )
            job = restored(reader.get("job"))
            with prepare_job(job, job_paths(job)) as prepared:
                if prepared.statistics.sha256 != reader.get("source"):
                    return (
                        {},
                        "The input was changed since the job ran, so prompts and raw answers are left out.",
                    )
                return dict(_exchanges(prepared, reader, indexes)), None
    except (InputError, UsageError) as error:
        return {}, f"Prompts and raw answers are left out, because the input cannot be read: {error}"


def _exchanges(
    prepared: PreparedJob, reader: JournalReader, indexes: Mapping[int, int]
) -> Iterator[tuple[int, tuple[Exchange, ...]]]:
    """Yields the requests of rows by their place in the output; ``indexes`` has it by their place in the input."""
    replayer = Replayer(prepared.flow, reader)
    last = max(indexes, default=-1)
    for row in prepared.source.rows():
        if row.index > last:
            return
        if row.index not in indexes:
            continue
        known = reader.row(row.index)
        if known.request_id is None:
            asked = [ReplayedRequest(ask, None, None) for ask in first_asks(prepared.flow, row, reader)]
        else:
            asked = replayer.replay(row, known.request_id).requests
        yield indexes[row.index], tuple(map(_exchange, asked[:_MOST_REQUESTS]))


def finished_row_indexes(reader: JournalReader) -> Iterator[int]:
    """Yields the rows that are finished or given up, which are those that an output has."""
    page: Sequence[Any] = reader.select(_FINISHED, -1)
    while page:
        for (row_index,) in page:
            yield row_index
        page = reader.select(_FINISHED, page[-1][0])


_FINISHED = """
SELECT row.row_index FROM row LEFT JOIN request ON request.request_id = row.request_id
WHERE row.row_index > ? AND (row.request_id IS NULL OR ifnull(row.state, request.state) NOT IN (0, 4))
ORDER BY row.row_index LIMIT 10000
"""


def _exchange(request: ReplayedRequest) -> Exchange:
    record = request.record
    if record is None:
        reply = "nothing was sent"
    elif record.status is None:
        reply = record.message or "no answer came"
    else:
        raw = record.body.decode("utf-8", "replace")
        reply = raw if 200 <= record.status < 300 else f"HTTP {record.status}: {raw}"
    path = "" if request.ask is None else request.ask.path
    body = {} if request.ask is None else _body(request.ask)
    messages = body.get("messages")
    parts = [
        f"{it.get('role', '')}: {content_text(it.get('content'))}"
        for it in (messages if isinstance(messages, list) else ())
        if isinstance(it, dict)
    ]
    parameters = {name: value for name, value in body.items() if name not in ("messages", "model")}
    return Exchange(path, clean("\n\n".join(parts)), clean(reply), parameters)


def _body(ask: Ask) -> dict[str, Any]:
    """What a request says; nothing where it cannot be sent."""
    try:
        body = loads(ask.built().body)
    except Unsent:
        return {}
    return body if isinstance(body, dict) else {}
