"""What ``retry`` and ``catch`` do with a failure: their conditions, what they set, and what ``error`` has."""

from typing import Any

import msgspec
import pytest

from flowrun.core.events import Event, Failed, Move, Outcome, Replied, Sleep, Slept, Started
from flowrun.core.machine import Run, Transition, fold
from flowrun.core.messages import Reply
from flowrun.errors import Failure
from tests.flows import graph_of

BEGIN = Started(run="r", inputs={})
BUSY = Failure(name="tool.failed", message="HTTPError: 503", types=("HTTPError", "URLError", "OSError", "Exception"))


def call(**handlers: Any) -> str:
    state = {"type": "call", "entrypoint": "m:fetch", "next": "done", **handlers}
    ends: dict[str, Any] = {"done": {"type": "end", "output": {"vars": "{{ vars }}", "error": "{{ error | default }}"}}}
    ends["other"] = {"type": "end", "output": "other"}
    return f"vars: {{tries: 0}}\nstates: {msgspec.json.encode({'fetch': state, **ends}).decode()}\n"


def failing(text: str, *events: Event, failure: Failure = BUSY) -> Transition:
    return fold(graph_of(text), [BEGIN, *events, Failed(step=1 + len(events), failure=failure)])


def output_of(run: Run) -> Any:
    assert run.outcome is not None
    return run.outcome.output


# --- when ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("retry", "again"),
    [
        pytest.param({"when": "error.type == 'HTTPError'"}, True, id="the class"),
        pytest.param({"when": "error.type == 'OSError'"}, True, id="a base class"),
        pytest.param({"when": "error.type in ['ValueError', 'URLError']"}, True, id="one of several"),
        pytest.param({"when": "error.type == 'ValueError'"}, False, id="another class"),
        pytest.param({"when": "error.type != 'OSError'"}, False, id="not a base class"),
        pytest.param({"when": "'503' in error.message"}, True, id="the message"),
        pytest.param({"when": "run.attempt < 2 and error.attempt == 1"}, True, id="the attempt"),
        pytest.param({"errors": ["tool.*"], "when": "error.type == 'HTTPError'"}, True, id="both hold"),
        pytest.param({"errors": ["model.*"], "when": "error.type == 'HTTPError'"}, False, id="errors does not hold"),
        pytest.param({"errors": ["tool.*"], "when": "error.state == 'other'"}, False, id="when does not hold"),
    ],
)
def test_another_attempt_needs_both_the_name_and_the_condition(retry: dict[str, Any], again: bool) -> None:
    _, effects, moves = failing(call(retry={"max_attempts": 2, "jitter": 0, **retry}))
    failure = msgspec.structs.replace(BUSY, state="fetch")
    if again:
        assert (effects, moves[-1].how) == ((Sleep(step=2, seconds=1.0),), "retry")
    else:
        assert (effects, moves[-1].how) == ((Outcome(status="failed", error=failure),), "end")


def test_the_first_catch_whose_name_and_condition_hold_is_taken() -> None:
    catches = [
        {"errors": ["model.*"], "to": "other"},
        {"when": "error.type == 'KeyError'", "to": "other"},
        {"errors": ["tool.failed"], "when": "error.type == 'URLError'", "to": "done"},
        {"to": "other"},
    ]
    _, _, moves = failing(call(catch=catches))
    failure = msgspec.structs.replace(BUSY, state="fetch")
    assert moves[0] == Move(state="fetch", step=1, how="catch", to="done", index=2, failure=failure)


# --- set ----------------------------------------------------------------------------------------------------------


def test_a_catch_sets_variables_in_order_and_sees_the_error() -> None:
    sets = {"tries": "{{ vars.tries + 1 }}", "why": "{{ vars.tries }}: {{ error.type }} in {{ error.state }}"}
    run, _, moves = failing(call(catch=[{"set": sets, "to": "done"}]))
    assert output_of(run)["vars"] == moves[0].sets == {"tries": 1, "why": "1: HTTPError in fetch"}


def test_the_error_is_plain_data_wherever_it_goes() -> None:
    run, _, moves = failing(call(catch=[{"set": {"all": "{{ error }}", "kind": "{{ error.type }}"}, "to": "done"}]))
    seen = {
        "name": "tool.failed",
        "message": "HTTPError: 503",
        "type": "HTTPError",
        "state": "fetch",
        "attempt": 1,
        "reply": None,
    }
    assert output_of(run) == {"vars": {"tries": 0, "all": seen, "kind": "HTTPError"}, "error": seen}
    assert msgspec.json.decode(msgspec.json.encode(moves[0].sets)) == {"all": seen, "kind": "HTTPError"}


def test_the_error_counts_the_attempts() -> None:
    catches = [{"set": {"tries": "{{ error.attempt }}"}, "to": "done"}]
    flow = call(retry={"max_attempts": 2}, catch=catches)
    run, _, _ = fold(
        graph_of(flow), [BEGIN, *(Failed(step=1, failure=BUSY), Slept(step=2), Failed(step=2, failure=BUSY))]
    )
    assert output_of(run)["vars"] == {"tries": 2}


def test_the_error_has_the_reply_that_failed() -> None:
    flow = """
    messages: [{role: user, content: Go.}]
    states:
      ask: {type: chat, catch: [{errors: [model.truncated], to: done}], next: done}
      done: {type: end, output: "{{ error.reply }}"}
    """
    reply = Reply(content="Once upon", text="<think></think>Once upon", finish_reason="length")
    run, _, _ = fold(graph_of(flow), [BEGIN, Replied(step=1, reply=reply)])
    assert output_of(run) == {"content": "Once upon", "text": "<think></think>Once upon"}


# --- handlers that fail -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "handlers",
    [
        pytest.param(
            {"retry": {"when": "1 // 0 == 1"}, "catch": [{"errors": ["template.failed"], "to": "done"}]}, id="retry"
        ),
        pytest.param(
            {"catch": [{"when": "1 // 0 == 1", "to": "other"}, {"errors": ["template.failed"], "to": "done"}]},
            id="when",
        ),
        pytest.param(
            {
                "catch": [
                    {"set": {"tries": 7, "half": "{{ 1 // 0 }}"}, "to": "other"},
                    {"errors": ["template.failed"], "to": "done"},
                ]
            },
            id="set, of which nothing stays",
        ),
    ],
)
def test_a_handler_that_fails_is_a_failure_for_those_behind_it(handlers: dict[str, Any]) -> None:
    run, _, _ = failing(call(**handlers))
    output = output_of(run)
    assert (output["vars"], output["error"]["name"]) == ({"tries": 0}, "template.failed")
    assert output["error"]["message"].endswith(
        "integer division or modulo by zero, in the handling of tool.failed: HTTPError: 503"
    )


def test_a_handler_that_fails_is_not_asked_again() -> None:
    run, effects, _ = failing(call(retry={"when": "1 // 0 == 1"}, catch=[{"when": "1 // 0 == 1", "to": "done"}]))
    assert run.status == "failed"
    assert run.outcome is not None
    assert run.outcome.error is not None
    assert (run.outcome.error.name, run.outcome.error.state) == ("template.failed", "fetch")
    assert effects == (run.outcome,)


def test_an_event_of_an_earlier_version_reads_on() -> None:
    old = b'{"kind":"Failed","step":1,"failure":{"name":"tool.failed","message":"no"}}'
    event = msgspec.json.decode(old, type=Failed)
    assert event == Failed(step=1, failure=Failure(name="tool.failed", message="no"))
    assert failing(call(retry={"when": "error.type is none"}), failure=event.failure).run.awaiting == "sleep"
