"""A fork begins with the events of another run up to a step, and its decisions before that step are the same."""

from collections.abc import Sequence

import pytest

from flowrun.core.events import Answered, CallStarted, Event, Replied, Returned, Started
from flowrun.core.forking import ForkedEvent, ForkError, fork_events
from flowrun.core.graph import Graph
from flowrun.core.messages import Reply, ToolCall
from tests.flows import ADD, AGENT, graph_of

GRAPH = graph_of(ADD, AGENT)
CALL = Replied(step=1, reply=Reply(tool_calls=(ToolCall(id="c", name="add", arguments='{"a": 1, "b": 2}'),)))
SAID = Replied(step=3, reply=Reply(content="3"))
RECORDED: tuple[Event, ...] = (
    Started(run="old", inputs={"question": "1 + 2?"}),
    CALL,
    CallStarted(step=2),
    Returned(step=2, value=3),
    SAID,
)
ROUTED = """\
inputs: {amount: {type: integer}}
states:
  first: {type: wait, prompt: "?", routes: [{when: inputs.amount > 10, to: big}, {to: small}]}
  big: {type: wait, prompt: "Big?", next: done}
  small: {type: wait, prompt: "Small?", next: done}
  done: {type: end}
"""


def fork(step: int, new: Graph = GRAPH, events: Sequence[Event] = RECORDED) -> Sequence[ForkedEvent]:
    return fork_events(GRAPH, new, events, run="new", step=step)


def begun(step: int) -> Started:
    return Started(run="new", inputs={"question": "1 + 2?"}, forked_from=f"old/{step}")


@pytest.mark.parametrize(
    ("step", "events", "state"),
    [
        (1, [], "ask"),
        (2, [CALL], "act"),
        (3, [CALL, Returned(step=2, value=3)], "ask"),
        (4, [CALL, Returned(step=2, value=3), SAID], "done"),
    ],
)
def test_a_fork_has_the_events_before_a_step_and_not_the_intents(step: int, events: list[Event], state: str) -> None:
    forked = fork(step)
    assert [one.event for one in forked] == [begun(step), *events]
    assert (forked[-1].run.id, forked[-1].run.state, forked[-1].run.step) == ("new", state, step)


@pytest.mark.parametrize("step", [-1, 0, 5])
def test_a_step_that_the_run_has_not(step: int) -> None:
    with pytest.raises(ForkError, match=r"it has no such step: its last one is 4, in state 'done'"):
        fork(step)


def test_the_last_decision_may_be_another_one() -> None:
    new = graph_of(ADD, AGENT.replace("act: {type: tools, next: ask}", "act: {type: tools, next: done}"))
    assert [one.run.state for one in fork(3, new)] == ["ask", "act", "done"]
    with pytest.raises(ForkError, match=r"after step 2, state 'act' the recorded run goes on to step 3, state 'ask'"):
        fork(4, new)


def test_inputs_that_lead_elsewhere_before_the_step() -> None:
    graph = graph_of(ROUTED)
    recorded = [Started(run="old", inputs={"amount": 20}), Returned(step=7), *answers(1, 2)]

    def states(step: int, amount: int) -> list[str]:
        forked = fork_events(graph, graph, recorded, run="new", step=step, inputs={"amount": amount})
        return [one.run.state for one in forked]

    assert states(2, 5) == ["first", "small"]
    assert states(3, 30) == ["first", "big", "done"]
    with pytest.raises(ForkError, match=r"state 'first' .* state 'big', and the fork does not: .* state 'small'"):
        states(3, 5)
    with pytest.raises(ForkError, match=r"at the start .*: it ends: input.invalid"):
        fork_events(graph, graph, recorded, run="new", step=2, inputs={"amount": "many"})


def answers(*steps: int) -> list[Event]:
    return [Answered(step=step, value="yes") for step in steps]
