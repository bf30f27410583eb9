"""Where a run stood when its last event was written down: the run, and what it still wants done. Pure."""

from collections.abc import Iterable
from typing import NamedTuple

from flowrun.core.events import (
    Answered,
    CallFunction,
    CallStarted,
    ChildEnded,
    Effect,
    Event,
    Failed,
    Outcome,
    Replied,
    Returned,
    Slept,
)
from flowrun.core.graph import Graph
from flowrun.core.machine import Run, advance

_ANSWERS = (Replied, Returned, Failed, ChildEnded, Answered, Slept)


class Recovered(NamedTuple):
    """A run, the effects that no event answered yet, and those calls among them that may have been made.

    A call that may have been made is in ``doubtful``, and not in ``effects``, unless its function is idempotent.
    """

    run: Run
    effects: tuple[Effect, ...]
    doubtful: tuple[CallFunction, ...]


def recover(graph: Graph, events: Iterable[Event]) -> Recovered:
    """Fold a run's events, and find what was under way when they end."""
    run = Run()
    open_effects: dict[int, Effect] = {}
    begun: set[int] = set()
    for event in events:
        if isinstance(event, CallStarted) and event.step == run.step:
            begun.add(event.index)
        before = run
        run, effects = advance(graph, run, event)
        if run.step != before.step:
            open_effects.clear()
            begun.clear()
        elif run is not before and isinstance(event, _ANSWERS):
            open_effects.pop(_index(event), None)
        open_effects |= {_index(effect): effect for effect in effects if not isinstance(effect, Outcome)}
    if run.outcome is not None:
        return Recovered(run, (), ())
    doubtful = {
        index: effect
        for index, effect in open_effects.items()
        if index in begun and isinstance(effect, CallFunction) and not effect.idempotent
    }
    effects = tuple(effect for index, effect in open_effects.items() if index not in doubtful)
    return Recovered(run, effects, tuple(doubtful.values()))


def _index(place: Effect | Event) -> int:
    """Give the place of an effect, or of the event that answers it, among those of its step."""
    return getattr(place, "index", 0)
