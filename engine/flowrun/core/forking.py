"""Selects the events with which a fork of a run begins: those before the run entered a step. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from flowrun.core.events import Event, Started
from flowrun.core.machine import Run, advance
from flowrun.core.state_node import Graph
from flowrun.spec.model import JSON


class ForkError(Exception):
    """The events of a run do not lead to a step. The message says why."""


class ForkedEvent(NamedTuple):
    """An event of the new run, and the new run after it."""

    event: Event
    run: Run


def fork_events(
    old: Graph,
    new: Graph,
    events: Iterable[Event],
    *,
    run: str,
    step: int,
    inputs: Mapping[str, JSON] | None = None,
) -> Sequence[ForkedEvent]:
    """Return the events with which a new run begins, up to the one by which the old run entered a step.

    The decisions of the two runs must be the same before that event: each event leads both to the same state and step.

    Args:
        old: the graph of the recorded run.
        new: the graph of the new run.
        events: the recorded events, oldest first.
        run: the id of the new run.
        step: the step at which the new run goes on; the states entered count from 1.
        inputs: the inputs of the new run; None: those of the old one. The defaults of the new spec are added.

    Raises:
        ForkError: the run has no such step, or the new run takes another path before it.
    """
    was = now = Run()
    forked: list[ForkedEvent] = []
    for event in events:
        before, was = was, advance(old, was, event).run
        if was is before:
            continue  # it changed nothing, such as the intent to call a function
        if isinstance(event, Started):
            given = new.spec.add_defaults(event.inputs if inputs is None else inputs)
            event = msgspec.structs.replace(event, run=run, inputs=given, forked_from=f"{event.run}/{step}")
        earlier, now = now, advance(new, now, event).run
        reached = was.step >= step > 0
        if now is earlier or (not reached and (now.state, now.step) != (was.state, was.step)):
            raise ForkError(_another_path(before, was, now))
        forked.append(ForkedEvent(event, now))
        if reached:
            return forked
    raise ForkError(f"it has no such step: its last one is {was.step}, in state {was.state!r}")


def _another_path(before: Run, was: Run, now: Run) -> str:
    where = f"after step {before.step}, state {before.state!r}" if before.step else "at the start"
    if now.outcome is not None:
        error = now.outcome.error
        what = f"it ends: {error.name}: {error.message}" if error is not None else "it ends"
    else:
        what = f"it is in step {now.step}, state {now.state!r}"
    return f"{where} the recorded run goes on to step {was.step}, state {was.state!r}, and the fork does not: {what}"
