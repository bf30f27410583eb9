"""Builds the transcript of a run: applies its recorded events once more, and collects the effects and moves."""

from collections.abc import Iterator, Mapping, Sequence, Set
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
    SaidMessages,
    StartChild,
    Started,
    TimedOut,
)
from flowrun.core.graph import Graph
from flowrun.core.machine import Run, advance
from flowrun.core.messages import Message
from flowrun.errors import Failure
from flowrun.spec.model import JSON, AgentState, Spec, WorkingState
from flowrun.transcript.activities import ActivityRecord, build_activity, times_of
from flowrun.transcript.model import Activity, Attention, Child, Exit, FunctionCall, Pause, Question, Transcript, Visit
from flowrun.transcript.status import totals_of, transcript_status

Histories = Mapping[str, Sequence[Recorded]]
"""The recorded events of runs, by their ids."""

NONE: Final[Histories] = MappingProxyType({})
_replace = msgspec.structs.replace


def build_transcript(
    graph: Graph, recorded: Sequence[Recorded], children: Histories = NONE, *, live: bool = False
) -> Transcript:
    """Build the transcript of a run with at least one event.

    Args:
        graph: the graph that the run started with.
        children: the recorded events of its children and their children, by their ids.
        live: a process drives the run now, so calls without a result are running, not in doubt.
    """
    builder = _TranscriptBuilder(graph, children, live)
    for entry in recorded:
        builder.add(entry)
    return builder.build(recorded)


class _OpenVisit(msgspec.Struct):
    """A visit that is still open."""

    state: str
    step: int
    attempt: int
    began: float
    ended: float | None = None
    pending: list[ActivityRecord] = []
    uncalled: list[tuple[int, FunctionCall]] = []
    sets: dict[str, JSON] = {}
    said: tuple[SaidMessages, ...] = ()
    exit: Exit | None = None


class _TranscriptBuilder:
    """Collects the visits of one run, event by event."""

    def __init__(self, graph: Graph, children: Histories, live: bool) -> None:
        self._graph = graph
        self._children = children
        self._live = live
        self._run = Run()
        self._open_visits: list[_OpenVisit] = []
        self._open: dict[int, ActivityRecord] = {}
        self._seen_counts: dict[str, int] = {}
        self._said: dict[int, Message] = {}
        self._diverged_at: int | None = None

    def add(self, entry: Recorded) -> None:
        """Apply the next event."""
        self._follow(entry)
        if entry.state != self._run.state and self._diverged_at is None:
            self._diverged_at = entry.seq

    def _follow(self, entry: Recorded) -> None:
        event, before = entry.event, self._run
        if isinstance(event, CallStarted):
            self._begin(event, entry.at)
            return
        after, effects, moves = advance(self._graph, before, event)
        if after is before:
            return  # a late or duplicate event
        self._run = after
        self._answer(event, entry.at)
        if after.results is not before.results and isinstance(self._graph.spec.states.get(before.state), AgentState):
            self._add_uncalled(before.step, entry.at)  # its turns end without a move
        self._follow_moves(moves, entry.at)
        for effect in effects:
            if not isinstance(effect, Outcome) and not getattr(effect, "cancel", False):
                self._ask(effect, entry.at)

    def _begin(self, event: CallStarted, at: float) -> None:
        pending = self._open.get(event.index)
        if pending is not None and event.step == self._run.step:
            pending.begins += 1
            pending.began = at

    def _answer(self, event: Event, at: float) -> None:
        if isinstance(event, TimedOut | Cancelled):
            return
        pending = self._open.pop(getattr(event, "index", 0), None)
        if pending is None:
            return
        pending.answer, pending.ended = event, at
        effect = pending.effect
        if isinstance(effect, AskModel):
            self._seen_counts[effect.thread] = pending.length + self._reply_was_added(effect, event, pending.length)

    def _reply_was_added(self, effect: AskModel, event: Event, count: int) -> bool:
        """Return whether a reply was added to its thread of ``count`` messages; one that was cut off is not."""
        thread = self._run.threads[effect.thread]
        if not isinstance(event, Replied) or len(thread) <= count:
            return False
        return thread[count].role == "assistant" and thread[count].content == event.reply.content

    def _ask(self, effect: Effect, at: float) -> None:
        pending = ActivityRecord(effect, at)
        if isinstance(effect, AskModel):
            self._compare(effect, pending)
        self._open[getattr(effect, "index", 0)] = pending
        self._open_visits[-1].pending.append(pending)

    def _compare(self, effect: AskModel, pending: ActivityRecord) -> None:
        """Compare a request with its thread: what is new, what only the request has, and what it leaves out."""
        thread = self._run.threads[effect.thread]
        pending.length, pending.earlier = len(thread), self._seen_counts.get(effect.thread, 0)
        new = tuple(message for message in thread[pending.earlier :] if id(message) not in self._said)
        if effect.messages is not thread:
            kept = {id(message) for message in thread}
            own = [message for message in effect.messages if id(message) not in kept]
            pending.left_out = len(thread) - (len(effect.messages) - len(own))
            if own and own[0] is effect.messages[0] and own[0].role == "system":
                pending.system = own.pop(0).content
            new += tuple(own)
        pending.messages = new

    # --- from state to state --------------------------------------------------------------------------------------

    def _follow_moves(self, moves: Sequence[Move], at: float) -> None:
        """Close the visits that the moves ended, and open those that they led to."""
        if not self._open_visits and self._run.path:
            self._open_visits.append(_OpenVisit(self._run.path[0], 1, 1, at))
        for move in moves:
            attempt = self._open_visits[-1].attempt
            self._open_visits[-1].sets = dict(move.sets)
            self._say(move.said)
            self._close(_exit_of(self._graph.spec, move), at)
            if move.how == "retry":
                self._open_visits.append(_OpenVisit(move.to, move.step + 1, attempt + 1, at))
            elif move.how != "end":
                self._open_visits.append(_OpenVisit(move.to, move.step + 1, 1, at))

    def _say(self, said: tuple[SaidMessages, ...]) -> None:
        self._open_visits[-1].said = said
        for one in said:
            self._said |= {id(message): message for message in one.messages}
            if one.replace:
                self._seen_counts.pop(one.thread, None)

    def _close(self, exit_: Exit, at: float) -> None:
        open_visit = self._open_visits[-1]
        open_visit.exit, open_visit.ended = exit_, at
        if exit_.how == "route" and self._graph.spec.states[open_visit.state].result == "results":
            self._add_uncalled(open_visit.step, at)
        self._open.clear()

    def _add_uncalled(self, step: int, at: float) -> None:
        """Add the calls of a step that no function was called for, by the last results, to the open visit."""
        open_visit = self._open_visits[-1]
        made = {
            pending.effect.call_id
            for pending in open_visit.pending
            if isinstance(pending.effect, CallFunction) and _step_of(pending) == step
        }
        open_visit.uncalled.extend((step, call) for call in self._uncalled(made, at))

    def _uncalled(self, made: Set[str | None], at: float) -> Iterator[FunctionCall]:
        """Yield the calls that were refused, with the failures that the model gets, and those without a function."""
        results, tools = self._run.results, self._graph.tools
        for index, result in enumerate(results.data() if results is not None else ()):
            error, name = result["error"], result["name"]
            if result["id"] not in made and (error is not None or tools[name].result is not None):
                yield FunctionCall(
                    index=index,
                    began=at,
                    seconds=0.0,
                    tool=name,
                    entrypoint="",
                    arguments=result["arguments"],
                    call_id=result["id"],
                    status="returned" if error is None else "refused",
                    value=result["value"],
                    failure=None if error is None else Failure(name=error["name"], message=error["message"]),
                )

    # --- the transcript -------------------------------------------------------------------------------------------

    def build(self, recorded: Sequence[Recorded]) -> Transcript:
        """Return the transcript of the events so far."""
        run, spec = self._run, self._graph.spec
        visits = tuple(map(self._visit, self._open_visits))
        activities = [activity for visit in visits for activity in visit.activities]
        transcripts = [one.transcript for one in activities if isinstance(one, Child) and one.transcript is not None]
        began = recorded[0].at
        attention = () if run.outcome is not None else tuple(self._attention(visits))
        return Transcript(
            run=run.id,
            flow=spec.name,
            version=spec.version,
            description=spec.description or "",
            status=transcript_status(run, attention, visits, live=self._live),
            began=began,
            seconds=max([recorded[-1].at, *(transcript.began + transcript.seconds for transcript in transcripts)])
            - began,
            inputs=run.inputs,
            forked_from=recorded[0].event.forked_from if isinstance(recorded[0].event, Started) else None,
            path=tuple(run.path),
            visits=visits,
            outcome=run.outcome,
            attention=attention,
            totals=totals_of(visits),
            diverged_at=self._diverged_at,
        )

    def _attention(self, visits: Sequence[Visit]) -> Iterator[Attention]:
        for visit in visits[-1:]:
            for activity in visit.activities:
                if isinstance(activity, Child) and activity.transcript is not None and activity.outcome is None:
                    yield from activity.transcript.attention
                elif (isinstance(activity, Question) and not activity.answered) or (
                    isinstance(activity, FunctionCall) and activity.status == "in_doubt"
                ):
                    yield Attention(
                        run=self._run.id, step=self._run.step, visit=visit.step, state=visit.state, about=activity
                    )

    def _visit(self, open_visit: _OpenVisit) -> Visit:
        exited = open_visit.exit is not None
        activities = [(_step_of(pending), self._activity(pending, exited)) for pending in open_visit.pending]
        activities += open_visit.uncalled
        activities.sort(key=lambda placed: (placed[0], not isinstance(placed[1], Pause), placed[1].index))
        return Visit(
            state=open_visit.state,
            type=self._graph.spec.states[open_visit.state].look,
            step=open_visit.step,
            attempt=open_visit.attempt,
            began=open_visit.began,
            seconds=None if open_visit.ended is None else open_visit.ended - open_visit.began,
            activities=tuple(activity for _, activity in activities),
            sets=open_visit.sets,
            said=open_visit.said,
            exit=open_visit.exit,
        )

    def _activity(self, pending: ActivityRecord, exited: bool) -> Activity:
        if isinstance(pending.effect, StartChild):
            return self._child(pending.effect, pending, exited)
        return build_activity(pending, exited, self._live)

    def _child(self, effect: StartChild, pending: ActivityRecord, exited: bool) -> Child:
        run = effect.child_id(self._run.id)
        recorded = self._children.get(run)
        transcript = None
        if recorded:
            transcript = build_transcript(self._graph.flows[effect.flow], recorded, self._children, live=self._live)
            if exited and transcript.outcome is None:
                transcript = _replace(transcript, status="given_up", attention=())
        return Child(
            run=run,
            flow=effect.flow,
            label=self._graph.spec.states[effect.state].child_label(effect.index),
            inputs=effect.inputs,
            outcome=pending.answer.outcome if isinstance(pending.answer, ChildEnded) else None,
            transcript=transcript,
            **times_of(pending),
        )


def _step_of(record: ActivityRecord) -> int:
    return getattr(record.effect, "step", 0)


def _exit_of(spec: Spec, move: Move) -> Exit:
    """Return how a move ended its visit, with the condition as the spec has it."""
    number, when = move.index or 0, ""
    state = spec.states[move.state]
    if move.index is not None and isinstance(state, WorkingState):
        when = (state.routes[number].when or "") if move.how == "route" else state.catch[number].label
    return Exit(how=move.how, to=move.to, number=number, when=when, failure=move.failure)
