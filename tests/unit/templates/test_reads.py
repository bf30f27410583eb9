"""The names that templates and expressions read are found in their text; nothing is evaluated."""

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from jinja2 import nodes

from flowrun.checks import Subject, check_spec
from flowrun.spec import FlowTree, parse_text
from flowrun.templates import TemplateError, compile_value
from flowrun.templates.reads import Keys, reads_of_expression, reads_of_template


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        pytest.param("reply.tool_calls", {("reply", "tool_calls")}, id="a path"),
        pytest.param("inputs['q'] and vars.a.b", {("inputs", "q"), ("vars", "a", "b")}, id="an item by its key"),
        pytest.param("results[0].value", {("results", 0, "value")}, id="an item by its index"),
        pytest.param("reply.content.strip() == 'x'", {("reply", "content")}, id="a method call"),
        pytest.param("vars.get(inputs.key)", {("vars",), ("inputs", "key")}, id="argument of a method"),
        pytest.param("vars[inputs.key]", {("vars",), ("inputs", "key")}, id="an item by a computed key"),
        pytest.param("'a' in outputs", {("outputs",)}, id="a test for a key"),
        pytest.param("true", set(), id="a constant"),
    ],
)
def test_reads_of_expressions(text: str, paths: set[Keys]) -> None:
    assert reads_of_expression(text).paths == paths


@pytest.mark.parametrize(
    ("text", "roots", "guarded"),
    [
        pytest.param("a {{ inputs.q }} b {{reply.content}}", {"inputs", "reply"}, set(), id="bare paths"),
        pytest.param(
            "{% for x in inputs.q %}{{ x.y }}{{ loop.index }}{% endfor %}", {"inputs"}, set(), id="loop variable"
        ),
        pytest.param("{% set z = 1 %}{{ z }}{{ range(3) }}{{ loose }}", {"loose"}, set(), id="own variable"),
        pytest.param("{{ vars.a | default(1) }}", {"vars"}, {("vars", "a")}, id="a default"),
        pytest.param("{{ 1 if reply is defined else 2 }}", {"reply"}, {("reply",)}, id="a test"),
        pytest.param("{{ 1 if 'a' in vars else 2 }}", {"vars"}, {("vars", "a")}, id="a test for a key"),
        pytest.param('{"a": 1}', set(), set(), id="no template"),
    ],
)
def test_reads_of_templates(text: str, roots: set[str], guarded: set[Keys]) -> None:
    reads = reads_of_template(text)
    assert (set(reads.roots), set(reads.guarded)) == (roots, guarded)


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        pytest.param("reply is calling('a') or outputs.ask is not calling 'b'", True, id="replies"),
        pytest.param("reply is calling(vars.name) or vars[inputs.x] is calling('a')", False, id="what is not known"),
    ],
)
def test_calls_that_are_asked_about(text: str, calls: bool) -> None:
    found = {(("reply",), "a"), (("outputs", "ask"), "b")}
    assert reads_of_expression(text).calls == (found if calls else set())


@pytest.mark.parametrize(
    "text",
    [
        *("1 2", "a b", "[x for x in y]", "x | no_such", "x is no_such", "1, }} {{ 2", "-" * 200 + "1"),
        *("reply is calling", "reply is calling()", "reply is calling('a', 'b')", "reply is calling(name='a')"),
    ],
)
def test_invalid_expressions(text: str) -> None:
    with pytest.raises(TemplateError):
        reads_of_expression(text)


def evaluated(action: Callable[[], object]) -> list[str]:
    """Return what an action evaluates of templates: functions of compiled ones, and constants that Jinja2 folds."""
    found: list[str] = []

    def note(frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event != "call":
            return
        if code.co_filename == "<template>" and code.co_name != "<module>":
            found.append(code.co_name)
        elif code.co_name == "as_const" and not isinstance(frame.f_locals["self"], (nodes.Const, nodes.TemplateData)):
            found.append(type(frame.f_locals["self"]).__name__)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(before)
    return found


def evaluate(text: str) -> None:
    with suppress(TemplateError):  # most are too expensive
        compile_value(text)({})


@pytest.mark.parametrize(
    "text",
    [
        "{{ 'a' | center(10 ** 10) }}",
        "{% for i in range(10 ** 9) %}x{% endfor %}",
        "{{ 9 ** 9 ** 9 ** 9 }}",
        "{{ 'x' * 10 ** 12 }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '{:999999999}'.format(1) }}",
    ],
)
def test_checking_evaluates_nothing(text: str) -> None:
    bare = text.strip("{}% ")
    states = {
        "s": {
            "type": "call",
            "entrypoint": "tools.weather:get_current_weather",
            "with": {"a": text},
            "set": {"x": text},
            "routes": [{"when": bare, "to": "e"}, {"to": "m"}],
        },
        "m": {"type": "map", "flow": "#f", "for_each": bare, "with": {"a": text}, "next": "w"},
        "w": {"type": "wait", "prompt": text, "next": "e"},
        "e": {"type": "end", "output": [text, "{{ vars.x }}"]},
    }
    spec = {
        "flowrun": "v1",
        "name": "x",
        "version": "1.0.0",
        "vars": {"x": text},
        "states": states,
        "messages": [{"role": "user", "content": text}],
        "flows": {"f": {"inputs": {"a": {}}, "states": {"e": {"type": "end"}}}},
    }
    subject = Subject(tree=FlowTree(loaded=parse_text(json.dumps(spec)), model_dir=Path()))
    assert evaluated(lambda: check_spec(subject)) == []
    assert {issue.code for issue in check_spec(subject)} <= {"FR304", "FR401", "FR403"}
    assert set(evaluated(lambda: evaluate(text))) == {"root"}
