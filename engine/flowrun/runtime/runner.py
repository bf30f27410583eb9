"""Performs the effects of the machine: one asyncio task per run, many runs on the same backends. Decides nothing."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from copy import copy
from typing import Any

import msgspec

from flowrun.core.events import Cancelled, Event, Started
from flowrun.core.graph import Graph
from flowrun.core.ports import Functions, HumanInput, Journal, ModelBackend, Observer
from flowrun.runtime.run_driver import RunDriver, add_defaults, child_id
from flowrun.runtime.run_result import AssumeDone, CallAgain, Resolve, RunResult
from flowrun.runtime.services import Services
from flowrun.spec.model import JSON


class Runner:
    """Runs flows."""

    def __init__(
        self,
        *,
        backends: Mapping[str, ModelBackend],
        functions: Functions,
        human_input: HumanInput | None = None,
        journal: Journal | None = None,
        observers: Sequence[Observer] = (),
        resolve: Resolve | None = None,
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Bind runs to the ports that they use; see ``Services`` for the arguments."""
        self._services = Services(
            backends=backends,
            functions=functions,
            human_input=human_input,
            journal=journal,
            observers=observers,
            resolve=resolve,
            sleep=sleep,
            chance=chance,
            now=now,
        )

    def using(self, **changes: Any) -> "Runner":
        """Return a runner with other ``Services``, which otherwise shares those of this one."""
        other = copy(self)
        other._services = msgspec.structs.replace(self._services, **changes)
        return other

    @property
    def observers(self) -> Sequence[Observer]:
        """Return the observers of the runs."""
        return self._services.observers

    def run(self, graph: Graph, inputs: Mapping[str, JSON], *, run_id: str) -> Coroutine[Any, Any, RunResult]:
        """Run a flow until it ends, or until it cannot continue without an answer.

        Args:
            inputs: the inputs of the caller; the spec's defaults are added.

        Cancelling the awaiting task cancels the run's effects and nothing else.
        """
        # no coroutine of its own: each holds a quarter of a kilobyte for as long as a run waits
        start = Started(run=run_id, inputs=add_defaults(graph.spec, inputs))
        return RunDriver(self._services, graph, None).drive(start)

    def resume(self, graph: Graph, run_id: str, *, then: Cancelled | None = None) -> Coroutine[Any, Any, RunResult]:
        """Resume a run of the journal after its last event, and continue as ``run`` does.

        No effect is repeated whose event is in the journal. A call that was started and has no result stops the run,
        and is in the result's ``in_doubt``, unless ``resolve`` resolves it or its function is idempotent.

        Args:
            then: applied to the run before anything else.
        """
        return RunDriver(self._services, graph, None).recover(run_id, then)

    def is_in_progress(self, run_id: str) -> bool:
        """Return whether a run is in progress in this process."""
        return run_id in self._services.drivers

    def deliver(self, run_id: str, event: Event) -> bool:
        """Interrupt a run in progress with an event; return whether the run is in progress."""
        driver = self._services.drivers.get(run_id)
        if driver is not None:
            driver.interrupt(event)
        return driver is not None


__all__ = ["AssumeDone", "CallAgain", "Resolve", "RunResult", "Runner", "add_defaults", "child_id"]
