"""Text as it comes in and as it goes out, and where each border keeps to it."""

import asyncio
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrun.backends.chat_api import parse_completion, reply_of
from flowrun.backends.scripted import ScriptedBackend
from flowrun.core.events import Replied
from flowrun.core.messages import Reply, ToolCall
from flowrun.errors import Failure
from flowrun.functions.python import PythonFunctions
from flowrun.runtime.runner import Runner, RunResult
from flowrun.spec.strict_json import parse_json
from flowrun.unicode import (
    escape_surrogates,
    find_encoding_error,
    printable,
    printable_json,
    printable_styled,
    well_formed,
)
from tests.flows import ADD, AGENT, graph_of

HALF = "\ud83d"
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=20)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("plain", "plain", id="ascii"),
        pytest.param("Ærø 🎉", "Ærø 🎉", id="more"),
        pytest.param(f"a{HALF}b", "a�b", id="a half"),
        pytest.param("\ud83c\udf89", "🎉", id="two halves of one"),
        pytest.param("\udf89\ud83c", "��", id="two halves the wrong way round"),
    ],
)
def test_text_is_made_valid_unicode(text: str, expected: str) -> None:
    assert well_formed(text) == expected


@given(ANY_TEXT)
def test_whatever_comes_in_can_be_written_down(text: str) -> None:
    assert find_encoding_error(well_formed(text)) is None
    reply = Reply(content=text, reasoning=text, text=text, tool_calls=(ToolCall(id=text, name=text, arguments=text),))
    assert msgspec.json.decode(msgspec.json.encode(Replied(step=1, reply=reply)), type=Replied).reply == reply
    assert find_encoding_error(Failure(name="tool.failed", message=text)) is None


@given(ANY_TEXT)
def test_halves_are_escaped_without_changing_what_json_means(text: str) -> None:
    written = json.dumps({"q": text}, ensure_ascii=False)
    escaped = escape_surrogates(written)
    assert find_encoding_error(escaped) is None
    assert json.loads(escaped) == {"q": text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param(
            "Is it hot?\nYes: 85 °F, 寒くない　👍", "Is it hot?\nYes: 85 °F, 寒くない　👍", id="what people write"
        ),
        pytest.param("a\x1b[2K\x1b[Gb", "a�[2K�[Gb", id="escapes"),
        pytest.param("a\rb\x08c\x00\x7f", "a�b�c��", id="control characters"),
        pytest.param("\x1b]52;c;aGk=\x07 \x1b]0;title\x1b\\", "�]52;c;aGk=� �]0;title�\\", id="clipboard and title"),
        pytest.param("a\x9b2Jb\x85", "a�2Jb�", id="C1"),
        pytest.param("pay \u202eeno\u202c \u2066two\u2069 \u200f", "pay �eno� �two� �", id="bidirectional"),
        pytest.param("a\u200bb\ufeff\u2028c", "a�b��c", id="invisible"),
        pytest.param("a\u3164b\u2800c\u034fd\U000e0100", "a�b�c�d�", id="invisible letters and marks"),
        pytest.param("a\tb", "a    b", id="tab"),
        pytest.param(f"a{HALF}", "a�", id="half a character"),
        pytest.param("::error::x", "�:error::x", id="a command of GitHub"),
        pytest.param("a\n  ::set-output name=x::y", "a\n  �:set-output name=x::y", id="in a later line"),
        pytest.param(
            "so ##[error]x, ##vso[task] and ##teamcity[", "so �#[error]x, �#vso[task] and �#teamcity[", id="others"
        ),
        pytest.param("a::b ## c", "a::b ## c", id="what only looks like one"),
    ],
)
def test_what_a_terminal_would_obey_is_marked(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


@pytest.mark.parametrize("style", ["8", "30", "38;5;0", "7", "40", "1;30"])
def test_styles_that_hide_are_marked(style: str) -> None:
    assert printable_styled(f"a\x1b[{style}mb\x1b[0m") == f"a�[{style}mb\x1b[0m"
    assert printable_styled("a\x1b[1;31mb\x1b[0m") == "a\x1b[1;31mb\x1b[0m"


@given(ANY_TEXT | st.sampled_from(["##[error]x", "a ##vso[x", "###[", "##"]))
def test_printable_json_means_the_same_and_is_printable(text: str) -> None:
    value = {"text": text}
    shown = printable_json(json.dumps(value, ensure_ascii=False, indent=2))
    assert json.loads(shown) == value
    assert "##[" not in shown
    assert not [c for c in shown if not c.isprintable() and c != "\n" and not c.isspace()]


@pytest.mark.parametrize("text", ['{"n": 1e999}', '{"n": -1e999}', '{"n": NaN}', '{"n": "\\ud83d"}', '{"\\ud83d": 1}'])
def test_json_that_a_model_or_a_person_wrote_is_taken_strictly(text: str) -> None:
    with pytest.raises(ValueError, match=r"too large|no JSON number|half of a character"):
        parse_json(text)


# --- borders --------------------------------------------------------------------------------------------------------


def body(message: dict[str, Any]) -> bytes:
    return json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()


def test_a_servers_reply_is_made_valid_unicode() -> None:
    assert reply_of(parse_completion(body({"content": f"Hi {HALF}"}))).content == "Hi �"
    assert reply_of(parse_completion(body({"content": "Hi"}).replace(b"Hi", b"Hi \xff"))).content == "Hi �"
    for arguments in ({"q": HALF}, json.dumps({"q": HALF}, ensure_ascii=False), json.dumps({"q": HALF})):
        call = {"function": {"name": "f", "arguments": arguments}}
        (read,) = reply_of(parse_completion(body({"content": None, "tool_calls": [call]}))).tool_calls
        assert find_encoding_error(read.arguments) is None
        with pytest.raises(ValueError, match="half of a character"):
            parse_json(read.arguments)


def run(flow: tuple[str, ...], inputs: dict[str, Any], *replies: Reply) -> RunResult:
    backend = ScriptedBackend(replies)
    functions = PythonFunctions({"tools.numbers:add": lambda **given: HALF})
    runner = Runner(backends={"default": backend}, functions=functions)
    return asyncio.run(runner.run(graph_of(*flow), inputs, run_id="r"))


def outcome_of(result: RunResult) -> str:
    outcome = result.run.outcome
    assert outcome is not None
    assert find_encoding_error(msgspec.to_builtins(outcome)) is None
    return outcome.status if outcome.error is None else outcome.error.name


@pytest.mark.parametrize("inputs", [{"question": HALF}, {"question": "a", HALF: 1}], ids=["value", "name"])
def test_inputs_that_are_no_unicode_are_refused_by_name(inputs: dict[str, Any]) -> None:
    assert outcome_of(run((AGENT,), inputs)) == "input.invalid"


def test_an_input_without_a_schema_is_checked_too() -> None:
    flow = "inputs: {q: {}}\nstates: {done: {type: end, output: '{{ inputs.q }}'}}\n"
    assert outcome_of(run((flow,), {"q": {"deep": [{HALF: 1}]}})) == "input.invalid"


@pytest.mark.parametrize(
    "template",
    ["{{ '\\ud83d' }}", "a {{ '\\ud83d' }}", "{{ ['\\ud83d'] }}", "{{ {'\\ud83d': 1} }}", "{{ '\\ud83d' | upper }}"],
)
def test_a_template_that_makes_half_a_character_fails(template: str) -> None:
    flow = f"states: {{done: {{type: end, output: {{x: {json.dumps(template)}}}}}}}\n"
    assert outcome_of(run((flow,), {})) == "template.failed"


def test_calls_and_values_that_are_no_unicode_cost_the_call() -> None:
    arguments = [f'{{"a": 1, "b": "{HALF}"}}', '{"a": 1, "b": 2}']
    calls = Reply(tool_calls=tuple(ToolCall(id="", name="add", arguments=text) for text in arguments))
    result = run((ADD, AGENT), {"question": "?"}, calls, Reply(content=f"done {HALF}"))
    assert outcome_of(result) == "succeeded"
    reported = [str(message.content) for message in result.run.threads["main"] if message.role == "tool"]
    assert [text.split(":")[1].strip() for text in reported] == ["tool.invalid_arguments", "tool.failed"]
    assert result.run.outcome is not None
    assert result.run.outcome.output == {"answer": "done �"}
