"""The early stop: a job whose first answers are all of no use stops before it has paid for thousands of them.

It judges the first answers of a run, and lets go for the job, for as long as what it asks stays the same, once one
of them is of use. What was in flight when it stops still lands.
"""

from collections import Counter

from batchllm.printable import one_line
from batchllm.records import Answer

FIRST = 20

_CUT = "cut"
_CAUSES = {
    _CUT: "were cut at the most tokens an answer may have ({bound}); raise --max-tokens",
    "reasoning": "are empty because reasoning used up their tokens; raise --max-tokens, or lower --reasoning-effort",
    "empty": "are empty; see with `batchllm show` what came, and try another --model, --system or template",
    "no_label": "hold none of the labels; name the ones you mean with --labels, or ask for one word with --system",
    "content_filter": "were removed by the endpoint's content filter; look at the rows and at --system",
    "refusal": "are refusals; look at the rows and at --system",
    "not_json": "are no JSON; the endpoint may not know --schema: try another --model, or ask for JSON in --system",
    "schema": "do not fit the schema; simplify --schema, or try another --model",
}
_OTHER = "are no use ({kind}); look at the template and --model"
_SHOWN = 200


class EarlyStop:
    """Judges the first answers of a run.

    Args:
        cut_is_useless: An answer that was cut is no use (a label may be cut and still be one).
        bound: The most tokens an answer may have, for the message.
        released: It judges nothing: ``--no-early-stop``, or an earlier run of this job had answers of use.

    Attributes:
        released: Nothing is judged any more; an answer of use came.
    """

    def __init__(
        self, *, cut_is_useless: bool = True, bound: int | None = None, released: bool = False
    ) -> None:
        self.released = released
        self._cut_is_useless = cut_is_useless
        self._bound = bound
        self._kinds: Counter[str] = Counter()
        self._shown = ""

    def saw(self, row_index: int, answer: Answer) -> str | None:
        """Told the final answers in turn; returns the sentence to stop with, once all of the first are useless."""
        if self.released:
            return None
        kind = self._useless(answer)
        if kind is None:
            self.released = True
            return None
        if not self._kinds:
            said = answer.text or "nothing"
            self._shown = f"row {row_index + 1} got: '{one_line(said, _SHOWN)}'"
        self._kinds[kind] += 1
        return self._sentence() if self._kinds.total() >= FIRST else None

    def _useless(self, answer: Answer) -> str | None:
        """Why an answer is no use, in one word; ``None`` where it is."""
        if answer.error is not None:
            cut_short = answer.reason == "empty" and answer.finish_reason == "length"
            return _CUT if cut_short else answer.reason or "unknown"
        return _CUT if answer.finish_reason == "length" and self._cut_is_useless else None

    def _sentence(self) -> str:
        kind, count = self._kinds.most_common(1)[0]
        bound = "the endpoint's own bound" if self._bound is None else f"max_tokens {self._bound}"
        cause = _CAUSES.get(kind, _OTHER).format(bound=bound, kind=kind)
        share = "all" if count == FIRST else f"{count} of them"
        return (
            f"the first {FIRST} answers are of no use, so the job stopped: {share} {cause}. {self._shown}. "
            "What is paid is kept: with a changed job --accept-change asks these rows again, and --no-early-stop "
            "goes on as it is"
        )
