"""What a lane learns from refusals: a new estimate, a wider margin, or that they are noise."""

import math
from dataclasses import dataclass, field
from typing import Generic

from batchllm.limiter.gate import Gate, RequestedPauses
from batchllm.limiter.limits import LaneLimits
from batchllm.limiter.queue import Attempt
from batchllm.limiter.refusals import Conclusion, PaceBasis, Refusals
from batchllm.limiter.terms import REQUESTS, T

OVERRULED_BY = 3
"""Single refusals that overrule a limit that the user gave; a pause whose probe is refused too does it at once."""


@dataclass(slots=True)
class PauseCause:
    """The refusal that closed the gate.

    Attributes:
        reason: The verdict's reason.
        dimension: The dimension that it is about.
        attempt: The refused attempt.
        isolated: Whether requests around it were accepted, so that it says nothing about the pace.
        contradicted: Whether the refused pace is one that had been accepted before.
    """

    reason: str = ""
    dimension: str = REQUESTS
    attempt: Attempt = field(default_factory=lambda: Attempt(-math.inf, 0))
    isolated: bool = False
    contradicted: bool = False


class RefusalLearner(Generic[T]):
    """Adapts a lane's limits to what its refusals say."""

    def __init__(
        self, limits: LaneLimits, refusals: Refusals[T], gate: Gate, requested_pauses: RequestedPauses
    ) -> None:
        self._limits = limits
        self._refusals = refusals
        self._gate = gate
        self._requested_pauses = requested_pauses
        self._single_refusals = 0

    def isolated(self, now: float, dimension: str) -> None:
        """Learns from one refusal among accepted requests: the pace is a little too high, or it is noise."""
        limits, refusals = self._limits, self._refusals
        if refusals.noise or limits.widen_margin(now, dimension):
            return
        lowered = limits.is_given(dimension)  # by its margin, which is as wide as it gets
        basis = PaceBasis(limits.between_pauses, limits.weak, lowered)
        match refusals.judge_unexplained(now, basis, quiet_s=self._gate.quiet_s):
            case Conclusion.NOISE:
                limits.ignore_refusals(now, quickly=self._requested_pauses.unneeded > 0)
            case Conclusion.LOWER:
                limits.learn(now, dimension, now, refusals=1, noisy=False)

    def pause(self, now: float, closed_at: float, cause: PauseCause) -> None:
        """Learns from a pause that concerned all requests.

        A single refusal (the probe was accepted) in spite of a limit that the user gave widens its margin first, and
        overrules the limit only the third time. Any other pause yields a new estimate, unless its refusal turns out to
        be noise.
        """
        limits, gate = self._limits, self._gate
        single = gate.probes_refused == 0 and limits.is_given(cause.dimension)
        if single and (self._refusals.noise or limits.widen_margin(now, cause.dimension)):
            return
        self._single_refusals = self._single_refusals + 1 if single else 0
        if not limits.known:
            self._requested_pauses.over(unneeded=cause.contradicted)
            if self._requested_pauses.may_be_rounded(now - closed_at, gate.probes_refused):
                limits.note_pause(now - closed_at)
        conclusion = self._refusals.judge_pause(
            now,
            PaceBasis(between_pauses=True, weak=limits.weak, lowered=not limits.doubted),
            contradicted=cause.contradicted,
            accepted=limits.dimension(REQUESTS).sent.accepted,
            quiet_s=gate.quiet_s,
        )
        if conclusion is Conclusion.NOISE:
            limits.ignore_refusals(now, quickly=self._requested_pauses.unneeded > 0)
        elif not single or self._single_refusals >= OVERRULED_BY:
            noisy = self._refusals.noise > 0.0
            limits.learn(now, cause.dimension, closed_at, refusals=gate.refusals, noisy=noisy)
