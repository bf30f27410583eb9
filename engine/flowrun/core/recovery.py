"""Where a run stood when its last event was recorded: the run, and the effects that still have no result. Pure."""

from collections.abc import Iterable
from typing import NamedTuple

from flowrun.core.events import ANSWERS, CallFunction, CallStarted, Effect, Event, Outcome
from flowrun.core.machine import Run, advance
from flowrun.core.state_node import Graph


class Recovered(NamedTuple):
    """A run with its open effects.

    Attributes:
        effects: the effects without a result, but for those in ``doubtful``.
        doubtful: the calls that may have been made already, of functions that are not idempotent.
    """

    run: Run
    effects: tuple[Effect, ...]
    doubtful: tuple[CallFunction, ...]


def recover(graph: Graph, events: Iterable[Event]) -> Recovered:
    """Fold a run's events, and find the effects that have no result when the events end."""
    run = Run()
    open_effects: dict[int, Effect] = {}
    begun: set[int] = set()
    for event in events:
        if isinstance(event, CallStarted) and event.step == run.step:
            begun.add(event.index)
        before = run
        run, effects, _ = advance(graph, run, event)
        if run.step != before.step:
            open_effects.clear()
            begun.clear()
        elif run is not before and isinstance(event, ANSWERS):
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
    """Return the index of an effect, or of the event that answers it, among those of its step."""
    return getattr(place, "index", 0)
