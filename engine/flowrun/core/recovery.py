"""Recovers a run from its recorded events: its last state, and the effects that have no result. Pure."""

from collections.abc import Iterable
from typing import NamedTuple

from flowrun.core.events import ANSWERS, CallFunction, CallStarted, Effect, Event, Outcome
from flowrun.core.machine import Run, advance
from flowrun.core.state_node import Graph


class Recovered(NamedTuple):
    """A run with its open effects.

    Attributes:
        effects: the effects without a result, except those in ``in_doubt``.
        in_doubt: the calls of functions that are not idempotent that may have been made already.
    """

    run: Run
    effects: tuple[Effect, ...]
    in_doubt: tuple[CallFunction, ...]


def recover(graph: Graph, events: Iterable[Event]) -> Recovered:
    """Apply a run's events in order, and find the effects that have no result after the last one."""
    run = Run()
    open_effects: dict[int, Effect] = {}
    started: set[int] = set()
    for event in events:
        if isinstance(event, CallStarted) and event.step == run.step:
            started.add(event.index)
        before = run
        run, effects, _ = advance(graph, run, event)
        if run.step != before.step:
            open_effects.clear()
            started.clear()
        elif run is not before and isinstance(event, ANSWERS):
            open_effects.pop(_index(event), None)
        open_effects |= {_index(effect): effect for effect in effects if not isinstance(effect, Outcome)}
    if run.outcome is not None:
        return Recovered(run, (), ())
    in_doubt = {
        index: effect
        for index, effect in open_effects.items()
        if index in started and isinstance(effect, CallFunction) and not effect.idempotent
    }
    effects = tuple(effect for index, effect in open_effects.items() if index not in in_doubt)
    return Recovered(run, effects, tuple(in_doubt.values()))


def _index(place: Effect | Event) -> int:
    """Return the index of an effect in its step, or that of its event."""
    return getattr(place, "index", 0)
