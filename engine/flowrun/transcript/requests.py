"""What models were asked in a run and its sub-flows, rebuilt from its recorded events. Pure."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from flowrun.core.events import AskModel, Recorded, Replied, StartChild, Started
from flowrun.core.graph import Graph
from flowrun.core.machine import Run, advance
from flowrun.core.messages import Reply
from flowrun.transcript.build import NONE, Histories


class Asked(NamedTuple):
    """A request to a model, with its reply; None if it failed, or has none yet.

    ``keeps_tokens``: the run keeps the tokens of its replies for training.
    """

    request: AskModel
    reply: Reply | None
    keeps_tokens: bool = False


def requests_of(graph: Graph, recorded: Sequence[Recorded], children: Histories = NONE) -> Iterator[Asked]:
    """Yield the requests of a run in their order, and those of each sub-flow when it starts.

    Args:
        graph: the graph that the run started with.
        children: the recorded events of its children and their children, by their ids.
    """
    replies = {entry.event.step: entry.event.reply for entry in recorded if isinstance(entry.event, Replied)}
    kept = any(isinstance(entry.event, Started) and entry.event.keeps_tokens for entry in recorded)
    run = Run()
    for entry in recorded:
        run, effects, _ = advance(graph, run, entry.event)
        for effect in effects:
            if isinstance(effect, AskModel):
                yield Asked(effect, replies.get(effect.step), kept)
            elif isinstance(effect, StartChild) and not effect.cancel:
                own = children.get(effect.child_id(run.id), ())
                for asked in requests_of(graph.flows[effect.flow], own, children):
                    yield asked._replace(keeps_tokens=kept or asked.keeps_tokens)
