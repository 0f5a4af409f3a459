"""A worker's part of a budget: it grows and shrinks with each lease."""

from collections.abc import Callable

from batchllm.budget.budget import NOTHING, Amount, Budget, BudgetLimits, rounded
from batchllm.leases.messages import BudgetShare, BudgetUse


class LeasedBudget(Budget):
    """A budget whose limit is a ceiling that the holder raises. It counts what this run spends, not the runs before.

    Args:
        whole: The budget of all workers together.

    Attributes:
        short: A request waits because it does not fit.
        when_short: Called when a request does not fit any more, once for each time that the ceiling has risen.
        final: The holder has said that nothing more will fit.
    """

    is_shared = True

    def __init__(self, whole: BudgetLimits) -> None:
        super().__init__(_limits(whole, NOTHING))
        self._whole = whole
        self._ceiling = NOTHING
        self._wanted = NOTHING
        self._usual = NOTHING
        self._gives_back = False
        self._has_risen = True
        self.short = False
        self.when_short: Callable[[], object] = lambda: None
        self.final = False

    def reserve(self, bound: Amount) -> bool:
        """Reserves a request's upper bound; returns ``False``, and reserves nothing, if it does not fit."""
        self.short = not super().reserve(bound)
        if self.short:
            self._wanted = bound
            if self._has_risen:
                self._has_risen = False
                self.when_short()
        else:
            self._usual = bound
            self.final = False
        return not self.short

    def shortage(self, bound: Amount, reserved: Amount = NOTHING) -> str | None:
        """Says why a request does not fit beside what is reserved; ``None`` if it does."""
        if super().shortage(bound, reserved) is None:
            return None
        whole = self._whole
        parts = [
            f"--max-cost {whole.cost} (the next request may take ${rounded(bound.cost)})"
            if whole.cost
            else "",
            f"--max-total-tokens {whole.tokens:,} (it may take {bound.tokens:,})" if whole.tokens else "",
            f"--max-requests {whole.requests:,}" if whole.requests else "",
        ]
        return f"all workers together have nothing left of {', '.join(filter(None, parts))}"

    def ask(self) -> BudgetUse:
        """Returns what the next request for a lease says; what others wait for is given back from then on."""
        if self._gives_back:
            self._gives_back = False
            needed = self.spent + self.reserved + (NOTHING if self.short else self._usual)
            self._set(_least(self._ceiling, needed))
        return BudgetUse(
            ceiling=self._ceiling,
            spent=self.spent,
            reserved=self.reserved,
            wanted=self._wanted if self.short else self._usual,
            short=self.short,
        )

    def take(self, share: BudgetShare) -> None:
        """Takes what a lease says."""
        self._has_risen = self._has_risen or share.ceiling != self._ceiling
        self._set(share.ceiling)
        self._gives_back = share.scarce
        self.final = share.nothing_left

    def to_text(self) -> str:
        """Says how much of the whole budget this run has spent, for the progress bar; empty without limits."""
        return Budget(self._whole, self.spent).to_text()

    def suspend(self) -> None:
        """Lets nothing more leave until the next lease: this one has ended."""
        self.limits = _limits(self._whole, NOTHING)

    def _set(self, ceiling: Amount) -> None:
        self._ceiling = ceiling
        self.limits = _limits(self._whole, ceiling)


def _limits(whole: BudgetLimits, ceiling: Amount) -> BudgetLimits:
    return BudgetLimits(
        cost=None if whole.cost is None else ceiling.cost,
        requests=None if whole.requests is None else ceiling.requests,
        tokens=None if whole.tokens is None else ceiling.tokens,
    )


def _least(one: Amount, other: Amount) -> Amount:
    return Amount(min(one.requests, other.requests), min(one.tokens, other.tokens), min(one.cost, other.cost))
