"""What answers turned out to be: learned while a job runs, kept in its journal, used by forecast and budget.

Lengths are counted in buckets that grow by a tenth (a sketch after Masson, Rim and Lee, "DDSketch", 2019): any
percentile is known within a tenth, in constant memory, over all runs of the job.
"""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from batchllm.records import Usage

LEARNED = "answers"
"""The journal's entry for what was learned."""

GROWTH = 1.1
HIGH = 0.95
LOW = 0.05
_LOG = math.log(GROWTH)


class Learned:
    """What the answers of a job used.

    Args:
        kept: What ``as_json`` gave, from the journal.

    Attributes:
        answers: Answers with usage.
        prompt_tokens, completion_tokens: Their sums.
    """

    def __init__(self, kept: Mapping[str, Any] | None = None) -> None:
        kept = kept or {}
        self.answers: int = kept.get("answers", 0)
        self.prompt_tokens: int = kept.get("prompt_tokens", 0)
        self.completion_tokens: int = kept.get("completion_tokens", 0)
        self._lengths: Counter[int] = Counter({int(k): n for k, n in kept.get("lengths", {}).items()})

    def add(self, usage: Usage) -> None:
        """Takes note of an answer; one without usage teaches nothing."""
        prompt, completion = usage.prompt_tokens, usage.completion_tokens
        if prompt is None or completion is None:
            return
        self.answers += 1
        self.prompt_tokens += prompt
        self.completion_tokens += completion
        self._lengths[math.ceil(math.log(completion) / _LOG) if completion > 0 else -1] += 1

    def high(self, bound: int | None = None) -> int | None:
        """The tokens that few answers exceed, at most ``bound``; ``None`` where no answer is known."""
        bucket = self._bucket(HIGH)
        if bucket is None:
            return None
        found = 0 if bucket < 0 else math.floor(GROWTH**bucket + 1e-9)
        return found if bound is None else min(found, bound)

    def low(self, bound: int | None = None) -> int:
        """The tokens that few answers fall below, at most ``bound``; 0 where no answer is known."""
        bucket = self._bucket(LOW)
        found = 0 if bucket is None or bucket < 0 else math.floor(GROWTH ** (bucket - 1) + 1e-9)
        return found if bound is None else min(found, bound)

    def _bucket(self, share: float) -> int | None:
        """The bucket that this share of the answers reaches."""
        if not self.answers:
            return None
        wanted, seen, bucket = share * self.answers, 0, -1
        for bucket in sorted(self._lengths):
            seen += self._lengths[bucket]
            if seen >= wanted:
                break
        return bucket

    def prompt(self) -> float | None:
        """Tokens of a prompt, on average."""
        return self.prompt_tokens / self.answers if self.answers else None

    def as_json(self) -> dict[str, Any]:
        """What the journal keeps."""
        return {
            "answers": self.answers,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "lengths": {str(bucket): count for bucket, count in self._lengths.items()},
        }
