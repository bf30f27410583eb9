"""A call that a parser could not read is told from an answer."""

from types import SimpleNamespace
from typing import Any

import pytest

from flowrun.backends.vllm.calls import call_markers, read_call, unread_call
from flowrun.core.messages import ToolCall


@pytest.mark.parametrize(
    ("given", "text", "kept"),
    [
        pytest.param("functions.f:0", "<|call|>functions.f:0{}", "functions.f:0", id="written by the model"),
        pytest.param("chatcmpl-tool-12ab", "<tool_call>f", "", id="made up by the parser"),
        pytest.param("0", '{"tool_call_id": "0"}', "", id="counted anew in each reply"),
        pytest.param(None, "f()", "", id="none"),
    ],
)
def test_keeps_an_id_that_means_something(given: str | None, text: str, kept: str) -> None:
    call = SimpleNamespace(id=given, name="f", arguments='{"a":  1}')
    assert read_call(call, text) == ToolCall(id=kept, name="f", arguments='{"a":  1}')


@pytest.mark.parametrize(
    ("text", "choice", "read", "expected"),
    [
        pytest.param("Hello", "auto", 0, None, id="an answer"),
        pytest.param("<tool_call>{}</tool_call>", "auto", 1, None, id="all read"),
        pytest.param("<tool_call>{", "none", 0, None, id="no call wanted"),
        pytest.param(
            "So: <tool_call>{", "auto", 0, "the x parser could read 0 of 1 tool calls in '<tool_call>{'", id="none read"
        ),
        pytest.param(
            "<tool_call>{}<tool_call>{",
            "required",
            1,
            "the x parser could read 1 of 2 tool calls in '<tool_call>{}<tool_call>{'",
            id="one of two read",
        ),
        pytest.param(
            "Hello", "required", 0, "tool_choice is required, but the x parser found no call in 'Hello'", id="forced"
        ),
    ],
)
def test_finds_an_unread_call(text: str, choice: str, read: int, expected: str | None) -> None:
    markers = {"<tool_call>", "<other>"}
    assert unread_call(text, markers=markers, choice=choice, read=read, parser="x") == expected


def test_a_family_without_markers_is_taken_at_its_parsers_word() -> None:
    assert unread_call("[f(", markers=(), choice="auto", read=0, parser="pythonic") is None


@pytest.mark.vllm
@pytest.mark.usefixtures("needs_vllm")
@pytest.mark.parametrize(
    ("family", "markers"),
    [
        pytest.param("deepseek_v32", {"<｜DSML｜function_calls>"}, id="deepseek_v32"),
        pytest.param("gemma4", {"<|tool_call>"}, id="gemma4"),
        pytest.param("granite4", {"<tool_call>"}, id="granite4"),
        pytest.param("hermes", {"<tool_call>"}, id="hermes"),
        pytest.param("hunyuan_a13b", {"<tool_calls>"}, id="hunyuan_a13b"),
        pytest.param("kimi_k2", {"<|tool_calls_section_begin|>", "<|tool_call_begin|>"}, id="kimi_k2"),
        pytest.param("phi4_mini_json", set(), id="phi4_mini_json"),
        pytest.param("qwen3_coder", {"<tool_call>", "<tool_call>\n<function="}, id="qwen3_coder"),
        pytest.param("step3", {"<｜tool_calls_begin｜>", "<｜tool_call_begin｜>"}, id="step3"),
    ],
)
def test_knows_a_familys_markers(family: str, markers: set[str]) -> None:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.tool_parsers import ToolParserManager

    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    request: Any = ChatCompletionRequest(messages=[{"role": "user", "content": "Hi"}], tools=[tool])
    words = {marker: number for number, marker in enumerate(sorted(markers))}
    tokenizer = SimpleNamespace(get_vocab=lambda: words, vocab=words, all_special_tokens=[], all_special_ids=[])
    parser: Any = ToolParserManager.get_tool_parser(family)(tokenizer, request.tools)
    assert call_markers(parser, request) == markers
