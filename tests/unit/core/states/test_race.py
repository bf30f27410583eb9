"""Parallel states that go on with the first branch, or collect failures."""

from typing import Any

import pytest

from flowrun.core.events import ChildEnded, Effect, Event, Outcome, Slept, StartChild, Started
from flowrun.core.machine import Run, fold
from flowrun.core.messages import Usage
from flowrun.core.recovery import recover
from flowrun.errors import Failure
from tests.flows import graph_of

CHILD = "flows: {child: {states: {only: {type: end}}}}\n"
RACE = (
    CHILD
    + """\
states:
  race:
    type: parallel
    OPTIONS
    branches: {a: {flow: "#child"}, b: {flow: "#child"}, c: {flow: "#child"}}
    next: e
  e: {type: end, output: "{{ outputs.race }}"}
"""
)
FIRST = graph_of(RACE.replace("OPTIONS", "until: first"))
BEGIN = Started(run="r", inputs={})
NO = Failure(name="tool.failed", message="no", state="deep")


def won(index: int, output: Any = None, *, step: int = 1) -> ChildEnded:
    return ChildEnded(step=step, index=index, outcome=Outcome(status="succeeded", output=output))


def lost(index: int, *, step: int = 1) -> ChildEnded:
    return ChildEnded(step=step, index=index, outcome=Outcome(status="failed", error=NO))


def cancelled(index: int, *, step: int = 1, tokens: int = 0) -> ChildEnded:
    return ChildEnded(
        step=step,
        index=index,
        outcome=Outcome(status="cancelled", error=Failure(name="run.cancelled", message="")),
        rounds=1,
        steps=2,
        usage=Usage(prompt_tokens=tokens),
    )


def brief(effects: tuple[Effect, ...]) -> list[tuple[int, bool]]:
    return [(effect.index, effect.cancel) for effect in effects if isinstance(effect, StartChild)]


def after(*events: Event) -> tuple[Run, list[tuple[int, bool]]]:
    run, effects, _ = fold(FIRST, [BEGIN, *events])
    return run, brief(effects)


def test_the_first_success_cancels_the_others_and_awaits_their_ends() -> None:
    assert after()[1] == [(0, False), (1, False), (2, False)]
    run, effects = after(won(1, "B"))
    assert (run.status, run.state, effects) == ("running", "race", [(0, True), (2, True)])
    assert after(won(1, "B"), cancelled(0))[0].status == "running"
    run, _ = after(won(1, "B"), cancelled(0, tokens=3), cancelled(2, tokens=4))
    assert run.outcome == Outcome(status="succeeded", output={"branch": "b", "output": "B"})
    assert (run.rounds, run.child_steps, run.usage.prompt_tokens) == (2, 4, 7)


def test_a_branch_that_succeeds_while_it_is_cancelled_was_not_the_first() -> None:
    run, _ = after(won(2, "C"), won(0, "A"), lost(1))
    assert run.outcome == Outcome(status="succeeded", output={"branch": "c", "output": "C"})


def test_a_branch_that_fails_does_not_end_the_race() -> None:
    run, effects = after(lost(0), lost(1))
    assert (run.status, effects) == ("running", [])
    run, effects = after(lost(0), lost(1), won(2, 5))
    assert run.outcome == Outcome(status="succeeded", output={"branch": "c", "output": 5})


def test_the_race_fails_as_its_last_branch_did() -> None:
    run, _ = after(lost(0), lost(2), lost(1))
    message = "every branch failed; the last one, 'b', failed in its state 'deep': no"
    assert run.outcome == Outcome(status="failed", error=Failure(name="tool.failed", message=message, state="race"))


def test_another_attempt_runs_all_branches_that_failed_again() -> None:
    graph = graph_of(RACE.replace("OPTIONS", "until: first\n    retry: {max_attempts: 2}"))
    run, effects, _ = fold(graph, [BEGIN, lost(0), lost(1), lost(2), Slept(step=2)])
    assert (run.step, brief(effects)) == (2, [(0, False), (1, False), (2, False)])


def test_another_attempt_after_a_success_starts_no_branch() -> None:
    options = 'until: first\n    retry: {max_attempts: 2}\n    set: {x: "{{ 1 // (run.attempt - 1) }}"}'
    graph = graph_of(RACE.replace("OPTIONS", options))
    run, _, _ = fold(graph, [BEGIN, won(1, "B"), cancelled(0), cancelled(2), Slept(step=2)])
    assert run.outcome == Outcome(status="succeeded", output={"branch": "b", "output": "B"})


def test_after_a_crash_the_others_are_still_to_be_cancelled() -> None:
    found = recover(FIRST, [BEGIN, won(1, "B"), cancelled(0)])
    assert brief(found.effects) == [(2, True)]


def test_failures_can_be_collected() -> None:
    graph = graph_of(RACE.replace("OPTIONS", "on_branch_error: collect"))
    run, _, _ = fold(graph, [BEGIN, lost(1), won(0, "A"), won(2, "C")])
    error = {"name": "tool.failed", "message": "no", "type": None, "state": "deep"}
    assert run.outcome == Outcome(
        status="succeeded",
        output={
            "a": {"output": "A", "error": None},
            "b": {"output": None, "error": error},
            "c": {"output": "C", "error": None},
        },
    )


@pytest.mark.parametrize("late", [won(1, "again"), cancelled(0)], ids=["twice", "of another step"])
def test_what_is_not_awaited_changes_nothing(late: ChildEnded) -> None:
    events: list[Event] = [BEGIN, won(1, "B"), cancelled(0)]
    assert fold(FIRST, [*events, late]).run is not None
    assert fold(FIRST, [*events, late]).run == fold(FIRST, events).run
