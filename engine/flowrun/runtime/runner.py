"""Performs what the machine asks for: one asyncio task a run, many runs on the same backends. Decides nothing."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

from flowrun.core.events import Cancelled, Event, Started
from flowrun.core.graph import Graph
from flowrun.core.ports import Functions, HumanInput, Journal, ModelBackend, Observer
from flowrun.runtime.result import AssumeDone, CallAgain, Resolve, Result
from flowrun.runtime.run_driver import RunDriver, child_id, with_defaults
from flowrun.spec.model import JSON


class Runner:
    """Runs flows. ``backends`` are started ones, by the names that the spec gives its models.

    ``decide`` says what became of a call that may have been made before a crash. Time and chance come from ``sleep``
    (seconds), ``now`` (since the epoch) and ``chance`` (0 to 1), so that tests can hold them still.
    """

    def __init__(
        self,
        *,
        backends: Mapping[str, ModelBackend],
        functions: Functions,
        people: HumanInput | None = None,
        journal: Journal | None = None,
        observers: Sequence[Observer] = (),
        decide: Resolve | None = None,
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.backends = backends
        self.functions = functions
        self.people = people
        self.journal = journal
        self.observers = observers
        self.decide = decide
        self.drives: dict[str, RunDriver] = {}
        self.sleep = sleep
        self.chance = chance
        self.now = now

    def run(self, graph: Graph, inputs: Mapping[str, JSON], *, run_id: str) -> Coroutine[Any, Any, "Result"]:
        """Run a flow until it ends, or until nothing can go on before somebody answers.

        Args:
            inputs: those that the caller gives; the spec's defaults stand in for the others.

        Cancelling the awaiting task ends the run's effects and nothing else.
        """
        # no coroutine of its own: each holds a quarter of a kilobyte for as long as a run waits
        return RunDriver(self, graph, None).go(Started(run=run_id, inputs=with_defaults(graph.spec, inputs)))

    def resume(self, graph: Graph, run_id: str, *, then: Cancelled | None = None) -> Coroutine[Any, Any, "Result"]:
        """Take up a run of the journal where it stood, and go on as ``run`` does; ``then`` happens to it first.

        What was written down is not done again. A call that was begun and has no result stops the run, and is in the
        result's ``doubtful``, unless ``decide`` knows what became of it or its function is idempotent.
        """
        return RunDriver(self, graph, None).recover(run_id, then)

    def deliver(self, run_id: str, event: Event) -> bool:
        """Let something happen to a run that is under way; False if it is not. Only for runs with a journal."""
        drive = self.drives.get(run_id)
        if drive is not None:
            drive.interrupt(event)
        return drive is not None


__all__ = ["AssumeDone", "CallAgain", "Resolve", "Result", "Runner", "child_id", "with_defaults"]
