"""Hostile specs and hostile replies: an issue list or a named error, never another exception, never a hang."""

import asyncio
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowrun.backends.scripted import ScriptedBackend
from flowrun.core.events import CallFunction
from flowrun.core.machine import Run
from flowrun.core.messages import Message, Reply, ToolCall
from flowrun.errors import CODES, FAILURES, Issue
from flowrun.runtime.project import Project
from flowrun.runtime.runner import Runner
from flowrun.spec import load_spec
from flowrun.spec.model import JSON
from tests.flows import ADD, AGENT, graph_of

VALID = sorted((Path(__file__).parents[1] / "cases" / "valid").glob("*.yaml"))
SPECS = [msgspec.to_builtins(load_spec(path).document.value) for path in VALID]

# --- specs ----------------------------------------------------------------------------------------------------------

ODD_TEXTS = [
    "",
    "#nowhere",
    "{{ inputs.x.y | default(reply) }}",
    "{% for x in y recursive %}{{ loop(x) }}{% endfor %}",
    "{{ self }}{{ loop }}{{ caller() }}",
    "{% set reply = 1 %}{{ reply.x[0]['y'][1:2] }}",
    "{{ ",
    "{{ 'a' in outputs and outputs.s.t.u }}",
    "reply.parsed.a.b == 'c'",
    "not not x is defined",
    "results[0][-1]['a']",
    "${X",
    "\x00",
    "\ud800".encode("utf-8", "surrogatepass").decode("utf-8", "replace"),
    "x" * 200,
    "../../../../etc/passwd",
    "9" * 400,
]
odd_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(min_value=-(2**63), max_value=2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(ODD_TEXTS),
    st.text(max_size=20),
    st.lists(st.sampled_from(ODD_TEXTS), max_size=3),
    st.dictionaries(st.text(max_size=5), st.sampled_from(ODD_TEXTS), max_size=3),
)


def places(value: JSON) -> Iterator[tuple[Any, Any]]:
    """Give every container of a value with each of its keys."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])


@st.composite
def mutated_specs(draw: st.DrawFn) -> JSON:
    """Change a few places of a valid spec: another value, another key, one less, a copy from elsewhere."""
    spec = copy.deepcopy(draw(st.sampled_from(SPECS)))
    for _ in range(draw(st.integers(min_value=1, max_value=4))):
        found = list(places(spec))
        if not found:
            break
        holder, key = found[draw(st.integers(min_value=0, max_value=len(found) - 1))]
        match draw(st.sampled_from(["replace", "remove", "rename", "copy"])):
            case "replace":
                holder[key] = draw(odd_values)
            case "remove":
                del holder[key]
            case "rename" if isinstance(holder, dict):
                holder[draw(st.sampled_from([*map(str, holder), "type", "next", "routes", "x"]))] = holder.pop(key)
            case _:
                source, other = found[draw(st.integers(min_value=0, max_value=len(found) - 1))]
                holder[key] = copy.deepcopy(source[other])
    return spec


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


def checked(folder: Path, text: str) -> list[Issue]:
    file = folder / "spec.yaml"
    file.write_text(text, encoding="utf-8", errors="replace")
    return Project(require_environment=False).check(file, imports=False)


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(spec=mutated_specs())
def test_any_change_of_a_valid_spec_gives_issues_or_passes(folder: Path, spec: JSON) -> None:
    issues = checked(folder, json.dumps(spec))
    assert [issue for issue in issues if issue.code not in CODES or not issue.message] == []


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(template=st.text(alphabet="{}%#()[]|.:,'\"~+-*/ =<>andornotifelsinputs0129_\n", max_size=60))
def test_any_template_gives_issues_or_passes(folder: Path, template: str) -> None:
    end = {"type": "end", "output": ["{{" + template + "}}", "{%" + template + "%}", template]}
    routes = [{"when": template or "x", "to": "e"}, {"to": "e"}]
    states = {"s": {"type": "route", "set": {"v": template}, "routes": routes}, "e": end}
    spec = {"flowrun": "v1", "name": "x", "version": "1.0.0", "states": states}
    issues = checked(folder, json.dumps(spec))
    assert [issue for issue in issues if issue.code not in CODES or not issue.message] == []


# --- replies --------------------------------------------------------------------------------------------------------


class Adder:
    """Adds, and counts how often it was asked to."""

    def __init__(self) -> None:
        self.calls: list[JSON] = []

    async def call(self, effect: CallFunction) -> JSON:
        self.calls.append(effect.arguments)
        return effect.arguments["a"] + effect.arguments["b"]


def converse(*replies: Reply, spec: str = ADD + AGENT) -> tuple[Run, Adder]:
    """Run a flow on given replies, then on one that ends it."""
    adder = Adder()
    runner = Runner(backends={"default": ScriptedBackend([*replies, Reply(content="done")])}, functions=adder)
    result = asyncio.run(runner.run(graph_of(spec), {"question": "?"}, run_id="r"))
    msgspec.json.encode(result.run.outcome)
    return result.run, adder


def calling(arguments: str, name: str = "add") -> Reply:
    return Reply(tool_calls=(ToolCall(id="", name=name, arguments=arguments),), finish_reason="tool_calls")


BAD_CALLS = {
    "wrong types": (calling('{"a": "1", "b": []}'), "tool.invalid_arguments"),
    "extra fields": (calling('{"a": 1, "b": 2, "c": 3}'), "tool.invalid_arguments"),
    "missing fields": (calling("{}"), "tool.invalid_arguments"),
    "no text at all": (calling(""), "tool.invalid_arguments"),
    "no object": (calling("[1, 2]"), "tool.invalid_arguments"),
    "an unknown tool": (calling("{}", name="subtract"), "tool.unknown"),
    "a name that is code": (calling("{}", name="__import__('os')"), "tool.unknown"),
    "a name of 100,000 characters": (calling("{}", name="x" * 100_000), "tool.unknown"),
    "NaN": (calling('{"a": NaN, "b": 1}'), "tool.invalid_arguments"),
    "infinity": (calling('{"a": -Infinity, "b": 1}'), "tool.invalid_arguments"),
    "a huge exponent": (calling('{"a": 1e999, "b": 1}'), "tool.invalid_arguments"),
    "a huge number": (calling('{"a": ' + "9" * 10_000 + ', "b": 1}'), "tool.invalid_arguments"),
    "deep nesting": (calling("[" * 100_000 + "]" * 100_000), "tool.invalid_arguments"),
    "deep mappings": (calling('{"a":' * 500 + "1" + "}" * 500), "tool.invalid_arguments"),
    "a key twice": (calling('{"a": 1, "a": 2, "b": 3}'), "tool.invalid_arguments"),
    "truncated": (calling('{"a": 1, "b"'), "tool.invalid_arguments"),
    "two values": (calling('{"a": 1, "b": 2} {"a": 1}'), "tool.invalid_arguments"),
    "a lone surrogate": (calling('{"a": "\\ud800", "b": 1}'), "tool.invalid_arguments"),
    "NUL": (calling('{"a": "\\u0000", "b": "\x00"}'), "tool.invalid_arguments"),
    "Python": (calling("{'a': 1, 'b': 2}"), "tool.invalid_arguments"),
}


@pytest.mark.parametrize(("reply", "error"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_a_bad_call_goes_back_to_the_model_by_name(reply: Reply, error: str) -> None:
    run, adder = converse(reply)
    answers = [message for message in run.threads["main"] if message.role == "tool"]
    assert (run.status, adder.calls, len(answers)) == ("succeeded", [], 1)
    assert (answers[0].content or "").startswith(f"error: {error}: ")
    assert len(answers[0].content or "") < 2_000


def test_a_thousand_calls_in_one_reply_are_all_answered_in_order() -> None:
    calls = tuple(ToolCall(id="", name="add", arguments=f'{{"a": {i}, "b": 1}}') for i in range(1000))
    run, adder = converse(Reply(tool_calls=calls, finish_reason="tool_calls"))
    answers = [message.content for message in run.threads["main"] if message.role == "tool"]
    assert (run.status, len(adder.calls), answers) == ("succeeded", 1000, [str(i + 1) for i in range(1000)])


def test_ids_that_are_all_the_same_harm_nothing() -> None:
    calls = tuple(ToolCall(id="same", name="add", arguments=f'{{"a": {i}, "b": 1}}') for i in range(3))
    run, _ = converse(Reply(tool_calls=calls, finish_reason="tool_calls"))
    answers = [message.content for message in run.threads["main"] if message.role == "tool"]
    assert (run.status, answers) == ("succeeded", ["1", "2", "3"])


FORM = """
inputs: {question: {type: string}}
states:
  ask:
    type: chat
    response_format: {schema: {type: object, properties: {n: {type: integer}}, required: [n]}}
    next: done
  done: {type: end, output: "{{ reply.parsed.n }}"}
"""
BAD_ANSWERS = [
    "",
    "no",
    "null",
    "[]",
    '{"n": "1"}',
    '{"n": NaN}',
    '{"n": 1, "n": 2}',
    '{"n": 1',
    '{"n": 1} x',
    "[" * 9999,
]


@pytest.mark.parametrize("content", BAD_ANSWERS, ids=lambda text: repr(text[:20]))
def test_an_answer_of_another_form_fails_by_name(content: str) -> None:
    run, _ = converse(Reply(content=content), spec=FORM)
    assert run.outcome is not None
    assert (run.status, run.outcome.error and run.outcome.error.name) == ("failed", "model.invalid_output")


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    content=st.none() | st.text(),
    calls=st.lists(
        st.tuples(st.text(max_size=9) | st.just("add"), st.text(alphabet='{}[]":,ab1.eN\\u0d8 ')), max_size=4
    ),
    reason=st.sampled_from(["stop", "tool_calls", "length", "content_filter", ""]),
    spec=st.sampled_from([ADD + AGENT, FORM]),
)
def test_any_reply_leads_to_an_end_with_a_name(
    content: str | None, calls: list[tuple[str, str]], reason: str, spec: str
) -> None:
    made = tuple(ToolCall(id="", name=name, arguments=arguments) for name, arguments in calls)
    run, _ = converse(Reply(content=content, tool_calls=made, finish_reason=reason), spec=spec)
    assert run.outcome is not None
    assert run.status in ("succeeded", "failed")
    assert run.outcome.error is None or run.outcome.error.name in FAILURES


def test_what_a_model_writes_is_never_a_template() -> None:
    run, _ = converse(Reply(content="{{ inputs.question }}{% for x in range(10**9) %}"))
    assert run.outcome is not None
    assert run.outcome.output == {"answer": "{{ inputs.question }}{% for x in range(10**9) %}"}
    assert run.threads["main"][-1] == Message(role="assistant", content=run.outcome.output["answer"])
