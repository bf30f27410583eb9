"""States that run sub-flows, and the state that waits for a person: rows of events and what comes of them."""

from typing import Any

import pytest

from flowrun.core.events import (
    Answered,
    ChildEnded,
    Event,
    Outcome,
    RequestInput,
    Sleep,
    Slept,
    StartChild,
    Started,
    TimedOut,
)
from flowrun.core.machine import advance, fold
from flowrun.core.messages import Usage
from flowrun.errors import Failure
from tests.flows import graph_of

CHILD = """\
flows:
  child:
    inputs: {item: {}}
    states: {only: {type: end, output: "{{ inputs.item }}"}}
limits: {max_rounds: 10, max_steps: 50}
"""
BEGIN = Started(run="r", inputs={})


def good(output: Any) -> Outcome:
    return Outcome(status="succeeded", output=output)


def bad(name: str = "tool.failed") -> Outcome:
    return Outcome(status="failed", error=Failure(name=name, message="no", state="deep"))


def child(index: int, item: Any, *, step: int = 1, rounds: int = 10, steps: int = 49) -> StartChild:
    return StartChild(
        step=step, index=index, state="s", flow="#child", inputs={"item": item}, max_rounds=rounds, max_steps=steps
    )


FLOW = (
    CHILD
    + 'states: {s: {type: flow, flow: "#child", with: {item: 7}, next: e}, e: {type: end, output: "{{ outputs.s }}"}}'
)
MAP = (
    CHILD
    + 'states: {s: {type: map, flow: "#child", for_each: "[10, 11, 12]", as: item, max_concurrency: 2, next: e}, '
    + 'e: {type: end, output: "{{ outputs.s }}"}}'
)
PARALLEL = (
    CHILD
    + 'states: {s: {type: parallel, branches: {a: {flow: "#child", with: {item: 1}}, b: {flow: "#child", '
    + 'with: {item: 2}}}, next: e}, e: {type: end, output: "{{ outputs.s }}"}}'
)


def test_a_flow_starts_a_child_with_what_is_left_of_the_limits() -> None:
    graph = graph_of(FLOW)
    run, effects, _ = fold(graph, [BEGIN])
    assert effects == (child(0, 7),)
    ended = ChildEnded(step=1, outcome=good("x"), rounds=3, steps=4, usage=Usage(prompt_tokens=5))
    run, effects, _ = advance(graph, run, ended)
    assert effects == (good("x"),)
    assert (run.rounds, run.child_steps, run.usage) == (3, 4, Usage(prompt_tokens=5))


LOOP = FLOW.replace("next: e}", "routes: [{when: outputs.s == 1, to: s}, {to: e}]}").replace(
    "max_steps: 50", "max_steps: 9"
)


def test_the_steps_of_children_count_in_max_steps() -> None:
    graph = graph_of(LOOP)
    run, effects, _ = fold(graph, [BEGIN, ChildEnded(step=1, outcome=good(1), steps=4)])
    assert effects == (child(0, 7, step=2, steps=3),)
    run, effects, _ = advance(graph, run, ChildEnded(step=2, outcome=good(1), steps=3))
    message = "the run entered 9 states, which is limits.max_steps: is there a loop without an end?"
    error = Failure(name="limit.steps", message=message, state="s")
    assert effects == (Outcome(status="failed", error=error),)
    assert list(run.path) == ["s", "s"]


def test_the_rounds_of_children_count_in_max_rounds() -> None:
    graph = graph_of(LOOP)
    _, effects, _ = fold(graph, [BEGIN, ChildEnded(step=1, outcome=bad(), rounds=9)])
    assert [type(effect) for effect in effects] == [Outcome]
    _, effects, _ = fold(graph, [BEGIN, ChildEnded(step=1, outcome=good(1), rounds=9)])
    assert effects == (child(0, 7, step=2, rounds=1, steps=7),)


@pytest.mark.parametrize(
    ("name", "raised"),
    [
        pytest.param("tool.failed", "tool.failed", id="a child's failure keeps its name"),
        pytest.param("limit.timeout", "flow.failed", id="what is about the child's run does not"),
    ],
)
def test_a_childs_failure(name: str, raised: str) -> None:
    outcome = fold(graph_of(FLOW), [BEGIN, ChildEnded(step=1, outcome=bad(name), rounds=2)]).run.outcome
    detail = "no" if name == raised else f"{name}: no"
    message = f"sub-flow '#child' failed in its state 'deep': {detail}"
    assert outcome == Outcome(status="failed", error=Failure(name=raised, message=message, state="s"))


def test_a_map_runs_so_many_at_once_and_keeps_the_items_order() -> None:
    graph = graph_of(MAP)
    run, effects, _ = fold(graph, [BEGIN])
    assert effects == (child(0, 10), child(1, 11))
    run, effects, _ = advance(graph, run, ChildEnded(step=1, index=1, outcome=good("b"), rounds=1, steps=1))
    assert effects == (child(2, 12, rounds=9, steps=48),)
    run, effects, _ = advance(graph, run, ChildEnded(step=1, index=2, outcome=good("c")))
    assert effects == ()
    run, effects, _ = advance(graph, run, ChildEnded(step=1, index=0, outcome=good("a")))
    assert effects == (good(["a", "b", "c"]),)


def test_a_child_that_ends_makes_room_for_one_other() -> None:
    graph = graph_of(MAP.replace("[10, 11, 12]", "[10, 11, 12, 13, 14]"))
    run, effects, _ = fold(graph, [BEGIN])
    started = [len(effects)]
    for index in (1, 0, 2, 3, 4):
        run, effects, _ = advance(graph, run, ChildEnded(step=1, index=index, outcome=good(index)))
        started.append(sum(isinstance(effect, StartChild) for effect in effects))
    assert started == [2, 1, 1, 1, 0, 0]
    assert run.outcome == good([0, 1, 2, 3, 4])


@pytest.mark.parametrize("flow", [MAP, PARALLEL], ids=["map", "parallel"])
def test_what_children_used_is_summed(flow: str) -> None:
    used = Usage(prompt_tokens=5, completion_tokens=3, cached_tokens=2, rerendered=1)
    more = Usage(prompt_tokens=70, completion_tokens=50, cached_tokens=30, rerendered=20)
    first = ChildEnded(step=1, index=0, outcome=good(1), rounds=1, steps=2, usage=used)
    second = ChildEnded(step=1, index=1, outcome=bad(), rounds=4, steps=6, usage=more)
    run = fold(graph_of(flow), [BEGIN, first, second]).run
    total = Usage(prompt_tokens=75, completion_tokens=53, cached_tokens=32, rerendered=21)
    assert (run.rounds, run.child_steps, run.usage) == (5, 8, total)


def test_a_child_that_was_cancelled_has_failed() -> None:
    outcome = fold(graph_of(FLOW), [BEGIN, ChildEnded(step=1, outcome=Outcome(status="cancelled"))]).run.outcome
    failure = Failure(name="flow.failed", message="sub-flow '#child' failed: it was cancelled", state="s")
    assert outcome == Outcome(status="failed", error=failure)


SECOND = "{{ 1 // (run.attempt - 1) }}"
"""A template that fails in the first attempt of a state, and gives 1 in the second."""


@pytest.mark.parametrize(
    ("flow", "started"),
    [
        pytest.param(FLOW.replace("{item: 7}", f'{{item: "{SECOND}"}}'), (child(0, 1, step=2, steps=48),), id="flow"),
        pytest.param(
            PARALLEL.replace("{item: 1}", f'{{item: "{SECOND}"}}'),
            (child(0, 1, step=2, steps=48), child(1, 2, step=2, steps=48)),
            id="parallel",
        ),
        pytest.param(
            MAP.replace('"[10, 11, 12]"', '"[10, 11] if run.attempt > 1 else 0"'),
            (child(0, 10, step=2, steps=48), child(1, 11, step=2, steps=48)),
            id="map, its list",
        ),
        pytest.param(
            MAP.replace("as: item", f'as: item, with: {{item: "{SECOND}"}}'),
            (child(0, 1, step=2, steps=48), child(1, 1, step=2, steps=48)),
            id="map, what it gives",
        ),
    ],
)
def test_an_attempt_that_could_not_begin_is_followed_by_one_that_does(
    flow: str, started: tuple[StartChild, ...]
) -> None:
    graph = graph_of(flow.replace("states: {s: {", "states: {s: {retry: {max_attempts: 2}, "))
    run, effects, _ = fold(graph, [BEGIN])
    assert [type(effect) for effect in effects] == [Sleep]
    run, effects, _ = advance(graph, run, Slept(step=2))
    assert effects == started


@pytest.mark.parametrize(
    ("on_item_error", "output"),
    [
        pytest.param(
            "collect",
            [
                {"output": "a", "error": None},
                {"output": None, "error": {"name": "tool.failed", "message": "no", "type": None, "state": "deep"}},
                {"output": "c", "error": None},
            ],
            id="collect",
        ),
        pytest.param("skip", ["a", "c"], id="skip"),
    ],
)
def test_items_that_fail_can_be_borne(on_item_error: str, output: Any) -> None:
    events: list[Event] = [BEGIN, ChildEnded(step=1, index=0, outcome=good("a"))]
    events += [ChildEnded(step=1, index=1, outcome=bad()), ChildEnded(step=1, index=2, outcome=good("c"))]
    flow = MAP.replace("as: item", f"as: item, on_item_error: {on_item_error}")
    assert fold(graph_of(flow), events).run.outcome == good(output)


def test_an_item_that_fails_fails_the_map() -> None:
    run = fold(graph_of(MAP), [BEGIN, ChildEnded(step=1, index=1, outcome=bad(), rounds=4)]).run
    message = "item 1 failed in its state 'deep': no"
    assert run.outcome == Outcome(status="failed", error=Failure(name="tool.failed", message=message, state="s"))
    assert run.rounds == 4


@pytest.mark.parametrize(
    ("for_each", "outcome"),
    [
        pytest.param("[]", good([]), id="no items"),
        pytest.param(
            "'abc'",
            Outcome(
                status="failed",
                error=Failure(name="template.failed", message="for_each gave 'abc', which is no list", state="s"),
            ),
            id="no list",
        ),
    ],
)
def test_what_a_map_is_given(for_each: str, outcome: Outcome) -> None:
    assert fold(graph_of(MAP.replace("[10, 11, 12]", for_each)), [BEGIN]).run.outcome == outcome


def test_an_item_not_yet_started_is_not_awaited() -> None:
    graph = graph_of(MAP)
    run = fold(graph, [BEGIN]).run
    after, effects, moves = advance(graph, run, ChildEnded(step=1, index=2, outcome=good("early")))
    assert after is run
    assert (effects, moves) == ((), ())


@pytest.mark.parametrize("flow", [MAP, PARALLEL], ids=["map", "parallel"])
@pytest.mark.parametrize("index", [0, -1, 3], ids=["taken before", "negative", "too large"])
def test_the_end_of_a_child_is_taken_once(flow: str, index: int) -> None:
    graph = graph_of(flow)
    run = fold(graph, [BEGIN, ChildEnded(step=1, index=0, outcome=good("a"), rounds=1, steps=2)]).run
    again = advance(graph, run, ChildEnded(step=1, index=index, outcome=good("b"), rounds=1, steps=2))
    assert again.run is run
    assert again.effects == ()


def test_branches_give_a_mapping() -> None:
    graph = graph_of(PARALLEL)
    run, effects, _ = fold(graph, [BEGIN])
    assert effects == (child(0, 1), child(1, 2))
    run, effects, _ = advance(graph, run, ChildEnded(step=1, index=1, outcome=good("right")))
    run, effects, _ = advance(graph, run, ChildEnded(step=1, index=0, outcome=good("left")))
    assert effects == (good({"a": "left", "b": "right"}),)


def test_a_branch_that_fails_fails_the_state() -> None:
    outcome = fold(graph_of(PARALLEL), [BEGIN, ChildEnded(step=1, index=1, outcome=bad())]).run.outcome
    message = "branch 'b' failed in its state 'deep': no"
    assert outcome == Outcome(status="failed", error=Failure(name="tool.failed", message=message, state="s"))


WAIT = """\
inputs: {amount: {type: integer, default: 5}}
states:
  s:
    type: wait
    prompt: Refund {{ inputs.amount }}?
    schema: {type: object, properties: {ok: {type: boolean}}, required: [ok]}
    timeout: 1h
    catch: [{errors: [wait.timeout], to: late}]
    routes: [{when: outputs.s.ok, to: paid}, {to: refused}]
  paid: {type: end, output: paid}
  refused: {type: end, output: refused}
  late: {type: end, output: late}
"""
ASKED = Started(run="r", inputs={"amount": 5})


def test_a_wait_asks_and_pauses() -> None:
    run, effects, _ = fold(graph_of(WAIT), [ASKED])
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    assert effects == (RequestInput(step=1, state="s", run="r", prompt="Refund 5?", schema=schema),)
    assert (run.status, run.outcome) == ("waiting", None)


@pytest.mark.parametrize(
    ("event", "outcome"),
    [
        pytest.param(Answered(step=1, value={"ok": True}), good("paid"), id="yes"),
        pytest.param(Answered(step=1, value={"ok": False}), good("refused"), id="no"),
        pytest.param(Answered(step=1, value={"ok": "yes"}), None, id="what does not match is not taken"),
        pytest.param(TimedOut(step=1), good("late"), id="nobody answers"),
    ],
)
def test_what_ends_a_wait(event: Event, outcome: Outcome | None) -> None:
    run = fold(graph_of(WAIT), [ASKED, event]).run
    assert run.outcome == outcome
    assert run.status == ("waiting" if outcome is None else "succeeded")
