"""Performs the effects of the machine: one asyncio task per run, many runs on the same backends. Decides nothing."""

from collections.abc import Coroutine, Mapping
from typing import Any

import msgspec

from flowrun.core.events import Cancelled, Event, Started
from flowrun.core.graph import Graph
from flowrun.runtime.run_driver import RunDriver
from flowrun.runtime.run_result import AssumeDone, CallAgain, Resolve, RunResult
from flowrun.runtime.services import Services
from flowrun.spec.model import JSON


class Runner(Services, frozen=True, kw_only=True):
    """Runs flows with these ports; see ``Services`` for its fields."""

    def using(self, **changes: Any) -> "Runner":
        """Return a runner with other ``Services``, which otherwise shares those of this one."""
        return msgspec.structs.replace(self, **changes)

    def run(
        self, graph: Graph, inputs: Mapping[str, JSON], *, run_id: str, seed: int | None = None
    ) -> Coroutine[Any, Any, RunResult]:
        """Run a flow until it ends, or until it cannot continue without an answer.

        Args:
            inputs: the inputs of the caller; the spec's defaults are added.
            seed: what the seeds of its requests are made of.

        Cancelling the awaiting task cancels the run's effects and nothing else.
        """
        # no coroutine of its own: each holds a quarter of a kilobyte for as long as a run waits
        given = graph.spec.add_defaults(inputs)
        start = Started(run=run_id, inputs=given, seed=seed, keeps_tokens=self.keeps_tokens)
        return RunDriver(self, graph, None).drive(start)

    def resume(self, graph: Graph, run_id: str, *, then: Cancelled | None = None) -> Coroutine[Any, Any, RunResult]:
        """Resume a run of the journal after its last event, and continue as ``run`` does.

        No effect is repeated whose event is in the journal. A call that was started and has no result stops the run,
        and is in the result's ``in_doubt``, unless ``resolve`` resolves it or its function is idempotent.

        Args:
            then: applied to the run before anything else.
        """
        return RunDriver(self, graph, None).recover(run_id, then)

    def deliver(self, run_id: str, event: Event) -> bool:
        """Interrupt a run in progress with an event; return whether the run is in progress."""
        driver = self.drivers.get(run_id)
        if driver is not None:
            driver.interrupt(event)
        return driver is not None


__all__ = ["AssumeDone", "CallAgain", "Resolve", "RunResult", "Runner"]
