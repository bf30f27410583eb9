"""From a run's recorded events to its story: the events are fed to the machine once more, and what it does is kept."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import msgspec

from flowrun.core.events import (
    AskModel,
    CallFunction,
    CallStarted,
    Cancelled,
    ChildEnded,
    Effect,
    Event,
    Move,
    Outcome,
    Recorded,
    Replied,
    StartChild,
    TimedOut,
)
from flowrun.core.graph import Graph
from flowrun.core.machine import Run, advance
from flowrun.drawing.picture import Kind
from flowrun.errors import Failure
from flowrun.spec.model import JSON, EndState, MapState, ParallelState, Spec
from flowrun.transcript.activities import PendingActivity, begin_activity, times_of
from flowrun.transcript.model import Activity, Attention, Child, Exit, FunctionCall, Pause, Question, Transcript, Visit
from flowrun.transcript.status import status_of, totals_of

Histories = Mapping[str, Sequence[Recorded]]
"""What was recorded of runs, by their ids."""

NONE: Final[Histories] = MappingProxyType({})
_replace = msgspec.structs.replace


def build_transcript(
    graph: Graph, recorded: Sequence[Recorded], children: Histories = NONE, *, live: bool = False
) -> Transcript:
    """Tell what happened in a run that has begun.

    Args:
        graph: the one that the run began with.
        children: what was recorded of its children and theirs, by their ids.
        live: a process drives it right now, so what began and has no result is under way rather than in doubt.
    """
    teller = _TranscriptBuilder(graph, children, live)
    for entry in recorded:
        teller.tell(entry)
    return teller.story(recorded)


def kind_of(spec: Spec, state: str) -> Kind:
    """Give how a state is drawn: by its type, an end by its status."""
    found = spec.states[state]
    kind: Kind = found.status if isinstance(found, EndState) else found.__struct_config__.tag  # type: ignore[assignment]
    return kind


class _OpenVisit:
    """A visit under way."""

    __slots__ = ("asked", "attempt", "began", "ended", "left", "refused", "sets", "state", "step")

    def __init__(self, state: str, step: int, attempt: int, at: float) -> None:
        self.state = state
        self.step = step
        self.attempt = attempt
        self.began = at
        self.ended: float | None = None
        self.asked: list[PendingActivity] = []
        self.refused: list[FunctionCall] = []
        self.sets: dict[str, JSON] = {}
        self.left: Exit | None = None


class _TranscriptBuilder:
    """Follows one run, event by event."""

    def __init__(self, graph: Graph, children: Histories, live: bool) -> None:
        self._graph = graph
        self._children = children
        self._live = live
        self._run = Run()
        self._stays: list[_OpenVisit] = []
        self._open: dict[int, PendingActivity] = {}
        self._heard: dict[str, int] = {}
        self._departed: int | None = None

    def tell(self, entry: Recorded) -> None:
        """Go one event further."""
        self._follow(entry)
        if entry.state != self._run.state and self._departed is None:
            self._departed = entry.seq

    def _follow(self, entry: Recorded) -> None:
        event, before = entry.event, self._run
        if isinstance(event, CallStarted):
            self._begin(event, entry.at)
            return
        after, effects, moves = advance(self._graph, before, event)
        if after is before:
            return  # a late or doubled event
        self._run = after
        self._answer(event, entry.at)
        self._follow_moves(moves, entry.at)
        for effect in effects:
            if not isinstance(effect, Outcome):
                self._ask(effect, entry.at)

    def _begin(self, event: CallStarted, at: float) -> None:
        asked = self._open.get(event.index)
        if asked is not None and event.step == self._run.step:
            asked.begins += 1
            asked.began = at

    def _answer(self, event: Event, at: float) -> None:
        if isinstance(event, TimedOut | Cancelled):
            return
        asked = self._open.pop(getattr(event, "index", 0), None)
        if asked is None:
            return
        asked.answer, asked.ended = event, at
        effect = asked.effect
        if isinstance(effect, AskModel):
            self._heard[effect.thread] = len(effect.messages) + self._spoke(effect, event)

    def _spoke(self, effect: AskModel, event: Event) -> bool:
        """Tell whether a reply went on to its thread, as one that was cut off does not."""
        thread, count = self._run.threads[effect.thread], len(effect.messages)
        if not isinstance(event, Replied) or len(thread) == count:
            return False
        return thread[count].role == "assistant" and thread[count].content == event.reply.content

    def _ask(self, effect: Effect, at: float) -> None:
        asked = PendingActivity(effect, at)
        if isinstance(effect, AskModel):
            asked.earlier = self._heard.get(effect.thread, 0)
            asked.messages = tuple(effect.messages[asked.earlier :])
        self._open[getattr(effect, "index", 0)] = asked
        self._stays[-1].asked.append(asked)

    # --- from state to state --------------------------------------------------------------------------------------

    def _follow_moves(self, moves: Sequence[Move], at: float) -> None:
        """Close the visits that the moves ended, and open those that they led to."""
        if not self._stays and self._run.path:
            self._stays.append(_OpenVisit(self._run.path[0], 1, 1, at))
        for move in moves:
            attempt = self._stays[-1].attempt
            self._stays[-1].sets = dict(move.sets)
            self._close(_exit_of(self._graph.spec, move), at)
            if move.how == "retry":
                self._stays.append(_OpenVisit(move.to, move.step + 1, attempt + 1, at))
            elif move.how != "end":
                self._stays.append(_OpenVisit(move.to, move.step + 1, 1, at))

    def _close(self, left: Exit, at: float) -> None:
        stay = self._stays[-1]
        stay.left, stay.ended = left, at
        stay.refused.extend(self._refused(stay, left, at))
        self._open.clear()

    def _refused(self, stay: _OpenVisit, left: Exit, at: float) -> Iterator[FunctionCall]:
        """Give the calls that the machine itself answered, as the model is told of them."""
        if left.how != "route" or kind_of(self._graph.spec, stay.state) != "tools":
            return
        made = {asked.effect.call_id for asked in stay.asked if isinstance(asked.effect, CallFunction)}
        results = self._run.results
        for index, result in enumerate(results.data() if results is not None else ()):
            if result["error"] is not None and result["id"] not in made:
                yield FunctionCall(
                    index=index,
                    began=at,
                    seconds=0.0,
                    tool=result["name"],
                    entrypoint="",
                    arguments=result["arguments"],
                    call_id=result["id"],
                    status="refused",
                    failure=Failure(name=result["error"]["name"], message=result["error"]["message"]),
                )

    # --- the whole ------------------------------------------------------------------------------------------------

    def story(self, recorded: Sequence[Recorded]) -> Transcript:
        """Give what was told."""
        run, spec = self._run, self._graph.spec
        visits = tuple(map(self._visit, self._stays))
        acts = [act for visit in visits for act in visit.acts]
        stories = [act.story for act in acts if isinstance(act, Child) and act.story is not None]
        began = recorded[0].at
        attention = () if run.outcome is not None else tuple(self._attention(visits))
        return Transcript(
            run=run.id,
            flow=spec.name,
            version=spec.version,
            description=spec.description or "",
            status=status_of(run, attention, visits, live=self._live),
            began=began,
            seconds=max([recorded[-1].at, *(story.began + story.seconds for story in stories)]) - began,
            inputs=run.inputs,
            path=tuple(run.path),
            visits=visits,
            outcome=run.outcome,
            attention=attention,
            totals=totals_of(visits),
            departed=self._departed,
        )

    def _attention(self, visits: Sequence[Visit]) -> Iterator[Attention]:
        for visit in visits[-1:]:
            for act in visit.acts:
                if isinstance(act, Child) and act.story is not None and act.outcome is None:
                    yield from act.story.attention
                elif (isinstance(act, Question) and not act.answered) or (
                    isinstance(act, FunctionCall) and act.status == "in_doubt"
                ):
                    yield Attention(run=self._run.id, step=visit.step, state=visit.state, about=act)

    def _visit(self, stay: _OpenVisit) -> Visit:
        acts = [*(self._act(asked, stay.left is not None) for asked in stay.asked), *stay.refused]
        return Visit(
            state=stay.state,
            type=kind_of(self._graph.spec, stay.state),
            step=stay.step,
            attempt=stay.attempt,
            began=stay.began,
            seconds=None if stay.ended is None else stay.ended - stay.began,
            acts=tuple(sorted(acts, key=lambda act: (not isinstance(act, Pause), act.index))),
            sets=stay.sets,
            left=stay.left,
        )

    def _act(self, asked: PendingActivity, left: bool) -> Activity:
        effect = asked.effect
        return (
            self._child(effect, asked, left)
            if isinstance(effect, StartChild)
            else begin_activity(asked, left, self._live)
        )

    def _child(self, effect: StartChild, asked: PendingActivity, left: bool) -> Child:
        run = f"{self._run.id}.{effect.step}.{effect.index}"  # as the runner names it
        recorded = self._children.get(run)
        story = None
        if recorded:
            story = build_transcript(self._graph.flows[effect.flow], recorded, self._children, live=self._live)
            if left and story.outcome is None:
                story = _replace(story, status="given_up", attention=())
        return Child(
            run=run,
            flow=effect.flow,
            label=_label(self._graph.spec, effect),
            inputs=effect.inputs,
            outcome=asked.answer.outcome if isinstance(asked.answer, ChildEnded) else None,
            story=story,
            **times_of(asked),
        )


def _exit_of(spec: Spec, move: Move) -> Exit:
    """Return how a move ended its visit, with the condition as the spec has it."""
    number, when = move.index or 0, ""
    state = spec.states[move.state]
    if move.index is not None and not isinstance(state, EndState):
        if move.how == "route":
            when = state.routes[number].when or ""
        else:
            when = ", ".join(state.catch[number].errors) or "any error"
    return Exit(how=move.how, to=move.to, number=number, when=when, failure=move.failure)


def _label(spec: Spec, effect: StartChild) -> str:
    """Say which of a state's children one is: a branch's name, or an item's number."""
    state = spec.states[effect.state]
    if isinstance(state, ParallelState):
        return list(state.branches)[effect.index]
    return f"item {effect.index}" if isinstance(state, MapState) else ""
