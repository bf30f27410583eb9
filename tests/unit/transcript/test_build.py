"""A transcript has the activities of a run, with their places and times; events without effect are left out."""

import json

import msgspec
import pytest

from flowrun.core.events import Answered, CallStarted, Recorded, Returned
from flowrun.core.messages import Message, Reply, Tokens, ToolCall, Usage
from flowrun.errors import Failure
from flowrun.transcript import Transcript, build_transcript, render_html, render_text
from flowrun.transcript.model import (
    Activity,
    Attention,
    Child,
    Exit,
    FunctionCall,
    Pause,
    Question,
    Round,
    Totals,
    Visit,
)
from tests.flows import ADD, AGENT, graph_of
from tests.unit.transcript.recording import NOON, Recording, World, calls, said
from tests.unit.transcript.runs import (
    REVIEW,
    TEAM,
    agent,
    answered,
    cancelled,
    caught,
    family,
    given_up,
    in_doubt,
    refused_inputs,
    retried,
    team,
    team_in_doubt,
    waiting,
)


def transcript_of(recording: Recording, *, live: bool = False) -> Transcript:
    return build_transcript(recording.graph, recording.recorded, recording.events, live=live)


def test_a_transcript_is_complete() -> None:
    world = World(
        replies=[calls(("add", '{"a": 2, "b": 3}'), seconds=0.75), said("5")],
        functions={"tools.numbers:add": (0.25, 5)},
    )
    transcript = transcript_of(Recording(graph_of(ADD, AGENT), world, {"question": "2 + 3?"}))
    wish = ToolCall(id="", name="add", arguments='{"a": 2, "b": 3}')
    usage = (Usage(prompt_tokens=20, completion_tokens=12), Usage(prompt_tokens=20, completion_tokens=8))
    assert transcript == Transcript(
        run="r1",
        flow="test",
        version="1.0.0",
        description="",
        status="succeeded",
        began=NOON,
        seconds=1.5,
        inputs={"question": "2 + 3?"},
        path=("ask", "act", "ask", "done"),
        visits=(
            Visit(
                state="ask",
                type="chat",
                step=1,
                attempt=1,
                began=NOON,
                seconds=0.75,
                activities=(
                    Round(
                        began=NOON,
                        seconds=0.75,
                        earlier=0,
                        messages=(Message(role="user", content="2 + 3?"),),
                        reply=Reply(tool_calls=(wish,), finish_reason="tool_calls", usage=usage[0]),
                        thread="main",
                        model="default",
                        tools=("add",),
                        tool_choice="auto",
                        sampling={},
                    ),
                ),
                sets={},
                exit=Exit(how="route", to="act", number=0, when="reply.tool_calls"),
            ),
            Visit(
                state="act",
                type="tools",
                step=2,
                attempt=1,
                began=NOON + 0.75,
                seconds=0.25,
                activities=(
                    FunctionCall(
                        began=NOON + 0.75,
                        seconds=0.25,
                        tool="add",
                        entrypoint="tools.numbers:add",
                        arguments={"a": 2, "b": 3},
                        call_id="call00001",
                        begins=1,
                        status="returned",
                        value=5,
                    ),
                ),
                sets={},
                exit=Exit(how="route", to="ask"),
            ),
            Visit(
                state="ask",
                type="chat",
                step=3,
                attempt=1,
                began=NOON + 1,
                seconds=0.5,
                activities=(
                    Round(
                        began=NOON + 1,
                        seconds=0.5,
                        earlier=2,
                        messages=(Message(role="tool", content="5", tool_call_id="call00001", name="add"),),
                        reply=Reply(content="5", usage=usage[1]),
                        thread="main",
                        model="default",
                        tools=("add",),
                        tool_choice="auto",
                        sampling={},
                    ),
                ),
                sets={},
                exit=Exit(how="route", to="done", number=1),
            ),
            Visit(
                state="done",
                type="succeeded",
                step=4,
                attempt=1,
                began=NOON + 1.5,
                seconds=0.0,
                activities=(),
                sets={},
                exit=Exit(how="end"),
            ),
        ),
        outcome=transcript.outcome,
        attention=(),
        totals=Totals(steps=4, rounds=2, calls=1, usage=Usage(prompt_tokens=40, completion_tokens=20)),
    )
    assert transcript.outcome is not None
    assert transcript.outcome.output == {"answer": "5"}


def test_another_attempt_is_a_visit_of_its_own() -> None:
    first, second, _ = transcript_of(retried()).visits
    failure = Failure(name="backend.unavailable", message="connection refused", state="ask")
    assert (first.step, first.attempt, first.exit) == (1, 1, Exit(how="retry", to="ask", failure=failure))
    assert (second.step, second.attempt) == (2, 2)
    pause, round_ = second.activities
    assert pause == Pause(
        began=NOON + 0.25, seconds=2.0, planned=2.0, jitter=0.0
    )  # fmt: skip
    assert isinstance(round_, Round)
    assert (round_.messages, round_.earlier) == ((), 1)


def test_a_reply_that_was_cut_off_is_not_on_the_thread() -> None:
    cut = (0.5, Reply(content="Hel", finish_reason="length"))
    recording = Recording(retried().graph, World(replies=[cut, said("Hello!")]))
    first, second, _ = transcript_of(recording).visits
    assert first.exit is not None
    assert first.exit.failure is not None
    assert (first.exit.how, first.exit.failure.name) == ("retry", "model.truncated")
    assert [
        activity.messages for activity in (*first.activities, *second.activities) if isinstance(activity, Round)
    ] == [
        (Message(role="user", content="Hello."),),
        (),
    ]


def test_a_caught_failure_is_known_by_its_catch() -> None:
    assert transcript_of(caught()).visits[1].exit == Exit(
        how="catch",
        to="sorry",
        number=1,
        when="backend.*",
        failure=Failure(name="backend.unavailable", message="connection refused", state="ask"),
    )


def test_what_the_machine_refused_is_shown_with_the_calls() -> None:
    activities = transcript_of(agent()).visits[1].activities
    assert [
        (activity.index, activity.name, activity.status)
        for activity in activities
        if isinstance(activity, FunctionCall)
    ] == [
        (0, "add", "returned"),
        (1, "add", "refused"),
        (2, "multiply", "refused"),
        (3, "add", "failed"),
    ]


def test_variables_are_shown_where_they_were_set() -> None:
    assert [visit.sets for visit in transcript_of(answered()).visits] == [{"asked": 1}, {}, {}, {}]


# --- what somebody has to do something about ----------------------------------------------------------------------


def test_an_open_question_waits() -> None:
    transcript = transcript_of(waiting())
    question = transcript.visits[-1].activities[0]
    assert isinstance(question, Question)
    assert (transcript.status, transcript.attention) == (
        "waiting",
        (Attention(run="r1", step=2, visit=2, state="review", about=question),),
    )


def test_a_call_that_began_is_in_doubt_unless_a_process_drives_it() -> None:
    recording = in_doubt()
    dead, live = transcript_of(recording), transcript_of(recording, live=True)
    assert (dead.status, [one.state for one in dead.attention]) == ("needs_attention", ["pay"])
    assert (live.status, live.attention) == ("running", ())


def test_the_turns_of_an_agent_are_activities_of_one_visit() -> None:
    transcript = transcript_of(team())
    assert transcript.path == ("team", "done")
    assert [
        (
            visit.state,
            visit.step,
            visit.attempt,
            visit.exit and visit.exit.how,
            [_gist(one) for one in visit.activities],
        )
        for visit in transcript.visits
    ] == [
        ("team", 1, 1, "retry", ["round", "add: failed"]),
        ("team", 3, 2, "route", ["pause", "add: 5", "round", "add: 7", "round"]),
        ("done", 7, 1, "end", []),
    ]
    assert transcript.visits[1].sets == {"sum": 7}


def _gist(activity: Activity) -> str:
    if isinstance(activity, FunctionCall):
        return f"{activity.name}: {activity.status if activity.value is None else activity.value}"
    return type(activity).__name__.lower()


def test_calls_that_an_agent_refuses_stand_in_their_turns() -> None:
    bad, good = calls(("add", "{}"), ("add", '{"a": 1, "b": 4}')), calls(("add", '{"a": 1, "b": 4}'), ("none", "{}"))
    world = World(replies=[bad, calls(("none", "{}")), good, said("5")], functions={"tools.numbers:add": (0.1, 5)})
    visit = transcript_of(Recording(graph_of(ADD, TEAM.replace("raise", "return")), world)).visits[0]
    gists = [_gist(one) for one in visit.activities]
    assert gists == [
        "round",
        "add: refused",
        "add: 5",
        "round",
        "none: refused",
        "round",
        "add: 5",
        "none: refused",
        "round",
    ]


def test_a_call_in_doubt_has_the_step_of_its_turn() -> None:
    transcript = transcript_of(team_in_doubt())
    (one,) = transcript.attention
    assert (transcript.status, one.step, one.visit, one.state) == ("needs_attention", 4, 1, "team")
    assert f'href="#r1/{one.visit}"' in render_html(team_in_doubt().graph, transcript)


def test_a_call_that_may_be_made_again_is_never_in_doubt() -> None:
    graph = graph_of(REVIEW.replace(", with:", ", idempotent: true, with:"))
    transcript = transcript_of(Recording(graph, World(), {"amount": 5}))
    (call,) = transcript.visits[-1].activities
    assert isinstance(call, FunctionCall)
    assert (transcript.status, call.status, transcript.attention) == ("interrupted", "open", ())


def test_a_call_begun_again_is_counted() -> None:
    recording = in_doubt()
    recording.recorded.append(Recorded(seq=9, at=NOON + 60, state="pay", event=CallStarted(step=2)))
    recording.recorded.append(Recorded(seq=10, at=NOON + 61, state="pay", event=Returned(step=2, value="e-1")))
    call = transcript_of(recording).visits[1].activities[0]
    assert isinstance(call, FunctionCall)
    assert (call.begins, call.began, call.seconds, call.status) == (2, NOON + 60, 1.0, "returned")


def test_a_child_that_waits_makes_its_parent_wait() -> None:
    recording = given_up()
    kept = [entry for entry in recording.recorded if type(entry.event).__name__ == "Started"]
    transcript = build_transcript(recording.graph, kept, recording.events)
    assert transcript.status == "waiting"
    assert [(one.run, one.state) for one in transcript.attention] == [("r1.1.0", "question"), ("r1.1.1", "question")]


# --- children, ends, late events ----------------------------------------------------------------------------------


def test_children_are_shown_with_their_parent() -> None:
    transcript = transcript_of(family())
    children = [activity for visit in transcript.visits for activity in visit.activities if isinstance(activity, Child)]
    assert [
        (
            child.run,
            child.label,
            child.outcome.status if child.outcome else None,
            child.transcript.path if child.transcript else (),
        )
        for child in children
    ] == [
        ("r1.1.0", "item 0", "succeeded", ("ask", "done")),
        ("r1.1.1", "item 1", "failed", ("ask",)),
        ("r1.1.2", "item 2", "succeeded", ("ask", "done")),
        ("r1.2.0", "banker", "succeeded", ("ask", "done")),
        ("r1.2.1", "lawyer", "succeeded", ("ask", "done")),
        ("r1.3.0", "", "succeeded", ("ask", "done")),
    ]
    assert transcript.totals == Totals(
        steps=4 + 11, rounds=6, children=6, usage=Usage(prompt_tokens=100, completion_tokens=40)
    )


def test_children_that_were_not_recorded_are_named() -> None:
    recording = family()
    transcript = build_transcript(recording.graph, recording.recorded)
    first = transcript.visits[0].activities[0]
    assert isinstance(first, Child)
    assert (first.run, first.inputs, first.transcript) == ("r1.1.0", {"city": "Oslo"}, None)


def test_what_a_state_that_was_left_had_begun_is_given_up() -> None:
    transcript = transcript_of(given_up())
    assert [
        activity.transcript.status
        for activity in transcript.visits[0].activities
        if isinstance(activity, Child) and activity.transcript
    ] == ["given_up"] * 2
    assert (transcript.status, transcript.attention) == ("succeeded", ())


def test_an_event_that_came_too_late_is_not_shown() -> None:
    recording = answered()
    late = Recorded(seq=99, at=NOON + 7300.0, state="paid", event=Answered(step=2, value={"ok": False}))
    before = transcript_of(recording)
    recording.recorded.append(late)
    assert msgspec.structs.replace(transcript_of(recording), seconds=before.seconds) == before


@pytest.mark.parametrize(
    ("recording", "status", "failure", "visits"),
    [
        pytest.param(cancelled(), "cancelled", "run.cancelled", 2, id="cancelled"),
        pytest.param(refused_inputs(), "failed", "input.invalid", 0, id="inputs refused"),
        pytest.param(caught(), "failed", "flow.failed", 3, id="ended in a failed state"),
    ],
)
def test_a_run_that_did_not_succeed(recording: Recording, status: str, failure: str, visits: int) -> None:
    transcript = transcript_of(recording)
    assert transcript.outcome is not None
    assert transcript.outcome.error is not None
    assert (transcript.status, transcript.outcome.error.name, len(transcript.visits)) == (status, failure, visits)


def test_a_machine_that_decides_otherwise_than_was_recorded_is_reported() -> None:
    recording = answered()
    assert transcript_of(recording).diverged_at is None
    recording.recorded[2] = msgspec.structs.replace(recording.recorded[2], state="paid")
    transcript = transcript_of(recording)
    message = "from event 2 on this flowrun decides otherwise than was recorded: what follows is not what happened"
    assert transcript.diverged_at == 2
    assert f"! {message}" in render_text(transcript)
    assert message.capitalize() in render_html(recording.graph, transcript)


def test_a_transcript_is_json_data() -> None:
    data = json.loads(msgspec.json.encode(transcript_of(family())))
    assert data == json.loads(json.dumps(msgspec.to_builtins(transcript_of(family()))))
    assert data["visits"][0]["acts"][0]["kind"] == "child"
    assert data["visits"][0]["acts"][0]["story"]["visits"][0]["acts"][0]["kind"] == "round"


def test_tokens_are_left_out() -> None:
    tokens = Tokens(vocabulary=1, ids=b"\x01\0\0\0", end=1, digest=7)
    world = World(replies=[(0.1, msgspec.structs.replace(calls(("add", "{}"))[1], tokens=tokens)), said("5")])
    assert b'tokens":{' not in msgspec.json.encode(
        transcript_of(Recording(graph_of(ADD, AGENT), world, {"question": ""}))
    )


def test_calls_without_a_function_are_shown_with_their_results() -> None:
    tool = "tools: {note: {parameters: {type: object}, result: Noted.}}\n"
    world = World(replies=[calls(("note", '{"a": 1}')), said("done")])
    transcript = transcript_of(Recording(graph_of(tool, AGENT), world, {"question": "?"}))
    (call,) = transcript.visits[1].activities
    assert isinstance(call, FunctionCall)
    assert (call.tool, call.status, call.arguments, call.value) == ("note", "returned", {"a": 1}, {"a": 1})
    assert transcript.totals.calls == 1


READ = """\
messages: [{role: system, content: Always.}, {role: user, content: Hi.}]
states:
  first: {type: chat, say: [{role: user, content: More?}], next: then}
  then: {type: chat, system: Brief., history: {last: 1}, next: anew}
  anew: {type: route, say: [{replace: true, messages: [{role: user, content: Again.}]}], next: last}
  last: {type: chat, history: none, messages: [{role: user, content: Alone.}], next: done}
  done: {type: end}
"""


def test_a_transcript_shows_what_was_said_and_what_was_not_read() -> None:
    world = World(replies=[said("a"), said("b"), said("c")], functions={})
    recording = Recording(graph_of(READ), world, {})
    transcript = transcript_of(recording)
    rounds = [
        ([message.content for message in one.messages], one.system, one.left_out, one.earlier)
        for visit in transcript.visits
        for one in visit.activities
        if isinstance(one, Round)
    ]
    assert rounds == [
        (["Always.", "Hi."], None, 0, 0),
        ([], "Brief.", 1, 3),
        (["Alone."], None, 1, 0),
    ]
    assert [[(one.thread, one.messages, one.replace) for one in visit.said] for visit in transcript.visits] == [
        [("main", (Message(role="user", content="More?"),), False)],
        [],
        [("main", (Message(role="user", content="Again."),), True)],
        [],
        [],
    ]
    text = render_text(transcript)
    assert "says on the thread main:" in text
    assert "begins the thread anew main:" in text
    assert text.count("1 message of the thread not read") == 2
    assert "says on the thread main" in render_html(recording.graph, transcript)
