"""HeldRefusals of key, model or URL in a job whose requests have succeeded before: of a row, or of the endpoint?

A web firewall, a moderation rule or a missing ability ("no endpoints found that support image input") refuses
single rows with 401, 403 or 404; a revoked key refuses every row with the same. One refusal does not tell them
apart, the next ones do: a success in between shows that key, model and URL are still good.
"""

import math
from typing import NamedTuple

from batchllm.plan.work_item import WorkItem
from batchllm.records import Answer
from batchllm.retry import ENDPOINTS_OWN


class HeldRefusal(NamedTuple):
    """A refused row that waits for the judgement.

    Attributes:
        item: The row.
        answer: What it gets if the refusal is its own.
        attempt_id: The attempt that was refused.
        at: When the refusal arrived, in the loop's time.
    """

    item: WorkItem
    answer: Answer
    attempt_id: int
    at: float


class HeldRefusals:
    """Holds refused rows until it is known whose the refusal is.

    Attributes:
        endpoints_own: The endpoint refuses every row; what it refused, and still refuses, stays unfinished.
    """

    def __init__(self) -> None:
        self.endpoints_own = False
        self._held: list[HeldRefusal] = []
        self._in_a_row = 0

    def hold(self, refused: HeldRefusal) -> bool:
        """Holds one more row; ``True`` once the endpoint is seen to refuse all of them."""
        if not self.endpoints_own:
            self._held.append(refused)
            self._in_a_row += 1
            if self._in_a_row >= ENDPOINTS_OWN:
                self.endpoints_own = True
                self._held.clear()
        return self.endpoints_own

    def take(self, sent_at: float = math.inf) -> list[HeldRefusal]:
        """Takes out the rows whose refusal is their own: a request has succeeded, or the run ends.

        Args:
            sent_at: When the request left that succeeded; what was refused later may be refused for a reason that
                it did not meet yet, and waits for a later one.
        """
        self._in_a_row = 0
        if not self._held:
            return self._held
        own = [refused for refused in self._held if refused.at <= sent_at]
        self._held = [refused for refused in self._held if refused.at > sent_at]
        return own
