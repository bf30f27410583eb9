"""What a template refuses or leaves out is put into a form that it takes, always in the same one."""

from collections.abc import Callable
from typing import Any

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrun.backends.vllm.forms import ChatMessage, Forms, learn_forms

CHATML = """\
{%- for m in messages -%}<{{ m.role }}>{{ m.content or '' }}
{%- for c in m.tool_calls or [] -%}<call {{ c.id }}>{{ c.function.name }}{%- endfor -%}</>{%- endfor -%}"""
ALTERNATING = (
    """\
{%- set turns = namespace(last='assistant') -%}
{%- for m in messages -%}
  {%- if m.role == 'system' and not loop.first -%}{{ fail('system must be first') }}{%- endif -%}
  {%- if m.role not in ('system', 'user', 'assistant', 'tool') -%}{{ fail('unknown role') }}{%- endif -%}
  {%- if m.role in ('user', 'assistant') -%}
    {%- if m.role == turns.last -%}{{ fail('must alternate') }}{%- endif -%}
    {%- set turns.last = m.role -%}
  {%- endif -%}
{%- endfor -%}"""
    + CHATML
)
"""As many templates: turns alternate, and only a first system message is taken."""
NO_SYSTEM = (
    "{%- for m in messages if m.role in ('system', 'developer') -%}{{ fail('system not supported') }}{%- endfor -%}"
    + CHATML
)
SILENT = CHATML.replace(
    "m.content or ''", "'' if m.tool_calls or (m.role == 'system' and not loop.first) else m.content"
)
"""It leaves out what it does not take, without a word."""
STRICT = (
    """\
{%- for m in messages -%}
  {%- if m.tool_calls and m.content or m.role == 'assistant' and not m.tool_calls and not m.content -%}
    {{ fail('either text or calls') }}
  {%- endif -%}
  {%- for c in m.tool_calls or [] if c.id | length != 9 -%}{{ fail('nine characters') }}{%- endfor -%}
{%- endfor -%}"""
    + CHATML
)


def fail(message: str) -> None:
    raise jinja2.TemplateError(message)


def render_of(template: str) -> Callable[[list[ChatMessage]], str]:
    compiled = jinja2.Environment().from_string(template)
    return lambda messages: compiled.render(messages=messages, fail=fail)


TEMPLATES = {
    "chatml": (CHATML, Forms()),
    "alternating": (ALTERNATING, Forms(users=False, assistants=False, system="first", developer=False)),
    "no system": (NO_SYSTEM, Forms(system="nowhere", developer=False)),
    "silent": (SILENT, Forms(call_text="before", system="first")),
    "strict": (STRICT, Forms(call_text="before", empty=False, ids=False)),
    "refuses all": ("{{ fail('no') }}", Forms()),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_learns_what_a_template_takes(name: str) -> None:
    template, forms = TEMPLATES[name]
    assert learn_forms(render_of(template)) == forms


def said(role: str, content: str | None, **more: Any) -> ChatMessage:
    return {"role": role, "content": content, **more}


def called(content: str | None, call_id: str = "call00001") -> ChatMessage:
    call = {"id": call_id, "type": "function", "function": {"name": "look", "arguments": "{}"}}
    return said("assistant", content, tool_calls=[call])


ANSWER = said("tool", "Gnu.", tool_call_id="call00001")


@pytest.mark.parametrize(
    ("forms", "messages", "adapted"),
    [
        pytest.param(
            Forms(users=False),
            [said("user", "a"), said("user", "b"), said("assistant", "c"), said("user", "d")],
            [said("user", "a\n\nb"), said("assistant", "c"), said("user", "d")],
            id="users",
        ),
        pytest.param(
            Forms(assistants=False),
            [said("assistant", "a"), called("b"), ANSWER, said("assistant", "c"), said("assistant", None)],
            [called("a\n\nb"), ANSWER, said("assistant", "c")],
            id="assistants",
        ),
        pytest.param(
            Forms(system="first", users=False),
            [said("system", "a"), said("system", "b"), said("user", "c"), said("system", "d"), said("user", "e")],
            [said("system", "a"), said("system", "b"), said("user", "c\n\nd\n\ne")],
            id="a late system message",
        ),
        pytest.param(
            Forms(system="nowhere", developer=False),
            [said("developer", "a"), said("user", "b")],
            [said("user", "a"), said("user", "b")],
            id="no system",
        ),
        pytest.param(
            Forms(call_text="before"),
            [called("a"), ANSWER, called(None), called("")],
            [said("assistant", "a"), called(None), ANSWER, called(None), called("")],
            id="text before a call",
        ),
        pytest.param(
            Forms(call_text="nowhere", empty=False),
            [called("a"), ANSWER, said("assistant", ""), said("assistant", "b")],
            [called(None), ANSWER, said("assistant", "b")],
            id="no text, nothing empty",
        ),
        pytest.param(
            Forms(ids=False),
            [called(None, "functions.look:0"), said("tool", "a", tool_call_id="functions.look:0"), called(None)],
            [called(None, "c02e9669b"), said("tool", "a", tool_call_id="c02e9669b"), called(None)],
            id="ids",
        ),
    ],
)
def test_adapts_messages(forms: Forms, messages: list[ChatMessage], adapted: list[ChatMessage]) -> None:
    assert forms.adapt(messages) == adapted


TURNS = st.lists(
    st.one_of(
        st.sampled_from(["user", "system", "developer", "assistant"]).map(lambda role: [said(role, "x")]),
        st.sampled_from([None, "", "x"]).map(lambda text: [called(text, "functions.look:0"), ANSWER]),
        st.just([said("assistant", "")]),
    ),
    min_size=1,
    max_size=8,
).map(lambda turns: [said("user", "x"), *(one for turn in turns for one in turn), said("user", "x")])


@given(TURNS, st.sampled_from(["chatml", "no system", "silent", "strict"]))
def test_an_adapted_conversation_is_taken(messages: list[ChatMessage], name: str) -> None:
    template, forms = TEMPLATES[name]
    render_of(template)(forms.adapt(messages))


@given(TURNS, st.integers(0, 20), st.sampled_from(sorted(TEMPLATES)))
def test_a_later_prompt_extends_an_earlier_one(messages: list[ChatMessage], end: int, name: str) -> None:
    """A prompt ends before a reply; the turns of one role that follow each other are added at once."""
    forms = TEMPLATES[name][1]
    if messages[end : end + 1] and messages[end]["role"] == "assistant" and messages[end - 1]["role"] != "assistant":
        first = forms.adapt(messages[:end])
        assert forms.adapt(messages)[: len(first)] == first


@given(TURNS, st.integers(0, 20), st.sampled_from(sorted(TEMPLATES)))
def test_messages_are_adapted_in_any_number_of_steps(messages: list[ChatMessage], end: int, name: str) -> None:
    forms = TEMPLATES[name][1]
    first = forms.adapt(messages[:end])
    later = forms.adapt(messages[end:], after=first)
    assert later == forms.adapt(messages)
    assert all(one is other for one, other in zip(first[:-1], later, strict=False))
