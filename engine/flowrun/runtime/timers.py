"""When a run that nobody drives goes on by itself, from its events. Pure."""

import math
from collections.abc import Callable, Sequence
from typing import Final

from flowrun.core.events import Cancelled, Event, Recorded, RequestInput, Sleep, StartChild
from flowrun.core.graph import Graph
from flowrun.core.recovery import Recovered, recover
from flowrun.journal.questions import closing_event

NOW: Final = -math.inf

IDLE: Final = ("waiting", "sleeping")
"""The statuses of a run whose time passes while nobody drives it."""


def due_at(
    graph: Graph,
    run_id: str,
    events_of: Callable[[str], Sequence[Recorded]],
    inbox_of: Callable[[str], Sequence[Event]],
) -> float:
    """Return when a run has something to do, in seconds since the epoch: ``NOW``, or infinity if only people do.

    The time in which a parent's state must end is not looked at: it begins anew when the run is resumed.

    Args:
        events_of: returns the recorded events of a run or of a child by its id.
        inbox_of: returns the answers and cancellations that came in for it and that it has not read.
    """
    recorded, inbox = events_of(run_id), inbox_of(run_id)
    if not recorded or any(isinstance(event, Cancelled) for event in inbox):
        return NOW
    found = recover(graph, (one.event for one in recorded), (one.at for one in recorded))
    if found.run.outcome is not None or found.in_doubt:
        return NOW
    node = graph.nodes[found.run.state]
    timeout, began = node.timeout_of(found.run), found.visited if node.of_visit else found.entered
    due = began + timeout if found.run.status in IDLE and timeout is not None else math.inf
    for effect in found.effects:
        match effect:
            case Sleep():
                due = min(due, end_of_sleep(effect, found))
            case RequestInput():
                if closing_event(inbox, effect.step, effect.index) is not None:
                    return NOW
                if effect.timeout is not None:
                    due = min(due, found.requested[effect.index] + effect.timeout)
            case StartChild():
                due = min(due, due_at(graph.flows[effect.flow], effect.child_id(run_id), events_of, inbox_of))
            case _:
                return NOW
    return due


def end_of_sleep(effect: Sleep, found: Recovered) -> float:
    """Return when a pause ends, of which the random part is not known."""
    return found.requested[0] + effect.seconds if effect.until is None else effect.until
