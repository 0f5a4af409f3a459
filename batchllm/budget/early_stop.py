"""Stops a job whose first answers are all unusable, before it has paid for thousands of them.

The first answers of each step are checked. Once one of them is usable, the step is not checked any more, in later runs
either as long as the job asks the same. Requests in flight at the stop are still received.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType

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
    "not_json": "are not JSON; the endpoint may not know --schema: try another --model, or ask for JSON in --system",
    "schema": "do not fit the schema; simplify --schema, or try another --model",
}
_OTHER = "are unusable ({kind}); look at the template and --model"
_SHOWN = 200
_OF_PARTS = {"part": " about parts of texts", "combine": " that combine those about parts"}


class EarlyStop:
    """Checks the first answers of a run.

    Args:
        cut_is_useless: An answer that was cut off is unusable (a label may be cut off and still be one).
        bound: The most tokens an answer may have, for the message.
        inactive: Check nothing: ``--no-early-stop``.
        useful: Steps that had usable answers in earlier runs of this job.
        steps: Of a job with steps, ``cut_is_useless`` and ``bound`` by step.

    Attributes:
        useful: Steps that are not checked any more, because a usable answer came.
    """

    def __init__(
        self,
        *,
        cut_is_useless: bool = True,
        bound: int | None = None,
        inactive: bool = False,
        useful: Iterable[str] = (),
        steps: Mapping[str, tuple[bool, int | None]] = MappingProxyType({}),
    ) -> None:
        self.useful = set(useful)
        self._inactive = inactive
        self._whole = (cut_is_useless, bound)
        self._steps = steps
        self._kinds: dict[str, Counter[str]] = {}
        self._shown: dict[str, str] = {}

    def check(self, row_index: int, answer: Answer, step: str = "") -> str | None:
        """Called with each final answer; returns a stop message once the first 20 of a step are all unusable.

        Args:
            row_index: The row.
            answer: The answer.
            step: The step of the row's flow that it belongs to.
        """
        if self._inactive or step in self.useful:
            return None
        kind = self._useless(answer, step)
        if kind is None:
            self.useful.add(step)
            return None
        kinds = self._kinds.setdefault(step, Counter())
        if not kinds:
            said = answer.text or "nothing"
            self._shown[step] = f"row {row_index + 1} got: '{one_line(said, _SHOWN)}'"
        kinds[kind] += 1
        return self._message(step, kinds) if kinds.total() >= FIRST else None

    def _useless(self, answer: Answer, step: str) -> str | None:
        """Returns why an answer is unusable, in one word; ``None`` if it is usable."""
        if answer.error is not None:
            cut_off = answer.reason == "empty" and answer.finish_reason == "length"
            return _CUT if cut_off else answer.reason or "unknown"
        cut_is_useless, _ = self._steps.get(step, self._whole)
        return _CUT if answer.finish_reason == "length" and cut_is_useless else None

    def _message(self, step: str, kinds: Counter[str]) -> str:
        kind, count = kinds.most_common(1)[0]
        _, most = self._steps.get(step, self._whole)
        bound = "the endpoint's own bound" if most is None else f"max_tokens {most}"
        cause = _CAUSES.get(kind, _OTHER).format(bound=bound, kind=kind)
        of_step = f" of {step}" if step else ""
        if step not in self._steps:
            of_step = _OF_PARTS.get(step, of_step)
        share = "all" if count == FIRST else f"{count} of them"
        return (
            f"none of the first {FIRST} answers{of_step} is usable, so the job stopped: {share} {cause}. "
            f"{self._shown[step]}. What is paid is kept: with a changed job --accept-change asks these rows again, and "
            "--no-early-stop goes on as it is"
        )
