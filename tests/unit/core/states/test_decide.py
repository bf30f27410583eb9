"""The decide state: what it asks the model, what it makes of the reply, and that it leaves its thread alone."""

import math
from typing import Any

import msgspec
import pytest

from flowrun.core.events import AskModel, Event, Failed, Outcome, Replied, Sleep, Slept, Started
from flowrun.core.graph import Graph
from flowrun.core.machine import advance, fold
from flowrun.core.messages import Log, Message, Reply, Usage
from flowrun.core.recovery import recover
from flowrun.errors import Failure
from tests.flows import ADD, graph_of

BEGIN = Started(run="r", inputs={"mail": "Water!"})
FLOW = """\
sampling: {temperature: 0.5}
inputs: {mail: {type: string}}
messages: [{role: user, content: "{{ inputs.mail }}"}]
states:
  urgent:
    type: decide
    prompt: "How urgent is '{{ inputs.mail }}'?"
    choices: {high: "as {{ inputs.mail }}", low: ""}
    RETRY
    set: {sure: "{{ outputs.urgent.mass }}"}
    routes:
      - {when: outputs.urgent.probabilities.high > 0.8, to: page}
      - {to: queue}
  page: {type: end, output: "{{ outputs.urgent }}"}
  queue: {type: end, output: [queued, "{{ vars.sure }}"]}
"""
QUESTION = "How urgent is 'Water!'?\n\nA. high: as Water!\nB. low\n\nAnswer with one letter only: A or B."
MAIL = Message(role="user", content="Water!")


def flow(retry: str = "") -> Graph:
    return graph_of(FLOW.replace("RETRY", retry and f"retry: {retry}"))


def reply(high: float, low: float, mass: float = 1.0, **more: Any) -> Reply:
    return Reply(probabilities={"high": high, "low": low}, mass=mass, **more)


def asked(step: int = 1) -> AskModel:
    return AskModel(
        step=step,
        state="urgent",
        run="r",
        flow="test",
        round=step,
        thread="main",
        model="default",
        messages=Log([MAIL, Message(role="user", content=QUESTION)]),
        sampling={"temperature": 0.5},
        labels=("high", "low"),
    )


def test_the_model_is_asked_about_the_thread_and_the_choices() -> None:
    run, effects, _ = fold(flow(), [BEGIN])
    assert effects == (asked(),)
    assert (list(run.threads["main"]), run.rounds, run.asked) == ([MAIL], 1, {})


def test_a_route_reads_the_probabilities_and_the_thread_stays_as_it_is() -> None:
    usage = Usage(prompt_tokens=9, completion_tokens=1)
    run, effects, _ = fold(flow(), [BEGIN, Replied(step=1, reply=reply(0.1, 0.9, 0.25, usage=usage))])
    assert effects == (Outcome(status="succeeded", output=["queued", 0.25]),)
    assert (list(run.threads["main"]), run.usage, run.reply) == ([MAIL], usage, None)


def test_the_output_has_the_choices_in_the_order_of_the_spec() -> None:
    backwards = Reply(probabilities={"low": 0.0625, "high": 0.9375})
    _, effects, _ = fold(flow(), [BEGIN, Replied(step=1, reply=backwards)])
    (outcome,) = effects
    assert isinstance(outcome, Outcome)
    assert msgspec.json.encode(outcome.output) == (
        b'{"choice":"high","probabilities":{"high":0.9375,"low":0.0625},"mass":1.0}'
    )


@pytest.mark.parametrize(
    ("given", "name", "message"),
    [
        pytest.param(
            Reply(content="A"), "model.invalid_output", "no probabilities of the choices, but the text 'A'", id="text"
        ),
        pytest.param(Reply(), "model.invalid_output", "the reply has no probabilities of the choices", id="nothing"),
        pytest.param(Reply(probabilities={"high": 1}), "model.invalid_output", "no probability of 'low'", id="missing"),
        pytest.param(
            Reply(probabilities={"high": 0.5, "low": 0.5, "medium": 0.0}),
            "model.invalid_output",
            "a probability of 'medium', no choice",
            id="unknown",
        ),
        pytest.param(reply(0.5, 0.25), "model.invalid_output", "sum to 1: high 0.5, low 0.25", id="too little"),
        pytest.param(reply(1.5, -0.5), "model.invalid_output", "be at least 0 and sum to 1", id="negative"),
        pytest.param(reply(math.nan, 1.0), "model.invalid_output", "no probability of 'high'", id="no number"),
        pytest.param(reply(0.5, 0.5, 1.5), "model.invalid_output", "mass must be from 0 to 1, and is 1.5", id="mass"),
        pytest.param(
            reply(0.5, 0.5, finish_reason="content_filter"), "model.declined", "declined to reply", id="declined"
        ),
        pytest.param(Reply(refusal="I will not."), "model.declined", "declined to reply: I will not.", id="refused"),
        pytest.param(Reply(finish_reason="length"), "model.truncated", "reached max_tokens", id="cut off"),
    ],
)
def test_a_reply_that_decides_nothing_is_a_named_failure(given: Reply, name: str, message: str) -> None:
    _, (outcome,), _ = fold(flow(), [BEGIN, Replied(step=1, reply=given)])
    assert isinstance(outcome, Outcome)
    assert outcome.error is not None
    assert (outcome.error.name, outcome.error.state) == (name, "urgent")
    assert message in outcome.error.message


@pytest.mark.parametrize(
    "failed",
    [
        pytest.param(Replied(step=1, reply=Reply(content="Hm.")), id="by its reply"),
        pytest.param(Failed(step=1, failure=Failure(name="backend.unavailable", message="gone")), id="by its backend"),
    ],
)
def test_another_attempt_asks_anew(failed: Event) -> None:
    graph = flow("{max_attempts: 2, delay: 1s, jitter: 0}")
    run, effects, _ = fold(graph, [BEGIN, failed])
    assert effects == (Sleep(step=2, seconds=1),)
    run, effects, _ = advance(graph, run, Slept(step=2))
    assert (effects, run.rounds) == ((asked(step=2),), 2)


def test_rounds_are_limited() -> None:
    graph = graph_of(
        "limits: {max_rounds: 1}\n",
        "states: {a: {type: decide, prompt: '?', choices: [x, y], next: a}}\n",
    )
    _, (outcome,), _ = fold(
        graph, [Started(run="r", inputs={}), Replied(step=1, reply=Reply(probabilities={"x": 1, "y": 0}))]
    )
    assert isinstance(outcome, Outcome)
    assert outcome.error is not None
    assert (outcome.error.name, outcome.error.state) == ("limit.rounds", "a")


def test_open_calls_must_be_answered_before() -> None:
    graph = graph_of(
        ADD,
        """
        messages: [{role: user, content: Go.}]
        states:
          ask: {type: chat, routes: [{when: reply.tool_calls, to: pick}, {to: pick}]}
          pick: {type: decide, prompt: "?", choices: [x, y], next: e}
          e: {type: end}
        """,
    )
    call = {"id": "c", "name": "add", "arguments": "{}"}
    calling = msgspec.convert({"tool_calls": [call], "finish_reason": "tool_calls"}, Reply)
    _, (outcome,), _ = fold(graph, [Started(run="r", inputs={}), Replied(step=1, reply=calling)])
    assert isinstance(outcome, Outcome)
    assert outcome.error is not None
    assert (outcome.error.name, outcome.error.state) == ("model.invalid_conversation", "pick")


def test_the_prompt_begins_as_the_last_one_of_its_thread_tools_included() -> None:
    graph = graph_of(
        ADD,
        """
        messages: [{role: user, content: Go.}]
        states:
          ask: {type: chat, routes: [{when: reply.tool_calls, to: use}, {to: pick}]}
          use: {type: tools, next: ask}
          pick: {type: decide, prompt: "?", choices: [x, y], next: e}
          e: {type: end}
        """,
    )
    run, (first,), _ = fold(graph, [Started(run="r", inputs={})])
    _, (second,), _ = advance(graph, run, Replied(step=1, reply=Reply(content="Done.")))
    assert isinstance(first, AskModel)
    assert isinstance(second, AskModel)
    assert list(second.messages)[: len(first.messages)] == list(first.messages)
    assert (second.tools, second.tool_choice) == (first.tools, "none")


def test_what_a_decide_state_says_is_all_that_comes_onto_its_thread() -> None:
    graph = graph_of(
        FLOW.replace("    RETRY\n", '    say: [{role: user, content: "So: {{ outputs.urgent.choice }}."}]\n')
    )
    run, _, _ = fold(graph, [BEGIN, Replied(step=1, reply=reply(0.75, 0.25))])
    assert list(run.threads["main"]) == [MAIL, Message(role="user", content="So: high.")]


@pytest.mark.parametrize(
    ("keys", "read"),
    [
        pytest.param("", ["system: Sort.", "user: One.", "assistant: Two.", "user: Three."], id="the thread"),
        pytest.param(
            'system: "Judge {{ inputs.mail }}."',
            ["system: Judge Water!.", "user: One.", "assistant: Two.", "user: Three."],
            id="a system message of its own",
        ),
        pytest.param(
            "history: {last: 1}", ["system: Sort.", "user: One.", "assistant: Two.", "user: Three."], id="last"
        ),
        pytest.param("history: none", [], id="nothing of the thread"),
        pytest.param("{history: none, system: Judge.}", ["system: Judge."], id="its own alone"),
    ],
)
def test_a_decision_reads_its_thread_as_a_chat_does(keys: str, read: list[str]) -> None:
    graph = graph_of(
        """
        inputs: {mail: {type: string}}
        messages:
          - {role: system, content: Sort.}
          - {role: user, content: One.}
          - {role: assistant, content: Two.}
          - {role: user, content: Three.}
        states:
          pick: {type: decide, prompt: "?", choices: [x, y], KEYS next: e}
          e: {type: end}
        """.replace("KEYS", f"{keys.strip('{}') if keys.startswith('{') else keys}," if keys else "")
    )
    run, (request,), _ = fold(graph, [BEGIN])
    assert isinstance(request, AskModel)
    *others, question = request.messages
    assert [f"{message.role}: {message.content}" for message in others] == read
    assert question.content == "?\n\nA. x\nB. y\n\nAnswer with one letter only: A or B."
    assert request.previous is (run.threads["main"] if keys else None)


def test_a_decision_is_the_round_that_reads_a_new_thread() -> None:
    graph = graph_of(
        """
        messages: [{role: user, content: One.}]
        states:
          ask: {type: chat, say: [{thread: main, replace: true, messages: [{role: user, content: Two.}]}], next: pick}
          pick: {type: decide, prompt: "?", choices: [x, y], next: again}
          again: {type: chat, next: e}
          e: {type: end}
        """
    )
    run, _, _ = fold(graph, [Started(run="r", inputs={})])
    run, (pick,), _ = advance(graph, run, Replied(step=1, reply=Reply(content="Hm.")))
    _, (again,), _ = advance(graph, run, Replied(step=2, reply=Reply(probabilities={"x": 1, "y": 0})))
    assert isinstance(pick, AskModel)
    assert isinstance(again, AskModel)
    assert pick.previous is not None
    assert [message.content for message in pick.previous] == ["One.", "Hm."]
    assert again.previous is None


def test_a_template_may_choose_the_model() -> None:
    graph = graph_of(
        """
        models: {small: {backend: scripted, name: r.yaml, sampling: {temperature: 0.25}}}
        inputs: {model: {type: string}}
        states:
          pick: {type: decide, model: "{{ inputs.model }}", prompt: "?", choices: [x, y], next: e}
          e: {type: end}
        """
    )
    _, (request,), _ = fold(graph, [Started(run="r", inputs={"model": "small"})])
    assert isinstance(request, AskModel)
    assert (request.model, request.sampling) == ("small", {"temperature": 0.25})
    _, (outcome,), _ = fold(graph, [Started(run="r", inputs={"model": "large"})])
    assert isinstance(outcome, Outcome)
    assert outcome.error is not None
    assert (outcome.error.name, outcome.error.message) == (
        "template.failed",
        "model gave 'large'; there are: small, default",
    )


def test_a_recorded_decision_is_the_same_when_it_is_read_back() -> None:
    events: list[Event] = [BEGIN, Replied(step=1, reply=reply(0.9375, 0.0625, 0.5))]
    again = [msgspec.json.decode(msgspec.json.encode(event), type=Event) for event in events]
    assert again == events
    assert recover(flow(), again).run.outcome == fold(flow(), events).run.outcome


def test_a_reply_recorded_before_there_were_decisions_is_read() -> None:
    old = b'{"kind":"Replied","step":1,"reply":{"content":"Hi","usage":{"prompt_tokens":3,"completion_tokens":1}}}'
    usage = Usage(prompt_tokens=3, completion_tokens=1)
    assert msgspec.json.decode(old, type=Event) == Replied(step=1, reply=Reply(content="Hi", usage=usage))
