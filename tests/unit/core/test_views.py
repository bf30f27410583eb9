"""What templates see is what the views declare: each member, of the declared type, and no other."""

from typing import Any, get_args, get_origin, get_type_hints

import msgspec
import pytest

from flowrun.core.events import ChildEnded, Event, Failed, Outcome, Replied, Returned, StartChild, Started
from flowrun.core.machine import fold
from flowrun.core.messages import Reply, ToolCall, Usage
from flowrun.core.run import RunScope
from flowrun.core.shapes import is_view, shape_of
from flowrun.core.states import KINDS
from flowrun.core.states.children import CollectedView
from flowrun.core.states.map import ItemView
from flowrun.core.views import ReplyView, ResultView, ScopeView
from flowrun.errors import Failure
from flowrun.spec.model import STATES, MapState
from tests.flows import ADD, graph_of

FLOW = """\
inputs: {question: {type: string}}
vars: {seen: 1}
flows:
  part: {inputs: {n: {type: integer}, at: {type: integer}}, states: {end: {type: end, output: 1}}}
states:
  ask: {type: chat, next: act}
  act: {type: tools, next: each}
  each:
    type: map
    flow: "#part"
    for_each: "[7, 8]"
    as: n
    with: {n: "{{ n }}", at: "{{ index }}"}
    on_item_error: collect
    next: call
  call: {type: call, entrypoint: "tools:fail", routes: [{when: reply, to: done}], catch: [{to: done}]}
  done:
    type: end
    output:
      inputs: "{{ inputs }}"
      vars: "{{ vars }}"
      outputs: "{{ outputs }}"
      reply: "{{ reply }}"
      results: "{{ results }}"
      error: "{{ error }}"
      run: "{{ run }}"
      threads: "{{ threads }}"
"""

CALL = ToolCall(id="", name="add", arguments='{"a": 1, "b": 2}')
REPLY = Reply(
    content="so", reasoning="hm", tool_calls=(CALL, CALL), finish_reason="tool_calls", usage=Usage(prompt_tokens=3)
)
FAILED = Failure(name="tool.failed", message="no")
EVENTS: list[Event] = [
    Started(run="r1", inputs={"question": "?"}),
    Replied(step=1, reply=REPLY),
    Returned(step=2, index=0, value=3),
    Failed(step=2, index=1, failure=FAILED),
    ChildEnded(step=3, index=0, outcome=Outcome(status="succeeded", output=1), rounds=0, steps=1, usage=Usage()),
    ChildEnded(step=3, index=1, outcome=Outcome(status="failed", error=FAILED), rounds=0, steps=1, usage=Usage()),
    Failed(step=4, failure=FAILED),
]


def undeclared(value: Any, kind: Any, path: str = "") -> list[str]:
    """Return the paths of the members that are declared and missing, or there and not declared."""
    if get_origin(kind) is list:
        return [found for item in value for found in undeclared(item, get_args(kind)[0], f"{path}[]")]
    kind = next((arg for arg in (kind, *get_args(kind)) if is_view(arg)), None)
    if kind is None or value is None:
        return []
    members = get_type_hints(kind)
    return [f"{path}.{name}" for name in members.keys() ^ value.keys()] + [
        found
        for name in members.keys() & value.keys()
        for found in undeclared(value[name], members[name], f"{path}.{name}")
    ]


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """Return what the templates of the last state of a run saw."""
    run = fold(graph_of(ADD, FLOW), EVENTS).run
    assert run.outcome is not None
    assert run.outcome.status == "succeeded"
    return dict(run.outcome.output)


def test_templates_see_the_declared_names_and_members(seen: dict[str, Any]) -> None:
    assert undeclared(seen, ScopeView) == []


def test_members_have_the_declared_types(seen: dict[str, Any]) -> None:
    assert msgspec.convert(seen, ScopeView) == {**seen, "reply": {**seen["reply"], "usage": Usage(prompt_tokens=3)}}


def test_outputs_are_the_views_of_their_kinds(seen: dict[str, Any]) -> None:
    outputs = seen["outputs"]
    assert undeclared(outputs["ask"], ReplyView) == []
    assert undeclared(outputs["act"], list[ResultView]) == []
    assert undeclared(outputs["each"], list[CollectedView]) == []
    assert msgspec.convert(outputs["each"], list[CollectedView]) == outputs["each"]


def test_a_scope_lists_the_declared_names() -> None:
    assert set(RunScope(fold(graph_of(ADD, FLOW), EVENTS).run)) == ScopeView.__annotations__.keys()


def test_the_templates_of_an_item_see_it_and_its_number() -> None:
    effects = fold(graph_of(ADD, FLOW), EVENTS[:4]).effects
    assert [effect.inputs for effect in effects if isinstance(effect, StartChild)] == [
        {"n": 7, "at": 0},
        {"n": 8, "at": 1},
    ]


def test_the_names_of_a_property_are_those_of_its_view() -> None:
    assert MapState(flow="#a", for_each="b").names_in("with") == ItemView.__annotations__.keys()
    extra = {name: set(kind.extra) for name, kind in KINDS.items() if kind.extra}
    fields = {name: {field.encode_name for field in msgspec.structs.fields(kind)} for name, kind in STATES.items()}
    assert extra == {"map": {"with"}}
    assert all(properties <= fields[name] for name, properties in extra.items())


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (str, {"type": "string"}),
        (str | None, {"type": ["string", "null"]}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (Any, {}),
        (
            CollectedView,
            {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "output": {},
                    "error": {
                        "type": ["object", "null"],
                        "additionalProperties": False,
                        "properties": {
                            "name": {"type": "string"},
                            "message": {"type": "string"},
                            "type": {"type": ["string", "null"]},
                            "state": {"type": "string"},
                        },
                    },
                },
            },
        ),
    ],
    ids=["text", "text or null", "list", "any", "view"],
)
def test_a_type_has_a_shape(kind: Any, shape: Any) -> None:
    assert shape_of(kind) == shape
