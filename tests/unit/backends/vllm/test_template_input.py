"""What a template is given in steps, each for new messages only, is what vLLM's renderer gives it for all at once."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrun.backends.chat_api import wire_message
from flowrun.backends.vllm.forms import Forms
from flowrun.backends.vllm.special_texts import SpecialTexts
from flowrun.backends.vllm.template_input import StepwiseInputs, TemplateInput, TemplateInputs, make_inputs
from flowrun.core.messages import Message, ToolCall
from tests.conftest import SMALL_MODEL, SPECS
from tests.unit.backends.vllm.test_prompt_cache import Talk

pytestmark = pytest.mark.vllm

SPECIAL = SpecialTexts(["<|im_start|>", "<|im_end|>"])
TEXTS = st.sampled_from(["", " ", "Hot.", "Hot.<|im_end|>\n", "é\u200d漢", '{"a": 1}', "x" * 300])
CALLS = st.builds(
    ToolCall,
    id=st.sampled_from(["call00001", "functions.look:0"]),
    name=st.sampled_from(["look", "<|im_end|>"]),
    arguments=st.sampled_from(
        ["{}", '{"city": "Dallas", "days": [1, {"a": null}]}', "[1]", "no JSON", '{"a": "<|im_end|>"}']
    ),
)
MESSAGES = st.lists(
    st.one_of(
        st.builds(Message, role=st.sampled_from(["user", "system", "developer"]), content=TEXTS),
        st.builds(
            Message,
            role=st.just("assistant"),
            content=st.none() | TEXTS,
            reasoning=st.none() | TEXTS,
            tool_calls=st.lists(CALLS, max_size=2).map(tuple),
        ),
        st.builds(
            Message, role=st.just("tool"), content=TEXTS, tool_call_id=st.just("call00001"), name=st.just("look")
        ),
    ),
    max_size=8,
)
FORMS = [
    Forms(),
    Forms(users=False, assistants=False, system="first"),
    Forms(system="nowhere", developer=False, empty=False, ids=False),
    Forms(call_text="before"),
    Forms(call_text="nowhere"),
]
PARTS = """\
{%- for m in messages -%}<|im_start|>{{ m.role }}{% if m.content is string %}{{ m.content }}{% else %}
{%- for part in m.content or [] -%}{{ part.type }} {{ part.text }}{%- endfor -%}{% endif %}
{{- m.tool_calls | tojson if m.tool_calls }}{{ m.reasoning }}<|im_end|>{%- endfor -%}"""
"""It takes the content as a list of parts."""


@pytest.fixture(scope="module")
def renderer(needs_vllm: None) -> Iterator[Any]:
    """Yield vLLM's renderer, with its own methods."""
    talk = Talk(SMALL_MODEL)
    renderer = talk.chat._renderer
    yield SimpleNamespace(
        model_config=renderer.model_config,
        tokenizer=renderer.tokenizer,
        render_messages=talk.chat._prompt_cache._inputs._render_messages,
    )
    talk.close()


@pytest.mark.parametrize("template", [(SPECS / "templates" / "chatml_tools.jinja").read_text(), PARTS])
def test_in_steps_it_is_the_same(renderer: Any, template: str) -> None:
    from vllm.renderers import ChatParams

    params = ChatParams(
        chat_template=template,
        chat_template_content_format="auto",
        chat_template_kwargs={"add_generation_prompt": True, "continue_final_message": False, "tokenize": False},
    )

    @given(MESSAGES, st.lists(st.integers(1, 8), max_size=3), st.sampled_from(FORMS))
    def check(messages: list[Message], ends: list[int], forms: Forms) -> None:
        sent = [msgspec.to_builtins(wire_message(message)) for message in messages]
        before = msgspec.json.encode(sent)
        whole = TemplateInputs(renderer, forms, SPECIAL)
        stepwise = StepwiseInputs(renderer, forms, SPECIAL)
        given = TemplateInput()
        for start, end in zip([0, *sorted(ends)], [*sorted(ends), None], strict=True):
            given = stepwise.extend(given, sent[start:end], params)
        expected = outcome(whole, whole.extend(TemplateInput(), sent, params), params)
        assert outcome(stepwise, given, params) == expected
        assert outcome(stepwise, given, params) == expected  # a template changes nothing that is given
        assert msgspec.json.encode(sent) == before

    check()


def outcome(inputs: TemplateInputs, given: TemplateInput, params: Any) -> object:
    """Return what a template was given, and the prompt; or its error."""
    try:
        return inputs.render(given, params)
    except Exception as exc:
        return repr(exc)


def test_only_the_renderer_with_these_steps_takes_them(renderer: Any) -> None:
    from vllm.renderers.hf import HfRenderer

    other = type("Other", (HfRenderer,), {})  # it may do more
    for kind, made in ((HfRenderer, StepwiseInputs), (other, TemplateInputs)):
        one = object.__new__(kind)
        one.__dict__.update(vars(renderer))
        assert type(make_inputs(one, Forms(), SPECIAL)) is made
