"""The flow of a row within one run, with what the journal knows of the row."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from batchllm.flows.open_flow import OpenFlow
from batchllm.journal import AdmittedRow
from batchllm.records import Row

if TYPE_CHECKING:
    from batchllm.plan.conversations import Conversation


class KnownRows:
    """The rows that an earlier pass admitted, which are asked for in input order.

    Args:
        rows: The rows, in input order.
    """

    def __init__(self, rows: Iterator[AdmittedRow]) -> None:
        self._rows = rows
        self._next = next(rows, None)

    @property
    def more(self) -> bool:
        """Whether there are rows that have not been passed."""
        return self._next is not None

    def of(self, row_index: int) -> AdmittedRow | None:
        """Returns what is known of a row; ``None`` if nothing is."""
        while self._next is not None and self._next.row_index < row_index:
            self._next = next(self._rows, None)
        return self._next if self._next is not None and self._next.row_index == row_index else None


class RowFlow(OpenFlow):
    """The flow of a row.

    Attributes:
        row: The row.
        known: What an earlier pass of this plan knows of it.
        root: Its first request, once it is admitted.
        conversation: The conversation that it is a turn of.
        key: The key of its first request.
        sent: A request of it was sent in this run.
        held: A request of it is in a batch, so a later pass goes on with it.
        adopted: A request of it was answered by another job.
        known_root: Its first request was looked up.
        reopened: Its failed requests are asked again.
        newest: The newest attempt that it was answered by.
        followers: Later rows that share its requests (``--dedupe``), if there are any.
        reused: The journal of another job, by its number, and the request there that the first one was taken from.
    """

    __slots__ = (
        "adopted", "conversation", "followers", "held", "key", "known",
        "known_root", "newest", "reopened", "reused", "root", "row", "sent",
    )  # fmt: skip

    def __init__(self, row: Row, known: AdmittedRow | None) -> None:
        super().__init__()
        self.row = row
        self.known = known
        self.root: AdmittedRow | None = None
        self.conversation: Conversation | None = None
        self.key = b""
        self.sent = self.held = self.adopted = self.reopened = False
        self.known_root = known is not None and known.request_id is not None
        self.newest = -1
        self.followers: list[int] | None = None
        self.reused: tuple[int, int] | None = None
