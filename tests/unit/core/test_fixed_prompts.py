"""What is the same in the prompts of each state in every run."""

import pytest

from flowrun.core.fixed_prompts import MeasuredPrompt, fixed_prompts, longest_reply
from tests.flows import ADD, graph_of

FIRST = """\
inputs: {name: {type: string}}
messages:
  - {role: system, content: Be brief.}
  - {role: user, content: Hello.}
  - {role: user, content: "I am {{ inputs.name }}"}
"""
"""Two messages that are the same in every run, and one that is not."""


def prompts(state: str, *more: str, first: str = FIRST) -> list[tuple[list[str], list[str]]]:
    """Return the contents of the messages and the names of the tools of each request of a state ``ask``."""
    flow = f"{first}states:\n  ask: {{{state}, next: done}}\n  done: {{type: end}}\n"
    return [
        ([str(message.content) for message in one.messages], [tool.name for tool in one.tools])
        for one in fixed_prompts(graph_of(ADD, flow, *more))
    ]


@pytest.mark.parametrize(
    ("state", "messages", "tools"),
    [
        pytest.param("type: chat", ["Be brief.", "Hello."], ["add"], id="chat"),
        pytest.param("type: agent", ["Be brief.", "Hello."], ["add"], id="agent"),
        pytest.param("type: chat, tools: []", ["Be brief.", "Hello."], [], id="no tools"),
        pytest.param("type: chat, tools: '{{ inputs.name }}'", ["Be brief.", "Hello."], [], id="computed tools"),
        pytest.param(
            "type: chat, messages: [{role: user, content: '{{ run.id }}'}, {role: user, content: Well?}]",
            ["Be brief.", "Hello.", "Well?"],
            ["add"],
            id="own messages",
        ),
        pytest.param("type: chat, system: You judge.", ["You judge.", "Hello."], ["add"], id="system"),
        pytest.param("type: chat, system: '{{ run.id }}'", ["Hello."], ["add"], id="a system that changes"),
        pytest.param(
            "type: chat, history: none, messages: [{role: user, content: Well?}]", ["Well?"], ["add"], id="no history"
        ),
        pytest.param(
            "type: chat, history: {last: 1}, messages: [{role: user, content: A}, {role: user, content: B}]",
            ["Be brief.", "Hello.", "B"],
            ["add"],
            id="a window",
        ),
        pytest.param("type: chat, thread: other", [""], ["add"], id="another thread, which is empty"),
        pytest.param(
            "type: decide, prompt: Yes?, choices: {a: first, b: second}",
            ["Be brief.", "Hello.", "Yes?"],
            [],
            id="decide",
        ),
        pytest.param(
            "type: decide, prompt: '{{ run.id }}', choices: [a, b]", ["Be brief.", "Hello."], [], id="decide on a value"
        ),
    ],
)
def test_what_is_the_same_in_every_run(state: str, messages: list[str], tools: list[str]) -> None:
    (found,) = prompts(state)
    assert found[1] == tools
    assert [one.partition("\n")[0] for one in found[0]] == messages  # a decision's question goes on with its choices


def test_a_window_keeps_the_head_only() -> None:
    first = "messages: [{role: user, content: A}, {role: assistant, content: B}, {role: user, content: C}]\n"
    assert prompts("type: chat, tools: [], history: {last: 2}", first=first) == [(["A"], [])]


def test_a_thread_that_a_state_begins_anew_may_have_lost_its_first_messages() -> None:
    say = "say: [{thread: main, replace: true, messages: [{role: user, content: Anew.}]}]"
    assert prompts(f"type: chat, tools: [], messages: [{{role: user, content: Own.}}], {say}") == [(["Own."], [])]


def test_a_state_without_anything_fixed_has_no_prompt() -> None:
    first = "messages: [{role: user, content: '{{ run.id }}'}]\n"
    assert prompts("type: chat, tools: []", first=first) == []


def test_each_model_that_a_template_may_choose_has_a_prompt() -> None:
    models = "models: {small: {backend: scripted, name: r.yaml}}\n"
    flow = f"{FIRST}states:\n  ask: {{type: chat, model: '{{{{ inputs.name }}}}', next: done}}\n  done: {{type: end}}\n"
    assert [request.model for request in fixed_prompts(graph_of(models, flow))] == ["small", "default"]


def test_the_longest_reply_is_that_of_the_sampling() -> None:
    flow = f"{FIRST}states:\n  ask: {{type: chat, sampling: {{max_tokens: 9}}, next: done}}\n  done: {{type: end}}\n"
    (request,) = fixed_prompts(graph_of(flow))
    assert longest_reply(request) == 9
    (request,) = fixed_prompts(graph_of(flow.replace("max_tokens: 9", "")))
    assert longest_reply(request) is None


def test_a_measured_prompt_says_what_is_too_long() -> None:
    prompt = MeasuredPrompt("ask", "tiny", 5000, 4096)
    assert prompt.room == -904
    assert str(prompt) == (
        "what is the same in each prompt of state 'ask', its messages and tools, is 5,000 tokens long, and the context "
        "window of 'tiny' has 4,096"
    )
