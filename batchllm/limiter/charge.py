"""Estimates what a request takes of a token limit; endpoints count in four ways.

========== ===================================================== ==========================
kind       taken when the request is admitted                    corrected after the answer
========== ===================================================== ==========================
max_tokens the larger of ``max_tokens`` and the prompt           no
sum        prompt + ``max_tokens``                               no
usage      prompt + the usual answer (at most ``max_tokens``)    by ``usage``
split      prompt and usual answer, each against its own limit   by ``usage``
========== ===================================================== ==========================

Correcting a charge that the endpoint does not correct causes refusals; leaving one that it corrects wastes the limit.
"""

from batchllm.limiter.terms import INPUT_TOKENS, OUTPUT_TOKENS, REQUESTS, Cost
from batchllm.records import Usage

FIRST_GUESS_TOKENS = 256.0
_QUANTILE = 0.9
_BLEND = 0.1
_REQUESTED_BLEND = 0.5


class Charge:
    """Estimates charges, and learns from usage and refusals by how much they are wrong.

    Args:
        kind: ``max_tokens``, ``sum``, ``usage`` or ``split``.

    Attributes:
        settles: Whether the endpoint corrects the charge by actual usage.
        prompt_factor: The endpoint's count of prompt tokens, divided by the estimate.
        factor: The endpoint's charge ("Requested N"), divided by the estimate.
        usual_answer: The 90 % quantile of the tokens of answers.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.settles = kind in ("usage", "split")
        self.prompt_factor = 1.0
        self.factor = 1.0
        self.usual_answer = FIRST_GUESS_TOKENS
        self._answers = 0

    def amount(self, dimension: str, cost: Cost) -> float:
        """Returns what a request takes of a dimension."""
        if dimension == REQUESTS:
            return 1.0
        prompt = cost.prompt_tokens * self.prompt_factor
        if dimension == INPUT_TOKENS:
            return prompt
        bound = cost.max_tokens
        answer = self.usual_answer if bound is None or (self.settles and bound > self.usual_answer) else bound
        if dimension == OUTPUT_TOKENS:
            return answer
        if self._kind == "max_tokens":
            return max(prompt, bound or 0) * self.factor
        return (prompt + answer) * self.factor

    def used(self, dimension: str, usage: Usage) -> float | None:
        """Returns what an answered request took; ``None`` if its charge is not corrected."""
        if not self.settles or dimension == REQUESTS:
            return None
        if dimension == INPUT_TOKENS:
            return usage.prompt_tokens
        if dimension == OUTPUT_TOKENS:
            return usage.completion_tokens
        if usage.total_tokens is not None or usage.prompt_tokens is None or usage.completion_tokens is None:
            return usage.total_tokens
        return usage.prompt_tokens + usage.completion_tokens

    def learn(self, cost: Cost, usage: Usage) -> None:
        """Learns from the usage of an answer."""
        if cost.prompt_tokens > 0 and usage.prompt_tokens:
            ratio = min(10.0, max(0.1, usage.prompt_tokens / cost.prompt_tokens))
            self.prompt_factor += _BLEND * (ratio - self.prompt_factor)
        tokens = usage.completion_tokens
        if tokens is None or tokens < 0:
            return
        self._answers += 1
        if self._answers == 1:
            self.usual_answer = float(tokens)
            return
        step = max(1.0, self.usual_answer) * max(0.02, 1.0 / self._answers)
        self.usual_answer += step * (_QUANTILE if tokens > self.usual_answer else _QUANTILE - 1.0)

    def correct(self, cost: Cost, requested: int) -> None:
        """Learns from the endpoint's own charge for a request ("Requested N")."""
        estimate = self.amount("tokens", cost) / self.factor
        if estimate > 0:
            ratio = min(10.0, max(0.1, requested / estimate))
            self.factor += _REQUESTED_BLEND * (ratio - self.factor)
