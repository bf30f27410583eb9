"""What the runs of one family have used of ``limits.tokens`` so far. Those that run at once share what is left.

The machine decides when a limit is reached. It knows what a run's own requests and its ended children have used; what
else its relatives use, while it runs, comes to it with the events ``Started`` and ``Replied``, so a run is still the
fold of its events.
"""

from typing import Final

from flowrun.core.messages import Usage
from flowrun.core.token_limits import least_limits, tokens_left
from flowrun.spec.model import TokenLimits

NO_TOKENS: Final = Usage()


class TokenBudget:
    """The tokens that a run and all runs below it have used so far.

    Args:
        above: the budget of the run's parent, if that has one.
        limits: those of the run's own flow.
        used: what the run had used before it was resumed; its budgets above do not count it yet.
    """

    __slots__ = ("_above", "_limits", "_used")

    def __init__(self, above: "TokenBudget | None", limits: TokenLimits | None, used: Usage) -> None:
        self._above = above
        self._limits = limits
        self._used = NO_TOKENS
        self.add(used)

    def add(self, used: Usage) -> None:
        """Count tokens here, and in all budgets above."""
        budget: TokenBudget | None = self
        while budget is not None:
            budget._used += used
            budget = budget._above

    def left(self) -> TokenLimits | None:
        """Return what all limits leave to a run below this one; None if there are none."""
        own = None if self._limits is None else tokens_left(self._limits, self._used)
        return least_limits(own, self.left_above())

    def left_above(self) -> TokenLimits | None:
        """Return what the limits of the runs above leave to this run; None if there are none."""
        return None if self._above is None else self._above.left()
