"""Recovers a run from its recorded events: its last state, and the effects that have no result. Pure."""

from collections.abc import Iterable, Mapping
from itertools import repeat
from typing import NamedTuple

from flowrun.core.events import ANSWERS, CallFunction, CallStarted, Effect, Event, Outcome
from flowrun.core.machine import Run, advance
from flowrun.core.state_node import Graph


class Recovered(NamedTuple):
    """A run with its open effects.

    Attributes:
        effects: the effects without a result, except those in ``in_doubt``.
        in_doubt: the calls of functions that are not idempotent that may have been made already.
        entered: when the event was written with which the run entered its step.
        visited: when the event was written with which it entered its state, which may take several steps.
        requested: by index, when the event was written that requested the open effect: its time limit counts from then.
    """

    run: Run
    effects: tuple[Effect, ...]
    in_doubt: tuple[CallFunction, ...]
    entered: float = 0.0
    visited: float = 0.0
    requested: Mapping[int, float] = {}


def recover(graph: Graph, events: Iterable[Event], times: Iterable[float] = repeat(0.0)) -> Recovered:
    """Apply a run's events in order, and find the effects that have no result after the last one.

    Args:
        times: when each event was written, in seconds since the epoch.
    """
    run = Run()
    entered = visited = 0.0
    open_effects: dict[int, Effect] = {}
    requested: dict[int, float] = {}
    started: set[int] = set()
    for event, at in zip(events, times, strict=False):
        if isinstance(event, CallStarted) and event.step == run.step:
            started.add(event.index)
        before = run
        run, effects, _ = advance(graph, run, event)
        if run.step != before.step:
            entered = at
            visited = visited if len(run.path) == len(before.path) else at
            open_effects.clear()
            started.clear()
        elif run is not before and isinstance(event, ANSWERS):
            open_effects.pop(_index(event), None)
        new = {_index(effect): effect for effect in effects if not isinstance(effect, Outcome)}
        open_effects |= new
        requested |= dict.fromkeys(new, at)
    if run.outcome is not None:
        return Recovered(run, (), ())
    in_doubt = {
        index: effect
        for index, effect in open_effects.items()
        if index in started and isinstance(effect, CallFunction) and not effect.idempotent
    }
    effects = tuple(effect for index, effect in open_effects.items() if index not in in_doubt)
    return Recovered(
        run, effects, tuple(in_doubt.values()), entered, visited, {index: requested[index] for index in open_effects}
    )


def _index(place: Effect | Event) -> int:
    """Return the index of an effect in its step, or that of its event."""
    return getattr(place, "index", 0)
