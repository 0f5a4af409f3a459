"""Holds rows that were refused for key, model or URL until it is known whether the row or the endpoint is to blame.

A web firewall, a moderation rule or a missing ability ("no endpoints found that support image input") refuses single
rows with 401, 403 or 404; a revoked key refuses every row with the same. A later success shows that key, model and URL
are still good; several refusals in a row show that they are not.
"""

import math
from dataclasses import dataclass

from batchllm.plan.work_item import WorkItem
from batchllm.records import Answer
from batchllm.retry import ENDPOINT_REFUSALS


@dataclass(slots=True, eq=False)
class HeldRefusal:
    """A refused row whose failure is not decided yet.

    Attributes:
        item: The row.
        answer: The row's failure, if the refusal is its own.
        attempt_id: The attempt that was refused.
        at: When the refusal arrived, in the loop's time.
        row_ended: Its row has no other request under way.
    """

    item: WorkItem
    answer: Answer
    attempt_id: int
    at: float
    row_ended: bool = True


class HeldRefusals:
    """Holds refused rows until it is known who is refused.

    Attributes:
        endpoints_own: The endpoint refuses every row; refused rows stay unfinished.
    """

    def __init__(self) -> None:
        self.endpoints_own = False
        self._held: list[HeldRefusal] = []
        self._in_a_row = 0

    def hold(self, refused: HeldRefusal) -> bool:
        """Holds one more row; returns ``True`` once the endpoint is seen to refuse every row."""
        if not self.endpoints_own:
            self._held.append(refused)
            self._in_a_row += 1
            if self._in_a_row >= ENDPOINT_REFUSALS:
                self.endpoints_own = True
                self._held.clear()
        return self.endpoints_own

    def take(self, sent_at: float = math.inf) -> list[HeldRefusal]:
        """Takes out the rows whose refusal is their own, because a request has succeeded or the run ends.

        Args:
            sent_at: When the successful request left. Rows refused after that stay held: the reason may be newer.
        """
        self._in_a_row = 0
        if not self._held:
            return self._held
        own = [refused for refused in self._held if refused.at <= sent_at]
        self._held = [refused for refused in self._held if refused.at > sent_at]
        return own
