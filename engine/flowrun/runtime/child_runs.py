"""The runs of sub-flows that a run has started, and how they end with it, or before it."""

from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from flowrun.core.events import Cancelled, ChildEnded, Event, Outcome, StartChild, Started
from flowrun.core.machine import Run
from flowrun.errors import Failure
from flowrun.runtime.run_result import RunResult
from flowrun.runtime.services import Services
from flowrun.runtime.token_budget import TokenBudget
from flowrun.spec.model import JSON, Spec

SUPERSEDED = Cancelled(reason="another branch was first")
"""The event that ends the other branches of a race."""


class ChildDriver(Protocol):
    """A child run. ``idle``: nobody drives it now; it has ended, or waits for what ``drive`` is given."""

    run: Run
    idle: bool

    async def recover(self, run_id: str, then: Event | None) -> RunResult:
        """Resume the run after the last event in its journal."""

    async def drive(self, first: Event | None) -> RunResult:
        """Drive the run until it has ended or waits."""

    def interrupt(self, event: Event) -> None:
        """Apply an event now."""


class ChildRuns:
    """The children of a run's step, by the index of the effects that started them, until they have ended.

    Args:
        run_id: returns the id of their parent.
        make: makes the driver of a child of the flow to which a spec refers by this name.
        spec_of: returns the spec of this flow.
        budget: that of their parent, if its tokens are limited.
    """

    __slots__ = ("_budget", "_children", "_make", "_run_id", "_services", "_spec_of")

    def __init__(
        self,
        services: Services,
        run_id: Callable[[], str],
        make: Callable[[str], ChildDriver],
        spec_of: Callable[[str], Spec],
        budget: TokenBudget | None = None,
    ) -> None:
        self._services = services
        self._run_id = run_id
        self._make = make
        self._spec_of = spec_of
        self._budget = budget
        self._children: dict[int, tuple[StartChild, ChildDriver]] = {}

    async def start(self, effect: StartChild, *, resumed: bool) -> RunResult:
        """Drive a child until it has ended or waits.

        Args:
            resumed: its parent was resumed in this step, so it may have been begun.
        """
        child = self._make(effect.flow)
        self._children[effect.index] = effect, child
        name = effect.child_id(self._run_id())
        if resumed and await self._is_recorded(name):
            result = await child.recover(name, None)
        else:
            inputs: dict[str, JSON] = self._spec_of(effect.flow).add_defaults(effect.inputs)
            start = Started(
                run=name,
                inputs=inputs,
                max_rounds=effect.max_rounds,
                max_steps=effect.max_steps,
                max_tool_calls=effect.max_tool_calls,
                token_limits=effect.token_limits if self._budget is None else self._budget.left(),
                seed=effect.seed,
            )
            result = await child.drive(start)
        if result.run.outcome is not None:
            self._children.pop(effect.index, None)
        return result

    def interrupt(self, effect: StartChild) -> bool:
        """Cancel the child of an effect if it is in progress: the effect that started it then returns its end."""
        _, child = self._children.get(effect.index, (effect, None))
        if child is None or child.idle:
            return False
        child.interrupt(SUPERSEDED)
        return True

    async def cancel(self, effect: StartChild) -> ChildEnded | None:
        """Cancel the child of an effect that is not in progress, and return its end."""
        _, child = self._children.get(effect.index, (effect, None))
        run = await self._cancelled(effect, child, SUPERSEDED)
        self._children.pop(effect.index, None)
        return child_ended(effect, run)

    async def cancel_all(self, effects: Iterable[StartChild], event: Cancelled) -> Cancelled:
        """Cancel children that nobody drives, before their parent is; return the event with what they have used.

        Args:
            effects: those that started them.
        """
        used = event
        for effect in effects:
            _, child = self._children.pop(effect.index, (effect, None))
            run = await self._cancelled(effect, child, Cancelled(reason=event.reason))
            used = msgspec.structs.replace(
                used,
                rounds=used.rounds + run.rounds,
                steps=used.steps + run.step + run.child_steps,
                tool_calls=used.tool_calls + run.tool_calls,
                usage=used.usage + run.usage,
            )
        return used

    def take(self) -> list[tuple[StartChild, ChildDriver]]:
        """Return the children that have not ended, and forget them."""
        children, self._children = self._children, {}
        return list(children.values())

    def keep(self, children: Iterable[tuple[StartChild, ChildDriver]]) -> None:
        """Know children again."""
        self._children = {effect.index: (effect, child) for effect, child in children}

    async def _cancelled(self, effect: StartChild, child: ChildDriver | None, event: Cancelled) -> Run:
        """Return the run of a child after its cancellation; one that was never begun has used nothing."""
        name = effect.child_id(self._run_id())
        if child is not None and child.run.id:
            return (await child.drive(event)).run
        if await self._is_recorded(name):
            return (await self._make(effect.flow).recover(name, event)).run
        error = Failure(name="run.cancelled", message=event.reason)
        return Run(id=name, status="cancelled", outcome=Outcome(status="cancelled", error=error))

    async def _is_recorded(self, name: str) -> bool:
        journal = self._services.journal
        return journal is not None and bool(await journal.events(name))


def child_ended(effect: StartChild, run: Run) -> ChildEnded | None:
    """Return the end of a child for its parent; None if it has not ended."""
    if run.outcome is None:
        return None
    return ChildEnded(
        step=effect.step,
        index=effect.index,
        outcome=run.outcome,
        rounds=run.rounds,
        steps=run.step + run.child_steps,
        tool_calls=run.tool_calls,
        usage=run.usage,
        replies=tuple(run.replies),
    )
