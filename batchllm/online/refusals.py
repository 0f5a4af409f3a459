"""Holds rows that were refused for key, model or URL until it is known whether the row or the endpoint is to blame.

A web firewall, a moderation rule or a missing ability ("no endpoints found that support image input") refuses single
rows with 401, 403 or 404; a revoked key refuses every row with the same. A later success shows that key, model and URL
are still good; several refusals in a row show that they are not.
"""

import math
import re
from dataclasses import dataclass

from batchllm.plan.work_item import WorkItem
from batchllm.records import Answer
from batchllm.retry import ENDPOINT_REFUSALS, Verdict, may_be_setting

FIRST_ROWS = 10
"""This many rows rejected in the same words before any success mean that a setting is wrong, not the rows."""

_SETTING = re.compile(
    r"model|deployment|api[ _-]?key|param|argument|unsupported|not support|unknown|unrecogni[sz]ed"
    r"|extra (?:field|input)|not permitted|response_format|schema|tool|temperature|max_(?:completion_)?tokens"
    r"|https? (?:server|port|request)",
    re.IGNORECASE,
)
_NUMBERS = re.compile(r"\b(?=\w*\d)[\w-]+")


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
        message: What the latest row that is held was refused with; empty where none is.
    """

    def __init__(self) -> None:
        self.endpoints_own = False
        self.message = ""
        self._held: list[HeldRefusal] = []
        self._in_a_row = 0

    def hold(self, refused: HeldRefusal, words: str) -> bool:
        """Holds one more row, refused in these words; returns ``True`` once the endpoint refuses every row."""
        if not self.endpoints_own:
            self._held.append(refused)
            self.message = words
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
        self.message = ""
        if not self._held:
            return self._held
        own = [refused for refused in self._held if refused.at <= sent_at]
        self._held = [refused for refused in self._held if refused.at > sent_at]
        return own


class FirstRejections:
    """Holds the rows that are rejected before any success, as long as all are rejected in the same words.

    A model, a parameter or a schema that the endpoint does not take rejects every row alike; no row is failed for it.

    Attributes:
        said: What the latest row that is held was rejected with, and by which endpoint; empty where none is.
    """

    def __init__(self) -> None:
        self.said = ""
        self._message = ""
        self._words: str | None = None
        self._held: list[HeldRefusal] = []
        self._over = False

    def holds(self, verdict: Verdict) -> bool:
        """Returns whether a row that is rejected so is held."""
        if self._over or not may_be_setting(verdict):
            return False
        words = _NUMBERS.sub("#", verdict.message.lower())  # what names a row or a request differs
        self._over = self._words not in (None, words)
        self._words = words
        return not self._over

    def hold(self, refused: HeldRefusal, verdict: Verdict, said: str) -> bool:
        """Holds one more row; returns ``True`` once so many are rejected alike that a setting is wrong."""
        self.said, self._message = said, verdict.message
        self._held.append(refused)
        return len(self._held) == FIRST_ROWS

    @property
    def is_setting(self) -> bool:
        """Returns whether the rows held at the end of a run show a wrong setting: several, or one that says so."""
        return len(self._held) > 1 or (bool(self._held) and _SETTING.search(self._message) is not None)

    def take(self) -> list[HeldRefusal]:
        """Takes out the rows held, whose rejection is their own after all."""
        self._over = True
        held, self._held = self._held, []
        return held
