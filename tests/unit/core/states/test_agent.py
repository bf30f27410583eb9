"""An agent is a chat and a tools state that take turns in one visit: its effects and steps are those of the two."""

from typing import Any

import msgspec
import pytest

from flowrun.core.events import (
    Answered,
    AskModel,
    CallFunction,
    Effect,
    Event,
    Failed,
    Move,
    Replied,
    RequestInput,
    Returned,
    Sleep,
    Slept,
    Started,
    TimedOut,
)
from flowrun.core.machine import Run, fold
from flowrun.core.messages import Reply, ToolCall
from flowrun.core.recovery import recover
from flowrun.errors import Failure
from tests.flows import ADD, graph_of

BEGIN = Started(run="r", inputs={})
NO = Failure(name="tool.failed", message="no")
LOST = Failure(name="backend.unavailable", message="lost")

BOTH = ADD + ADD.partition("\n")[2].replace("add:", "stop:")


def flow(*settings: str, of_flow: str = "") -> str:
    """Return a flow whose agent has some settings."""
    lines = "".join(f"\n    {line}" for line in settings)
    return f"""\
messages: [{{role: system, content: Add.}}]
{of_flow}
states:
  team:
    type: agent
    messages: [{{role: user, content: "Go on, {{{{ run.step }}}}."}}]{lines}
    routes: [{{when: "vars.again | default(false)", to: team}}, {{to: done}}]
  caught: {{type: end, output: {{caught: "{{{{ error.name }}}}", rounds: "{{{{ run.rounds }}}}"}}}}
  done: {{type: end, output: "{{{{ outputs.team.content }}}}"}}
"""


def calls(step: int, *names: str, arguments: str = '{"a": 1, "b": 2}') -> Event:
    called = tuple(ToolCall(id="", name=name, arguments=arguments) for name in names)
    return Replied(step=step, reply=Reply(tool_calls=called))


def says(step: int, content: str = "Done.", **more: Any) -> Event:
    return Replied(step=step, reply=Reply(content=content, **more))


def returns(step: int, index: int = 0) -> Event:
    return Returned(step=step, index=index, value=3)


def outcome_of(run: Run) -> tuple[str, Any]:
    assert run.outcome is not None
    return run.outcome.status, run.outcome.output if run.outcome.error is None else run.outcome.error.name


def thread_of(run: Run) -> list[tuple[str, Any]]:
    return [(message.role, message.content or [c.name for c in message.tool_calls]) for message in run.threads["main"]]


# --- turns --------------------------------------------------------------------------------------------------------

TWO_STATES = """\
messages: [{role: system, content: Add.}]
states:
  before: {type: route, next: team}
  team: {type: chat, RETRY routes: [{when: reply.tool_calls, to: tools}, {to: done}]}
  tools: {type: tools, RETRY on_error: raise, next: team}
  done: {type: end, output: "{{ reply.content }}"}
"""
ONE_STATE = """\
messages: [{role: system, content: Add.}]
states:
  before: {type: route, next: team}
  team: {type: agent, RETRY on_error: raise, next: done}
  done: {type: end, output: "{{ reply.content }}"}
"""
RETRY = "retry: {max_attempts: 2, delay: 0, jitter: 0},"


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([says(2)], id="no calls"),
        pytest.param([calls(2, "add"), returns(3), says(4)], id="a turn with a call"),
        pytest.param([calls(2, "add", "add"), returns(3, 1), returns(3), calls(4, "add"), returns(5)], id="two turns"),
        pytest.param(
            [calls(2, "add"), returns(3), says(4, finish_reason="length"), Slept(step=5), says(5)],
            id="a reply is asked for again",
        ),
        pytest.param(
            [
                calls(2, "add", "add"),
                returns(3, 1),
                Failed(step=3, failure=NO),
                Slept(step=4),
                returns(4),
                Failed(step=5, failure=LOST),
                Slept(step=6),
                says(6),
            ],
            id="a call is made again, and a reply in the next turn",
        ),
        pytest.param([Failed(step=2, failure=LOST), Slept(step=3), Failed(step=3, failure=LOST)], id="two failures"),
        pytest.param(
            [calls(2, "add"), Failed(step=3, failure=NO), Slept(step=4), Failed(step=4, failure=NO)],
            id="two failures of a call",
        ),
    ],
)
def test_it_asks_for_the_same_as_a_chat_and_a_tools_state(events: list[Event]) -> None:
    one, two = (graph_of(ADD, text.replace("RETRY", RETRY)) for text in (ONE_STATE, TWO_STATES))
    for count in range(len(events) + 1):
        mine, theirs = (fold(graph, [BEGIN, *events[:count]]) for graph in (one, two))
        assert list(map(stateless, mine.effects)) == list(map(stateless, theirs.effects))
        assert [key_of(effect) for effect in mine.effects] == [key_of(effect) for effect in theirs.effects]
        assert (mine.run.step, mine.run.attempt) == (theirs.run.step, theirs.run.attempt)
        assert mine.run.threads == theirs.run.threads


def stateless(effect: Effect) -> Effect:
    """Return an effect, or the end of a run, without the name of the state."""
    if isinstance(effect, AskModel | CallFunction):
        return msgspec.structs.replace(effect, state="")
    failure = getattr(effect, "error", None)
    return effect if failure is None else msgspec.structs.replace(effect, error=failure.name)


def key_of(effect: Effect) -> str:
    return effect.key if isinstance(effect, CallFunction) else ""


def test_its_turns_are_one_visit() -> None:
    graph = graph_of(ADD, flow())
    moves: list[Move] = []
    events = [BEGIN, calls(1, "add"), returns(2), calls(3, "add"), returns(4), says(5)]
    for count in range(1, len(events) + 1):
        transition = fold(graph, events[:count])
        moves += transition.moves
        assert transition.run.state == ("team" if count < len(events) else "done")
    assert moves == [
        Move(state="team", step=5, how="route", to="done", index=1),
        Move(state="done", step=6, how="end"),
    ]
    assert list(transition.run.path) == ["team", "done"]
    assert outcome_of(transition.run) == ("succeeded", "Done.")


def test_its_messages_are_added_once_in_each_visit() -> None:
    graph = graph_of(ADD, flow('set: {again: "{{ run.step < 4 }}"}'))
    run = fold(graph, [BEGIN, calls(1, "add"), returns(2), says(3, "First."), says(4, "Second.")]).run
    assert thread_of(run) == [
        ("system", "Add."),
        ("user", "Go on, 1."),
        ("assistant", ["add"]),
        ("tool", "3"),
        ("assistant", "First."),
        ("user", "Go on, 4."),
        ("assistant", "Second."),
    ]
    assert list(run.path) == ["team", "team", "done"]


def test_a_turn_whose_calls_are_all_refused_is_followed_by_the_next() -> None:
    transition = fold(graph_of(ADD, flow()), [BEGIN, calls(1, "add", arguments="{}"), calls(3, "none"), says(5)])
    assert [content for role, content in thread_of(transition.run) if role == "tool"] == [
        'error: tool.invalid_arguments: "a" is a required property; "b" is a required property',
        "error: tool.unknown: there is no tool 'none'; there are: add",
    ]
    assert outcome_of(transition.run) == ("succeeded", "Done.")


def test_calls_start_in_their_order() -> None:
    graph = graph_of(ADD, flow("max_concurrency: 1"))
    for events, index in (([calls(1, "add", "add")], 0), ([calls(1, "add", "add"), returns(2)], 1)):
        (effect,) = fold(graph, [BEGIN, *events]).effects
        assert isinstance(effect, CallFunction)
        assert effect.index == index


def test_its_messages_may_answer_calls_made_before_it() -> None:
    text = """\
messages: [{role: user, content: hi}]
states:
  ask: {type: chat, next: team}
  team: {type: agent, messages: [{role: tool, content: later}], RETRY next: done}
  done: {type: end, output: "{{ reply.content }}"}
"""
    failed = [BEGIN, calls(1, "add"), Failed(step=2, failure=LOST), Slept(step=3)]
    (again,) = fold(graph_of(ADD, text.replace("RETRY", RETRY)), failed).effects
    assert isinstance(again, AskModel)
    assert [(message.role, message.content) for message in again.messages][1:] == [
        ("assistant", None),
        ("tool", "later"),
    ]


# --- its end ------------------------------------------------------------------------------------------------------


def test_a_tool_that_stops_it_ends_it_once_it_has_succeeded() -> None:
    graph = graph_of(
        BOTH, flow("stop_at_tools: [stop]", 'set: {left: "{{ reply.content is none }}", values: "{{ results }}"}')
    )
    failed = [BEGIN, calls(1, "add", "stop"), returns(2), Failed(step=2, index=1, failure=NO)]
    assert isinstance(fold(graph, failed).effects[0], AskModel)
    transition = fold(graph, [*failed, calls(3, "stop", "add"), returns(4), returns(4, 1)])
    assert outcome_of(transition.run) == ("succeeded", None)
    assert transition.run.vars["left"] is True
    assert [(result["name"], result["value"]) for result in transition.run.vars["values"]] == [("stop", 3), ("add", 3)]
    assert transition.run.outputs["team"]["tool_calls"].data() == [
        {"id": "call00003", "name": "stop", "arguments": {"a": 1, "b": 2}},
        {"id": "call00004", "name": "add", "arguments": {"a": 1, "b": 2}},
    ]


def test_what_leaves_it_is_undone_and_the_last_turn_is_tried_again() -> None:
    retry = "retry: {max_attempts: 2, errors: [template.failed], delay: 0, jitter: 0}"
    graph = graph_of(BOTH, flow("stop_at_tools: [stop]", 'set: {x: "{{ 1 // (run.attempt - 1) }}"}', retry))
    stopped = [BEGIN, calls(1, "stop"), returns(2)]
    transition = fold(graph, stopped)
    assert [type(effect) for effect in transition.effects] == [Sleep]
    assert thread_of(transition.run)[-1] == ("assistant", ["stop"])
    after = fold(graph, [*stopped, Slept(step=3)])  # the call that succeeded is not made again
    assert (outcome_of(after.run), after.run.vars["x"]) == (("succeeded", None), 1)


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        ([], [None, None]),
        (["tools: []"], ["json_object"]),
        (["tool_choice: none"], ["json_object"]),
        (["tools: \"{{ ['add'] if run.rounds < 1 else [] }}\""], [None, "json_object"]),
    ],
    ids=["tools are offered", "no tools", "none may be called", "no tools in the last turn"],
)
def test_a_format_is_asked_for_only_where_no_tools_are_offered(settings: list[str], asked: list[str | None]) -> None:
    graph = graph_of(ADD, flow("response_format: {type: json_object}", *settings))
    turns: list[list[Event]] = [[BEGIN], [BEGIN, calls(1, "add"), returns(2)]]
    requests = [fold(graph, events).effects[0] for events in turns[: len(asked)]]
    formats = [one.response_format for one in requests if isinstance(one, AskModel)]
    assert [form and form.type for form in formats] == asked


def test_a_format_is_checked_in_each_reply_without_calls() -> None:
    graph = graph_of(ADD, flow("response_format: {type: json_object}", 'set: {form: "{{ reply.parsed }}"}'))
    assert fold(graph, [BEGIN, calls(1, "add"), returns(2), says(3, '{"a": 1}')]).run.vars["form"] == {"a": 1}
    assert outcome_of(fold(graph, [BEGIN, says(1, "{")]).run) == ("failed", "model.invalid_output")


# --- its limits ---------------------------------------------------------------------------------------------------

CATCH = "catch: [{errors: [limit.rounds, limit.tool_calls, state.timeout], to: caught}]"
ENDLESS = "retry: {max_attempts: 9, delay: 0, jitter: 0}"


def test_its_rounds_are_limited_and_no_other_attempt_follows() -> None:
    graph = graph_of(ADD, flow("max_rounds: 2", CATCH, ENDLESS))
    events = [BEGIN, calls(1, "add"), returns(2), calls(3, "add")]
    assert outcome_of(fold(graph, [*events, returns(4)]).run) == ("succeeded", {"caught": "limit.rounds", "rounds": 2})


def test_an_attempt_is_a_round() -> None:
    graph = graph_of(ADD, flow("max_rounds: 1", CATCH, ENDLESS))
    lost: list[Event] = [BEGIN, Failed(step=1, failure=LOST)]
    assert isinstance(fold(graph, lost).effects[0], Sleep)
    assert outcome_of(fold(graph, [*lost, Slept(step=2)]).run)[1] == {"caught": "limit.rounds", "rounds": 1}


def test_its_rounds_are_those_of_one_visit() -> None:
    graph = graph_of(ADD, flow("max_rounds: 1", CATCH, 'set: {again: "{{ run.step < 3 }}"}'))
    assert outcome_of(fold(graph, [BEGIN, says(1), says(2), says(3, "Third.")]).run) == ("succeeded", "Third.")


@pytest.mark.parametrize(
    ("limits", "events", "error"),
    [
        ("limits: {max_steps: 2}", [calls(1, "add"), returns(2)], "limit.steps"),
        ("limits: {max_rounds: 1}", [calls(1, "add"), returns(2)], "limit.rounds"),
        ("limits: {max_tool_calls: 1}", [calls(1, "add", "add")], "limit.tool_calls"),
    ],
)
def test_the_limits_of_the_flow_hold_within_it(limits: str, events: list[Event], error: str) -> None:
    run = fold(graph_of(ADD, flow(of_flow=limits)), [BEGIN, *events]).run
    assert (outcome_of(run), run.state) == (("failed", error), "team")
    assert thread_of(run)[-1][0] == ("assistant" if error == "limit.tool_calls" else "tool")  # the reply stays


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([TimedOut(step=1)], id="in its first turn"),
        pytest.param([calls(1, "add"), TimedOut(step=2)], id="while tools run"),
        pytest.param([Failed(step=1, failure=LOST), TimedOut(step=2)], id="between two attempts"),
    ],
)
def test_its_timeout_ends_the_visit(events: list[Event]) -> None:
    run = fold(graph_of(ADD, flow("timeout: 5s", CATCH, ENDLESS)), [BEGIN, *events]).run
    assert outcome_of(run) == ("succeeded", {"caught": "state.timeout", "rounds": 1})


def test_a_timeout_that_cannot_be_rendered_is_tried_again_and_its_rounds_count() -> None:
    timeout = 'timeout: "{{ [][0] if run.attempt == 1 else 9 }}s"'
    graph = graph_of(ADD, flow(timeout, "max_rounds: 1", CATCH, ENDLESS))
    assert isinstance(fold(graph, [BEGIN]).effects[0], Sleep)
    events: list[Event] = [BEGIN, Slept(step=2), calls(2, "add")]
    assert [type(fold(graph, events[:2]).effects[0]), type(fold(graph, events).effects[0])] == [AskModel, CallFunction]
    assert outcome_of(fold(graph, [*events, returns(3)]).run)[1] == {"caught": "limit.rounds", "rounds": 1}


# --- with people --------------------------------------------------------------------------------------------------

ASKING = ADD + "    approve: {prompt: Add?}\n"


def test_its_calls_are_approved_in_the_turn_that_makes_them() -> None:
    graph = graph_of(ASKING, flow("on_error: raise", ENDLESS))
    events: list[Event] = [BEGIN, calls(1, "add"), Answered(step=2, value={"ok": True}), returns(2), calls(3, "add")]
    asked = fold(graph, events[:2]).effects[0], fold(graph, events).effects[0]
    assert [one.id for one in asked if isinstance(one, RequestInput)] == ["r/2/0", "r/4/0"]
    refused = Answered(step=4, value={"ok": False, "reason": "enough"})
    transition = fold(graph, [*events, refused])
    assert [type(effect) for effect in transition.effects] == [Sleep]
    assert thread_of(transition.run)[-1] == ("assistant", ["add"])


def test_its_timeout_is_for_the_visit_also_while_a_person_is_asked() -> None:
    run = fold(graph_of(ASKING, flow("timeout: 5s", CATCH, ENDLESS)), [BEGIN, calls(1, "add")]).run
    assert (run.status, run.state) == ("waiting", "team")
    late = fold(graph_of(ASKING, flow("timeout: 5s", CATCH, ENDLESS)), [BEGIN, calls(1, "add"), TimedOut(step=2)]).run
    assert outcome_of(late) == ("succeeded", {"caught": "state.timeout", "rounds": 1})


def test_the_model_reads_what_the_visit_has_added_where_it_reads_no_history() -> None:
    graph = graph_of(ADD, flow("history: none", "system: Be brief."))
    request = fold(graph, [BEGIN, calls(1, "add"), returns(2)]).effects[0]
    assert isinstance(request, AskModel)
    assert [(message.role, message.content) for message in request.messages] == [
        ("system", "Be brief."),
        ("user", "Go on, 1."),
        ("assistant", None),
        ("tool", "3"),
    ]


# --- after a crash ------------------------------------------------------------------------------------------------


def test_it_resumes_in_the_turn_where_it_was() -> None:
    graph = graph_of(ADD, flow())
    events = [BEGIN, calls(1, "add"), returns(2), calls(3, "add", "add"), returns(4, 1)]
    found = recover(graph, events, [10.0, 11.0, 12.0, 13.0, 14.0])
    (effect,) = found.effects
    assert isinstance(effect, CallFunction)
    assert (effect.key, found.entered, found.visited) == ("r/4/0", 13.0, 10.0)
