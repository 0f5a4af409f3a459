"""Reads each row's outcome from the journal."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from batchllm.answer import Reader
from batchllm.budget.costs import PaidAnswer, RowCosts
from batchllm.formats import Outcome
from batchllm.formats.columns import ENDPOINT
from batchllm.journal import JournalReader, RowRecord, State
from batchllm.plan.replay import ReplayedRequest, Replayer, Replays, read_outcome, unsent_answer
from batchllm.prepare.prepared_job import PreparedJob
from batchllm.records import Chosen, Row

NO_COLUMNS: Mapping[str, Any] = MappingProxyType({})


class OutcomeReader:
    """Reads outcomes.

    Args:
        replays: Replays the flows of rows that have several requests.
        reader_of: Returns the reader of a row's answer.
        endpoint_of: Returns the endpoint of an attempt, where the output has a column for it.
        alone: Values of columns that an answer gets which is its row's only one.
    """

    def __init__(
        self,
        replays: Replays,
        reader_of: Callable[[int], Reader],
        endpoint_of: Callable[[int], str | None] | None = None,
        alone: Mapping[str, Any] = NO_COLUMNS,
    ) -> None:
        self._endpoint_of = endpoint_of
        self._replays = replays
        self._reader_of = reader_of
        self._alone = alone

    def outcome(self, entry: RowRecord, costs: RowCosts | None) -> Outcome:
        """Returns the outcome of a row that is finished or given up."""
        attempt_id = entry.attempt_id
        if entry.unsent_reason is not None:
            answer, paid, attempts, latency_s = unsent_answer(entry.unsent_reason), [], 0, None
        elif entry.flow_of is not None:
            replay = self._replays.replay_row(entry.row_index, entry.flow_of)
            answer, attempts, latency_s = replay.summed(), replay.attempts, replay.latency_s
            paid = [each for each in map(_paid, replay.requests) if each is not None]
            sent = [each.record.attempt_id for each in replay.requests if each.record is not None]
            attempt_id = sent[-1] if sent else None
        else:
            answer = read_outcome(entry, self._reader_of(entry.row_index))
            if self._alone and answer.error is None:
                answer = answer._replace(columns={**answer.columns, **self._alone})
            attempts, latency_s, paid = entry.attempts, entry.latency_s, []
            if entry.status is not None and 200 <= entry.status < 300:
                paid = [PaidAnswer(answer.usage, answer.model, "", entry.attempt_id)]
        cost = None if costs is None else costs.cost_of(entry.row_index, paid)
        endpoint = None
        if attempt_id is not None and self._endpoint_of is not None:
            endpoint = self._endpoint_of(attempt_id)
        return Outcome(entry.row_index, answer, attempts, latency_s, cost, endpoint)


def outcome_reader(
    prepared: PreparedJob, journal: JournalReader, row_of: Callable[[int], Row] | None = None
) -> OutcomeReader:
    """Returns a reader of a job's outcomes.

    Args:
        prepared: The job and its input.
        journal: Its journal.
        row_of: Returns a row by its index; by default rows are read in order, so indexes have to increase.
    """
    row_of = row_of or in_order(prepared.source.rows)
    shows_endpoint = ENDPOINT in dict(prepared.columns.fields).values()
    return OutcomeReader(
        Replayer(prepared.flow, journal, row_of),
        readers(prepared, row_of),
        journal.endpoint_of if shows_endpoint else None,
        prepared.flow.alone,
    )


def readers(prepared: PreparedJob, row_of: Callable[[int], Row] | None = None) -> Callable[[int], Reader]:
    """Returns a function from a row's index to the reader of its answer; for ``row_of`` see ``outcome_reader``."""
    if not prepared.job.per_row:
        return lambda row_index: prepared.reader
    row_of = row_of or in_order(prepared.source.rows)
    return lambda row_index: prepared.builder.reader(row_of(row_index))


def in_order(rows: Callable[[], Iterator[Row]]) -> Callable[[int], Row]:
    """Returns a function from an index to its row; indexes must not decrease."""
    opened: list[Iterator[Row]] = []
    last: list[Row] = []

    def row_of(row_index: int) -> Row:
        if last and last[0].index == row_index:
            return last[0]
        if not opened:
            opened.append(rows())
        last[:] = [next(row for row in opened[0] if row.index == row_index)]
        return last[0]

    return row_of


def outcomes(
    entries: Iterable[RowRecord],
    read: OutcomeReader,
    chosen: Chosen = None,
    costs: RowCosts | None = None,
) -> Iterator[Outcome]:
    """Yields the outcome of each row that is finished or given up.

    Args:
        entries: What the journal has of the rows, in input order.
        read: Reads outcomes.
        chosen: The only rows wanted, ``None`` for all.
        costs: Computes what each row cost.
    """
    for entry in entries:
        is_chosen = chosen is None or entry.row_index in chosen
        if is_chosen and entry.state not in (State.OPEN, State.PENDING):
            yield read.outcome(entry, costs)


def _paid(each: ReplayedRequest) -> PaidAnswer | None:
    answer, record = each.answer, each.record
    if answer is None or record is None or record.status is None or not 200 <= record.status < 300:
        return None
    return PaidAnswer(
        answer.usage, answer.model, "" if each.ask is None else each.ask.model, record.attempt_id
    )
