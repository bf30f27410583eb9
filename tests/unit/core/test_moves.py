"""How the visit of a state ends: the moves of a transition as whole values, and what of the visit stays."""

import pytest

from flowrun.core.events import (
    Answer,
    Answered,
    CallFunction,
    Cancelled,
    ChildEnded,
    Effect,
    Event,
    Failed,
    Move,
    Outcome,
    Replied,
    Returned,
    Sleep,
    Slept,
    Started,
    TimedOut,
)
from flowrun.core.machine import Run, advance, fold
from flowrun.core.messages import Reply, ToolCall
from flowrun.core.views import LazyError
from flowrun.errors import Failure
from tests.flows import ADD, graph_of

BEGIN = Started(run="r", inputs={})
NO = Failure(name="tool.failed", message="no")
FAILED = Failed(step=1, failure=NO)
IN_GO = Failure(name="tool.failed", message="no", state="go")

GO = """\
vars: {n: 1}
states:
  go:
    type: call
    entrypoint: "tools.a:f"
    retry: {max_attempts: 2, errors: [tool.timeout, model.*], delay: 3s, jitter: 0.5}
    catch: [{errors: [tool.unknown, model.*], to: other}, {errors: [tool.*], to: pick}]
    set: {n: "{{ outputs.go }}", twice: "{{ vars.n * 2 }}"}
    routes: [{when: vars.n == 5, to: other}, {when: vars.n == 7, to: pick}, {when: vars.n == 9, to: done}]
  pick: {type: route, set: {picked: true}, next: pause}
  pause: {type: wait, prompt: Well?, next: done}
  other: {type: call, entrypoint: "tools.a:g", next: done}
  done: {type: end, output: "{{ vars }}"}
"""


def error(name: str, message: str, state: str = "go") -> Failure:
    return Failure(name=name, message=message, state=state)


TIMEOUT = error("tool.timeout", "slow")
UNMATCHED = error("route.unmatched", "no route of state 'go' matched: give it a last route without when")


def go_moves(how: str, **fields: object) -> Move:
    return Move(state="go", step=1, how=how, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("event", "moves"),
    [
        pytest.param(
            Returned(step=1, value=5),
            (go_moves("route", to="other", index=0, sets={"n": 5, "twice": 10}),),
            id="the first route",
        ),
        pytest.param(
            Returned(step=1, value=7),
            (
                go_moves("route", to="pick", index=1, sets={"n": 7, "twice": 14}),
                Move(state="pick", step=2, how="route", to="pause", index=0, sets={"picked": True}),
            ),
            id="the second route, to a state that is left at once",
        ),
        pytest.param(
            Returned(step=1, value=9),
            (
                go_moves("route", to="done", index=2, sets={"n": 9, "twice": 18}),
                Move(state="done", step=2, how="end"),
            ),
            id="the last route, to the end",
        ),
        pytest.param(Returned(step=1, value=6), (go_moves("end", failure=UNMATCHED),), id="no route"),
        pytest.param(
            FAILED,
            (
                go_moves("catch", to="pick", index=1, failure=IN_GO),
                Move(state="pick", step=2, how="route", to="pause", index=0, sets={"picked": True}),
            ),
            id="the second catch",
        ),
        pytest.param(
            Failed(step=1, failure=Failure(name="tool.unknown", message="odd")),
            (go_moves("catch", to="other", index=0, failure=error("tool.unknown", "odd")),),
            id="the first catch",
        ),
        pytest.param(
            Failed(step=1, failure=Failure(name="tool.timeout", message="slow")),
            (go_moves("retry", to="go", failure=TIMEOUT),),
            id="another attempt",
        ),
        pytest.param(
            Failed(step=1, failure=Failure(name="backend.unavailable", message="gone")),
            (go_moves("end", failure=error("backend.unavailable", "gone")),),
            id="a failure that nothing names",
        ),
        pytest.param(
            Cancelled(reason="stop"), (go_moves("end", failure=error("run.cancelled", "stop")),), id="cancelled"
        ),
    ],
)
def test_how_a_state_is_left(event: Event, moves: tuple[Move, ...]) -> None:
    graph = graph_of(GO)
    assert advance(graph, fold(graph, [BEGIN]).run, event).moves == moves


def test_another_attempt_waits_with_its_jitter() -> None:
    failed = Failed(step=1, failure=Failure(name="tool.timeout", message="slow"))
    assert fold(graph_of(GO), [BEGIN, failed]).effects == (Sleep(step=2, seconds=3.0, jitter=0.5),)


def test_a_run_that_may_enter_no_further_state_ends_in_the_one_that_it_has_left() -> None:
    graph = graph_of(GO, "limits: {max_steps: 2}\n")
    run, effects, moves = fold(graph, [BEGIN, Returned(step=1, value=7)])
    too_many = error(
        "limit.steps", "the run entered 2 states, which is limits.max_steps: is there a loop without an end?", "pick"
    )
    assert effects == (Outcome(status="failed", error=too_many),)
    assert moves == (
        go_moves("route", to="pick", index=1, sets={"n": 7, "twice": 14}),
        Move(state="pick", step=2, how="end", failure=too_many, sets={"picked": True}),
    )
    assert list(run.path) == ["go", "pick"]


def test_a_run_whose_inputs_are_wrong_makes_no_move() -> None:
    wrong = Failure(name="input.invalid", message="Additional properties are not allowed ('x' was unexpected)")
    run, effects, moves = fold(graph_of(GO), [Started(run="r", inputs={"x": 1})])
    assert (run.status, effects, moves) == ("failed", (Outcome(status="failed", error=wrong),), ())


@pytest.mark.parametrize(
    "part",
    [
        pytest.param('vars: {x: "{{ 1 // inputs.n }}"}\n', id="a variable"),
        pytest.param('messages: [{role: user, content: "{{ 1 // inputs.n }}!"}]\n', id="a first message"),
    ],
)
def test_a_run_whose_first_templates_fail_ends_at_once(part: str) -> None:
    graph = graph_of("inputs: {n: {}}\n", part, "states: {ask: {type: chat, next: e}, e: {type: end}}\n")
    run, effects, moves = fold(graph, [Started(run="r", inputs={"n": 0})])
    source = "{{ 1 // inputs.n }}" + ("!" if "messages" in part else "")
    message = f"in {source!r}: integer division or modulo by zero"
    failed = Outcome(status="failed", error=Failure(name="template.failed", message=message))
    assert (run.status, run.outcome, effects, moves) == ("failed", failed, (failed,), ())


@pytest.mark.parametrize("name", ["limit.steps", "limit.timeout", "run.cancelled", "input.invalid"])
def test_what_is_about_the_whole_run_is_neither_tried_again_nor_caught(name: str) -> None:
    flow = """\
        states:
          go: {type: call, entrypoint: "tools.a:f", retry: {max_attempts: 9}, catch: [{to: e}], next: e}
          e: {type: end}
        """
    failure = Failure(name=name, message="over")
    outcome = Outcome(status="failed", error=error(name, "over"))
    assert fold(graph_of(flow), [BEGIN, Failed(step=1, failure=failure)]).effects == (outcome,)


# --- what stays of a state that failed ----------------------------------------------------------------------------


def test_a_state_that_no_route_leaves_has_no_output_and_sets_nothing() -> None:
    flow = GO.replace("errors: [tool.*], to: pick", "errors: [route.*], to: done")
    run, effects, _ = fold(graph_of(flow), [BEGIN, Returned(step=1, value=6)])
    assert (run.outputs, run.vars, run.error) == ({}, {"n": 1}, LazyError(UNMATCHED, 1, None))
    assert effects == (Outcome(status="succeeded", output={"n": 1}),)


CHILD = 'flows: {child: {inputs: {n: {}}, states: {only: {type: end, output: "{{ inputs.n }}"}}}}\n'


def test_children_that_were_to_start_do_not_when_the_state_fails() -> None:
    flow = """\
        states:
          all: {type: map, flow: "#child", for_each: "[1, 0]", as: n, with: {n: "{{ 1 // n }}"}, catch: [{to: ask}],
            next: e}
          ask: {type: call, entrypoint: "tools.a:f", next: e}
          e: {type: end}
        """
    run, effects, _ = fold(graph_of(CHILD, flow), [BEGIN])
    assert effects == (CallFunction(step=2, state="ask", run="r", entrypoint="tools.a:f", arguments={}),)
    assert run.children is None


def test_a_state_that_was_waiting_is_left_running() -> None:
    flow = """\
        states:
          ask: {type: wait, prompt: Well?, timeout: 1m, catch: [{to: go}], next: e}
          go: {type: call, entrypoint: "tools.a:f", next: e}
          e: {type: end}
        """
    run = fold(graph_of(flow), [BEGIN, TimedOut(step=1)]).run
    assert (run.status, run.state) == ("running", "go")
    assert fold(graph_of(flow), [BEGIN, TimedOut(step=1), Returned(step=2)]).run.status == "succeeded"


TWO_CHATS = """\
inputs: {n: {}}
states:
  one: {type: chat, messages: [{role: user, content: One.}], next: two}
  two: {type: chat, messages: [{role: user, content: "{{ 1 // inputs.n }}!"}], retry: {max_attempts: 2}, next: e}
  e: {type: end}
"""


def test_a_chat_is_not_asked_without_its_messages_because_the_one_before_had_its_own() -> None:
    events: list[Event] = [Started(run="r", inputs={"n": 0}), Replied(step=1, reply=Reply(content="1"))]
    assert fold(graph_of(TWO_CHATS), events).effects == (Sleep(step=3, seconds=1.0, jitter=0.1),)
    run, effects, _ = fold(graph_of(TWO_CHATS), [*events, Slept(step=3)])
    message = "in '{{ 1 // inputs.n }}!': integer division or modulo by zero"
    assert effects == (Outcome(status="failed", error=error("template.failed", message, "two")),)
    assert [one.content for one in run.threads["main"]] == ["One.", "1"]


# --- what is of another step --------------------------------------------------------------------------------------

LOOP = ADD + CHILD
CALLS = Reply(tool_calls=(ToolCall(id="c", name="add", arguments='{"a": 1, "b": 2}'),))
AGAIN: dict[str, tuple[str, Answer]] = {
    "a reply": ("{type: chat, next: s}", Replied(step=1, reply=Reply(content="x"))),
    "a call's value": ('{type: call, entrypoint: "tools.a:f", next: s}', Returned(step=1)),
    "a call's failure": ('{type: call, entrypoint: "tools.a:f", catch: [{to: s}], next: s}', FAILED),
    "a child": (
        '{type: flow, flow: "#child", with: {n: 1}, next: s}',
        ChildEnded(step=1, outcome=Outcome(status="succeeded")),
    ),
    "an answer": ("{type: wait, prompt: Well?, next: s}", Answered(step=1, value=1)),
}


@pytest.mark.parametrize(("state", "answer"), AGAIN.values(), ids=AGAIN)
def test_an_answer_of_an_earlier_visit_of_the_same_state_changes_nothing(state: str, answer: Answer) -> None:
    graph = graph_of(LOOP, f"states: {{s: {state}, e: {{type: end}}}}\n")
    run = fold(graph, [BEGIN, answer]).run
    assert (run.state, run.step) == ("s", 2)
    after, effects, moves = advance(graph, run, answer)
    assert after is run
    assert (effects, moves) == ((), ())


def test_the_end_of_an_earlier_pause_changes_nothing() -> None:
    flow = 'states: {s: {type: call, entrypoint: "tools.a:f", retry: {max_attempts: 9}, next: e}, e: {type: end}}\n'
    graph = graph_of(flow)
    run = fold(graph, [BEGIN, FAILED, Slept(step=2), Failed(step=2, failure=NO)]).run
    assert (run.awaiting, run.step) == ("sleep", 3)
    assert advance(graph, run, Slept(step=2)).run is run


@pytest.mark.parametrize(
    "event",
    [FAILED, Returned(step=0), Slept(step=0), TimedOut(), Cancelled(reason="no")],
    ids=lambda event: type(event).__name__,
)
def test_only_a_start_starts_a_run(event: Event) -> None:
    run = Run()
    assert advance(graph_of(GO), run, event).run is run


def test_a_run_is_frozen_after_each_event() -> None:
    graph = graph_of(GO)
    run = Run()
    events: list[Event] = [BEGIN, Returned(step=1, value=5), Returned(step=2)]
    for event in events:
        run = advance(graph, run, event).run
        with pytest.raises(AttributeError):
            run.status = "new"  # type: ignore[misc]
    assert run.status == "succeeded"


# --- limits that a parent gives -----------------------------------------------------------------------------------

SPIN = """\
states: {ask: {type: chat, next: ask}, done: {type: end}}
limits: {max_rounds: 3, max_steps: 5}
"""


@pytest.mark.parametrize(
    ("rounds", "steps", "ends", "after"),
    [
        pytest.param(None, None, "limit.rounds", 3, id="its own"),
        pytest.param(2, None, "limit.rounds", 2, id="fewer rounds are left"),
        pytest.param(9, 9, "limit.rounds", 3, id="more are left"),
        pytest.param(None, 2, "limit.steps", 2, id="fewer steps are left"),
        pytest.param(0, None, "limit.rounds", 0, id="no round is left"),
        pytest.param(None, 0, "limit.steps", 0, id="no step is left"),
    ],
)
def test_a_child_has_the_lower_of_its_own_limits_and_what_its_parent_has_left(
    rounds: int | None, steps: int | None, ends: str, after: int
) -> None:
    graph = graph_of(SPIN)
    run, effects, _ = fold(graph, [Started(run="r", inputs={}, max_rounds=rounds, max_steps=steps)])
    asked = 0
    while run.outcome is None:
        asked += 1
        run, effects, _ = advance(graph, run, Replied(step=run.step, reply=Reply(content="x")))
    assert run.outcome.error is not None
    assert (run.outcome.error.name, asked) == (ends, after)
    assert effects == (run.outcome,)


def test_no_attempt_is_made_where_children_have_used_the_steps() -> None:
    flow = """\
        states:
          s: {type: flow, flow: "#child", with: {n: 1}, retry: {max_attempts: 9}, next: e}
          e: {type: end}
        limits: {max_steps: 9}
        """
    bad = Outcome(status="failed", error=NO)

    def effects(steps: int) -> tuple[Effect, ...]:
        return fold(graph_of(CHILD, flow), [BEGIN, ChildEnded(step=1, outcome=bad, steps=steps)]).effects

    assert effects(7) == (Sleep(step=2, seconds=1.0, jitter=0.1),)
    ended = error("tool.failed", "sub-flow '#child' failed: no", "s")
    assert effects(8) == (Outcome(status="failed", error=ended),)
