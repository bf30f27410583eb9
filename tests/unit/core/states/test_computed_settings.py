"""``model``, ``tools`` and ``tool_choice`` of a state may be one template each, rendered for each request."""

from pathlib import Path
from typing import Any

import pytest

from flowrun.checks import Subject, check_spec
from flowrun.core.events import AskModel, CallFunction, Event, Replied, Returned, Started
from flowrun.core.graph import Graph
from flowrun.core.machine import fold
from flowrun.core.messages import Reply, ToolCall
from flowrun.drawing.picture import build_picture
from flowrun.errors import Failure
from flowrun.runtime.project import Project
from flowrun.spec import FlowTree, parse_text
from tests.flows import ADD, graph_of

FLOW = """\
inputs: {model: {}, tools: {}, choice: {}}
models: {small: {backend: scripted, name: replies.yaml, sampling: {seed: 7}}}
sampling: {max_tokens: 9}
messages: [{role: user, content: hi}]
states:
  ask:
    type: chat
    model: "{{ inputs.model }}"
    tools: "{{ inputs.tools }}"
    tool_choice: "{{ inputs.choice }}"
    sampling: {top_p: 0.5}
    routes: [{when: reply.tool_calls, to: act}, {to: done}]
  act: {type: tools, next: ask}
  done: {type: end, output: "{{ reply.content }}"}
"""
BOTH = ADD + ADD.partition("\n")[2].replace("add:", "sub:")


@pytest.fixture(scope="module")
def graph() -> Graph:
    return graph_of(BOTH, FLOW)


def begun(model: Any = "default", tools: Any = ("add",), choice: Any = "auto") -> Event:
    inputs = {"model": model, "tools": [*tools] if isinstance(tools, tuple) else tools, "choice": choice}
    return Started(run="r", inputs=inputs)


def called(*names: str, step: int = 1) -> Event:
    calls = tuple(ToolCall(id="", name=name, arguments='{"a": 1, "b": 2}') for name in names)
    return Replied(step=step, reply=Reply(tool_calls=calls))


def test_a_request_is_made_with_what_the_templates_give(graph: Graph) -> None:
    (request,) = fold(graph, [begun("small", ("sub", "add"), "sub")]).effects
    assert isinstance(request, AskModel)
    assert (request.model, [tool.name for tool in request.tools], request.tool_choice, request.sampling) == (
        "small",
        ["sub", "add"],
        "sub",
        {"max_tokens": 9, "seed": 7, "top_p": 0.5},
    )


def test_they_are_rendered_for_each_request() -> None:
    graph = graph_of(BOTH, FLOW.replace("inputs.tools", "['add'] if run.rounds == 0 else ['sub']"))
    start = [begun(), called("add", "sub")]
    assert [tool.name for tool in _request(graph, *start, Returned(step=2, index=0, value=3)).tools] == ["sub"]


def _request(graph: Graph, *events: Event) -> AskModel:
    (request,) = fold(graph, events).effects
    assert isinstance(request, AskModel)
    return request


def test_only_what_was_offered_is_called(graph: Graph) -> None:
    transition = fold(graph, [begun(tools=("add",)), called("sub", "add")])
    assert [effect.tool for effect in transition.effects if isinstance(effect, CallFunction)] == ["add"]
    thread = fold(graph, [begun(tools=("add",)), called("sub", "add"), Returned(step=2, index=1, value=3)]).run.threads
    assert [message.content for message in thread["main"]][2:] == [
        "error: tool.unknown: there is no tool 'sub'; there are: add",
        "3",
    ]


@pytest.mark.parametrize(
    ("choice", "tools", "reply", "message"),
    [
        pytest.param(
            "required", ("add",), Reply(content="No."), "tool_choice is required, but the reply calls no tool: 'No.'"
        ),
        pytest.param("none", ("add",), called("add"), "tool_choice is none, but the reply calls add"),
        pytest.param("add", ("add", "sub"), called("sub"), "tool_choice is add, but the reply calls sub"),
    ],
)
def test_the_reply_obeys_the_choice_that_was_rendered(
    choice: str, tools: tuple[str, ...], reply: Any, message: str, graph: Graph
) -> None:
    replied = reply if isinstance(reply, Replied) else Replied(step=1, reply=reply)
    outcome = fold(graph, [begun(choice=choice, tools=tools), replied]).run.outcome
    assert outcome is not None
    assert outcome.error == Failure(name="model.invalid_call", message=message, state="ask")


def test_a_choice_asks_for_nothing_where_no_tools_are_offered(graph: Graph) -> None:
    run = fold(graph, [begun(tools=(), choice="required"), Replied(step=1, reply=Reply(content="Hi."))]).run
    assert run.outcome is not None
    assert run.outcome.output == "Hi."


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"model": "big"}, "model gave 'big'; there are: small, default"),
        ({"model": 5}, "model gave '5'; there are: small, default"),
        ({"tools": ["add", "div"]}, "tools gave 'div'; there are: add, sub"),
        ({"tools": [{"name": "add"}]}, "tools gave {'name': 'add'}; there are: add, sub"),
        ({"tools": "add"}, "tools gave 'add'; there are: a list of names"),
        ({"tools": None}, "tools gave None; there are: a list of names"),
        ({"choice": "maybe"}, "tool_choice gave 'maybe'; there are: auto, required, none, add"),
        ({"choice": "sub"}, "tool_choice gave 'sub'; there are: auto, required, none, add"),
        ({"choice": "x", "tools": ()}, "tool_choice gave 'x'; there are: auto, required, none"),
    ],
    ids=str,
)
def test_any_other_value_fails_the_state(wrong: dict[str, Any], message: str, graph: Graph) -> None:
    outcome = fold(graph, [begun(**wrong)]).run.outcome
    assert outcome is not None
    assert outcome.error == Failure(name="template.failed", message=message, state="ask")


# --- before a run -------------------------------------------------------------------------------------------------


def issues(text: str) -> list[tuple[str, str]]:
    tree = FlowTree(loaded=parse_text(text, "spec.yaml"), model_dir=Path())
    return [(issue.code, issue.message) for issue in check_spec(Subject(tree=tree))]


SPEC = """\
flowrun: v1
name: test
version: 1.0.0
model: {backend: vllm, name: a, tool_call_parser: hermes}
models: {other: {backend: vllm, name: b}}
tools:
  one: {entrypoint: "a:one", parameters: {type: object, properties: {x: {type: number, multipleOf: 2}}}}
  two: {entrypoint: "a:two", parameters: {type: object}}
vars: {model: default, tools: [one], choice: auto}
messages: [{role: user, content: hi}]
states:
  ask:
    type: chat
    model: "{{ vars.model }}"
    tools: "{{ vars.tools }}"
    tool_choice: "{{ vars.choice }}"
    sampling: {top_p: 2}
    set: {model: other, tools: "{{ [] }}", choice: none}
    routes: [{when: reply.tool_calls, to: act}, {to: done}]
  act: {type: tools, next: ask}
  done: {type: end, output: "{{ reply.content }}"}
"""


def test_validate_assumes_all_models_and_tools() -> None:
    assert issues(SPEC) == [
        ("FR507", "no grammar of vLLM's xgrammar can enforce 'multipleOf'"),
        ("FR605", "state 'ask' offers tools, but nothing says how the model 'other' calls them"),
        ("FR602", "the sampling parameter 'top_p' must be above 0 and at most 1, and is the number 2"),
    ]


@pytest.mark.parametrize("key", ["model", "tools", "tool_choice"])
def test_the_templates_are_checked_like_all_others(key: str) -> None:
    variable = key.removeprefix("tool_")
    wrong = SPEC.replace(f'{key}: "{{{{ vars.{variable} }}}}"', f'{key}: "{{{{ vars.nothing[reply.content] }}}}"')
    found = [message for code, message in issues(wrong) if code in ("FR404", "FR405")]
    assert found == [
        "vars.nothing is not defined in '{{ vars.nothing[reply.content] }}'",
        "reply is not set on the path ask",
    ]


def test_a_name_without_braces_is_no_template() -> None:
    wrong = SPEC.replace('"{{ vars.model }}"', "othr").replace('"{{ vars.choice }}"', "thre")
    assert [message for code, message in issues(wrong) if code in ("FR702", "FR704")] == [
        "there is no model 'othr'",
        "there is no tool 'thre'",
    ]


def test_a_drawing_says_what_templates_give() -> None:
    box = next(box for box in build_picture(parse_text(SPEC).spec).boxes if box.name == "ask")
    assert box.caption == "chat · model by template · tools by template"


def test_all_models_are_there_if_a_template_names_one(tmp_path: Path) -> None:
    models = "model: {backend: scripted, name: a.yaml}\nmodels: {other: {backend: scripted, name: b.yaml}}\n"
    (tmp_path / "spec.yaml").write_text(SPEC.partition("model:")[0] + models + STATES)
    assert list(Project().compile(tmp_path / "spec.yaml").models) == ["other", "default"]


STATES = """\
vars: {model: default}
messages: [{role: user, content: hi}]
states:
  ask: {type: chat, model: "{{ vars.model }}", next: done}
  done: {type: end, output: "{{ reply.content }}"}
"""
