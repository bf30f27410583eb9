"""What holds for any sequence of events whatever, in a flow that has every kind of state.

A walk answers what the run awaits, for the most part, and strays now and then. What is awaited is worked out here from
the effects and the spec, not asked of the machine.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from flowrun.core.events import (
    Answered,
    AskModel,
    CallFunction,
    CallStarted,
    Cancelled,
    ChildEnded,
    Effect,
    Event,
    Failed,
    Move,
    Outcome,
    Replied,
    RequestInput,
    Returned,
    Sleep,
    Slept,
    StartChild,
    Started,
    TimedOut,
)
from flowrun.core.machine import Run, Transition, advance, fold
from flowrun.core.messages import Log, Reply, ToolCall, Usage
from flowrun.core.recovery import recover
from flowrun.core.slots import Slots
from flowrun.errors import FAILURES, Failure
from flowrun.spec.model import WorkingState
from flowrun.templates import Lazy
from tests.flows import ADD, graph_of

EVERY_KIND = """\
inputs: {question: {type: string}}
vars: {turns: 0}
messages: [{role: user, content: "{{ inputs.question }}"}]
flows:
  child: {inputs: {item: {}}, states: {only: {type: end, output: "{{ inputs.item }}"}}}
states:
  pick:
    type: route
    set: {turns: "{{ vars.turns + 1 }}"}
    routes:
      - {when: vars.turns == 1, to: ask}
      - {when: vars.turns == 2, to: many}
      - {when: vars.turns == 3, to: both}
      - {when: vars.turns == 4, to: one}
      - {when: vars.turns == 5, to: look}
      - {to: done}
    catch: [{to: sorry}]
  ask:
    type: chat
    messages: [{role: user, content: "Turn {{ vars.turns }}."}]
    timeout: 3s
    retry: {max_attempts: 2, errors: [model.*]}
    catch: [{errors: [state.timeout, model.*], to: person}]
    routes: [{when: reply.tool_calls, to: act}, {to: pick}]
  act:
    type: tools
    on_error: raise
    timeout: 4s
    retry: {max_attempts: 2}
    catch: [{to: act_again}]
    next: pick
  act_again: {type: tools, catch: [{to: pick}], next: pick}
  look:
    type: call
    entrypoint: tools.numbers:look
    timeout: 5s
    retry: {max_attempts: 3}
    set: {seen: "{{ outputs.look + 1 }}"}
    catch: [{errors: [tool.*, template.failed], to: pick}]
    next: pick
  one: {type: flow, flow: "#child", with: {item: 7}, retry: {max_attempts: 2}, timeout: 6s, catch: [{to: look}],
    next: pick}
  many: {type: map, flow: "#child", for_each: "[5, 6, 7]", as: item, max_concurrency: 2, retry: {max_attempts: 3},
    timeout: 7s, catch: [{to: pick}], next: pick}
  both: {type: parallel, branches: {a: {flow: "#child", with: {item: 1}}, b: {flow: "#child", with: {item: 2}}},
    retry: {max_attempts: 2}, timeout: 8s, catch: [{to: person}], next: pick}
  person: {type: wait, prompt: Well?, schema: {type: boolean}, retry: {max_attempts: 2}, timeout: 9s,
    catch: [{errors: [wait.*, template.failed], to: sorry}], set: {sure: "{{ 1 // outputs.person }}"}, next: pick}
  sorry: {type: end, status: failed}
  done: {type: end, output: "{{ vars.turns }}"}
limits: {max_rounds: 4, max_steps: 17, timeout: 1m}
"""
GRAPH: Final = graph_of(ADD, EVERY_KIND)
UNTIMED: Final = graph_of(ADD, EVERY_KIND.replace(", timeout: 1m}", "}"))
KINDS: Final = {name: type(state).__name__ for name, state in GRAPH.spec.states.items()}
START: Final = Started(run="r", inputs={"question": "q"})

# --- what is awaited ----------------------------------------------------------------------------------------------

ANSWERS: Final[dict[type, tuple[type, ...]]] = {
    AskModel: (Replied, Failed),
    CallFunction: (Returned, Failed),
    StartChild: (ChildEnded,),
    RequestInput: (Answered,),
    Sleep: (Slept,),
}


def index_of(place: Effect | Event) -> int:
    return getattr(place, "index", 0)


class Open:
    """The effects of a run's step that have no answer yet, by index."""

    def __init__(self) -> None:
        self.run = Run()
        self.effects: dict[int, Effect] = {}

    def awaits(self, event: Event) -> bool:
        run = self.run
        if run.status == "new":
            return isinstance(event, Started)
        if run.outcome is not None or isinstance(event, (Started, CallStarted)):
            return False
        if isinstance(event, Cancelled):
            return True
        if isinstance(event, TimedOut):
            state = GRAPH.spec.states[run.state]
            of_state = isinstance(state, WorkingState) and state.timeout is not None
            return event.step == 0 or (event.step == run.step and of_state)
        effect = self.effects.get(index_of(event))
        return (
            effect is not None
            and event.step == run.step
            and isinstance(event, ANSWERS[type(effect)])
            and (not isinstance(event, Answered) or isinstance(event.value, bool))
        )

    def follow(self, event: Event, transition: Transition) -> None:
        if transition.run.step != self.run.step:
            self.effects = {}
        elif self.awaits(event):
            self.effects.pop(index_of(event), None)
        self.run = transition.run
        self.effects |= {index_of(effect): effect for effect in transition.effects if not isinstance(effect, Outcome)}


# --- walks --------------------------------------------------------------------------------------------------------


def calls(*arguments: str, name: str = "add") -> Reply:
    usage = Usage(prompt_tokens=2, completion_tokens=1)
    return Reply(tool_calls=tuple(ToolCall(id="x", name=name, arguments=text) for text in arguments), usage=usage)


SUM: Final = '{"a": 1, "b": 2}'
REPLIES: Final = (
    *(calls(SUM), calls(SUM, SUM, SUM), calls(SUM, "{"), calls(SUM, name="other")),
    Reply(content="Well.", usage=Usage(prompt_tokens=3)),
    *(Reply(content="Wel", finish_reason="length"), Reply(), Reply(content="x", invalid_call="broken")),
)
VALUES: Final = (1, 2, True, 0, False, None, "é", [1, [2]], {"a": {"b": None}})
FAILED: Final = tuple(Failure(name=name, message="no") for name in ("tool.failed", "model.truncated", *FAILURES))
OUTCOMES: Final = (
    *(Outcome(status="succeeded", output=value) for value in VALUES * 4),
    *(Outcome(status="failed", error=failure) for failure in FAILED[:6]),
    *(Outcome(status="failed", error=FAILED[-1]), Outcome(status="cancelled")),
)


def answer(draw: st.DrawFn, kind: type, step: int, index: int) -> Event:
    """Draw an answer of a kind to an effect."""
    if kind is Replied:
        return Replied(step=step, reply=draw(st.sampled_from(REPLIES)))
    if kind is Returned:
        return Returned(step=step, index=index, value=draw(st.sampled_from(VALUES)))
    if kind is Failed:
        return Failed(step=step, index=index, failure=draw(st.sampled_from(FAILED)))
    if kind is ChildEnded:
        outcome, spent = draw(st.sampled_from(OUTCOMES)), draw(st.integers(0, 3))
        usage = Usage(prompt_tokens=spent)
        return ChildEnded(step=step, index=index, outcome=outcome, rounds=spent // 2, steps=spent, usage=usage)
    if kind is Answered:
        return Answered(step=step, value=draw(st.sampled_from(VALUES)))
    return Slept(step=step)


def stray(draw: st.DrawFn, step: int) -> Event:
    """Draw an event of any kind and place, such as a late one."""
    kind = draw(
        st.sampled_from([Replied, Returned, Failed, ChildEnded, Answered, Slept, TimedOut, CallStarted, Started])
    )
    near, index = max(0, step - draw(st.integers(-1, 2))), draw(st.integers(0, 3))
    if kind is TimedOut:
        return TimedOut(step=near)
    if kind is CallStarted:
        return CallStarted(step=near, index=index)
    return START if kind is Started else answer(draw, kind, near, index)


class Stride(NamedTuple):
    """An event of a walk, and others that could have come instead."""

    event: Event
    others: tuple[Event, ...]


def next_event(draw: st.DrawFn, awaited: Open) -> Event:
    """Draw an answer to an effect of the run, a timer, the wish to end it, or a stray."""
    step, roll = awaited.run.step, draw(st.integers(0, 59))
    if roll == 59:
        return Cancelled(reason="no") if draw(st.booleans()) else TimedOut()
    if roll > 56:
        return TimedOut(step=step)
    if roll > 50 or not awaited.effects:
        return stray(draw, step)
    index = draw(st.sampled_from(sorted(awaited.effects)))
    good, *bad = ANSWERS[type(awaited.effects[index])]
    return answer(draw, draw(st.sampled_from([good, good, good, *bad])), step, index)


@st.composite
def walks(draw: st.DrawFn) -> list[Stride]:
    strides: list[Stride] = [Stride(START, ())]
    awaited = Open()
    awaited.follow(START, advance(GRAPH, awaited.run, START))
    for _ in range(draw(st.integers(0, 40))):
        others = tuple(next_event(draw, awaited) for _ in range(draw(st.integers(0, 1))))
        event = next_event(draw, awaited)
        strides.append(Stride(event, others))
        awaited.follow(event, advance(GRAPH, awaited.run, event))
    return strides


def events_of(walk: Sequence[Stride]) -> list[Event]:
    return [stride.event for stride in walk]


def plain(value: Any) -> Any:
    """Return a value of a run as data of its own, which no later change of shared storage can reach."""
    if isinstance(value, Lazy):
        return plain(value.data())
    if isinstance(value, (Log, Slots, list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def snapshot(run: Run) -> dict[str, Any]:
    return {name: plain(getattr(run, name)) for name in Run.__struct_fields__}


def transitions(events: Sequence[Event]) -> list[Transition]:
    made = [Transition(Run())]
    for event in events:
        made.append(advance(GRAPH, made[-1].run, event))
    return made[1:]


walking = settings(
    deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

# --- properties ---------------------------------------------------------------------------------------------------


def test_walks_come_everywhere() -> None:
    seen: set[str] = set()

    @given(walks())
    @settings(walking, derandomize=True, database=None, max_examples=300, phases=[Phase.generate])
    def walk_about(walk: list[Stride]) -> None:
        made = transitions(events_of(walk))
        run = made[-1].run
        seen.update(KINDS[name] for name in run.path)
        seen.update(move.how for transition in made for move in transition.moves)
        seen.update({run.status, run.outcome.error.name if run.outcome and run.outcome.error else ""})

    walk_about()
    names = {"limit.steps", "limit.timeout", "run.cancelled", "flow.failed"}
    expected = {
        *KINDS.values(),
        "route",
        "catch",
        "retry",
        "end",
        "waiting",
        "succeeded",
        "failed",
        "cancelled",
        *names,
    }
    assert expected - seen == set()


@given(walks())
@walking
def test_a_run_is_always_in_a_declared_state(walk: list[Stride]) -> None:
    rounds = 0
    for run, effects, _ in transitions(events_of(walk)):
        assert run.state in GRAPH.nodes
        assert (run.outcome is not None) == (run.status not in ("running", "waiting"))
        assert all(getattr(effect, "step", run.step) == run.step for effect in effects)
        assert run.outcome is None or run.outcome.error is None or run.outcome.error.name in FAILURES
        rounds += sum(isinstance(effect, AskModel) for effect in effects)
    assert rounds <= GRAPH.limits.max_rounds


@given(walks())
@walking
def test_what_is_not_awaited_changes_nothing_and_what_is_does(walk: list[Stride]) -> None:
    awaited = Open()
    for stride in walk:
        for event in (*stride.others, stride.event):
            before = awaited.run
            transition = advance(GRAPH, before, event)
            if awaited.awaits(event):
                assert transition.run is not before
            else:
                assert transition.run is before
                assert transition == (before, (), ())
        awaited.follow(stride.event, transition)


@given(walks())
@walking
def test_no_timer_of_the_run_is_taken_where_none_is_declared(walk: list[Stride]) -> None:
    run = Run()
    for event in events_of(walk):
        if isinstance(event, TimedOut) and event.step == 0:
            assert advance(UNTIMED, run, event) == (run, (), ())
        run = advance(UNTIMED, run, event).run


@given(walks())
@walking
def test_what_could_have_come_instead_leaves_no_trace(walk: list[Stride]) -> None:
    """A run's storage is shared with those that other events would have made of it or of an earlier one."""
    alone = [snapshot(transition.run) for transition in transitions(events_of(walk))]
    made = [Transition(Run())]
    for stride in walk:
        for event in stride.others:
            advance(GRAPH, made[-1].run, event)
        made.append(advance(GRAPH, made[-1].run, stride.event))
        for event in stride.others:
            advance(GRAPH, made[-2].run, event)
    assert [snapshot(transition.run) for transition in made[1:]] == alone
    for (before, _, _), after, stride in reversed(list(zip(made, made[1:], walk, strict=False))):
        again = advance(GRAPH, before, stride.event)
        assert (snapshot(again.run), again.effects, again.moves) == (
            snapshot(after.run),
            after.effects,
            after.moves,
        )
    assert [snapshot(transition.run) for transition in made[1:]] == alone


@given(walks(), st.integers(0, 40))
@walking
def test_a_run_is_recovered_from_what_is_stored_of_its_events(walk: list[Stride], cut: int) -> None:
    """The events of a journal were written as JSON and read again; a resumed run is as one never interrupted."""
    events = events_of(walk)
    kept = [msgspec.json.decode(msgspec.json.encode(event), type=Event) for event in events]
    awaited = Open()
    for event in events[:cut]:
        awaited.follow(event, advance(GRAPH, awaited.run, event))
    found = recover(GRAPH, kept[:cut])
    assert snapshot(found.run) == snapshot(awaited.run)
    if found.run.outcome is None:
        assert {index_of(e): e for e in (*found.effects, *found.in_doubt)} == awaited.effects
    run = found.run
    for event in kept[cut:]:
        run = advance(GRAPH, run, event).run
    assert snapshot(run) == snapshot(fold(GRAPH, events).run)


@given(walks())
@walking
def test_moves_lead_from_the_start_to_where_the_run_is(walk: list[Stride]) -> None:
    made = transitions(events_of(walk))
    run = made[-1].run
    moves = [move for transition in made for move in transition.moves]
    path, step, values = [GRAPH.start], 1, {"turns": 0}
    last: Move | None = None
    for last in moves:
        assert (last.state, last.step) == (path[-1], step)
        values |= last.sets
        if last.how != "end":
            step += 1
        if last.how in ("route", "catch"):
            path.append(last.to)
    assert (list(run.path), run.state, run.step, run.vars) == (path, path[-1], step, values)
    assert [move.how for move in moves].count("end") == (run.outcome is not None)
    assert (run.outcome is None) or (last is not None and last.failure == run.outcome.error)


@given(walks())
@walking
def test_effects_of_a_step_have_distinct_places(walk: list[Stride]) -> None:
    places = [
        (effect.step, index_of(effect))
        for transition in transitions(events_of(walk))
        for effect in transition.effects
        if not isinstance(effect, (Outcome, Sleep))
    ]
    assert len(set(places)) == len(places)


@given(walks())
@walking
def test_steps_are_within_the_limit(walk: list[Stride]) -> None:
    before = Run()
    for run, _, _ in transitions(events_of(walk)):
        assert run.step <= GRAPH.limits.max_steps
        if run.step > before.step:
            assert run.step + run.child_steps <= GRAPH.limits.max_steps
        before = run


@given(walks())
@walking
def test_nothing_happens_before_the_start(walk: list[Stride]) -> None:
    events = [event for event in events_of(walk) if not isinstance(event, Started)]
    assert fold(GRAPH, events) == (Run(), (), ())
