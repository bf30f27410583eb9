"""The real engine: it does what requests demand, and reports requests that it cannot serve."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from flowrun.backends.vllm.backend import VllmBackend, to_the_end
from flowrun.backends.vllm.reader import VllmReader
from flowrun.backends.vllm.templates import load_template
from flowrun.core.events import AskModel, ToolDeclaration
from flowrun.core.messages import Message, Reply, ToolCall
from flowrun.core.ports import ModelBackend
from flowrun.errors import BackendError, ModelError
from flowrun.spec.model import Model, ResponseFormat
from tests.conftest import SMALL_MODEL, SPECS
from tests.unit.backends.contract import LOOKED_UP, QUESTION, WEATHER, Live, ModelBackendContract, ask, started

FORECAST = ToolDeclaration(
    name="get_current_weather",
    description="Get the current weather in a given location",
    parameters={
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "state": {"type": "string"},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        },
        "required": ["city", "state", "unit"],
    },
)
EXAMPLES = (
    ("What is the temperature in Boston, MA in celsius?", "Boston", "MA", "celsius", 15),
    ("How warm is Miami, FL in fahrenheit?", "Miami", "FL", "fahrenheit", 88),
    ("Tell me the weather in Seattle, WA in celsius.", "Seattle", "WA", "celsius", 11),
    ("Is it cold in Denver, CO? Fahrenheit please.", "Denver", "CO", "fahrenheit", 40),
    ("Can you tell me the temperature in Phoenix, AZ in celsius?", "Phoenix", "AZ", "celsius", 39),
    ("What will it be like in Chicago, IL, in fahrenheit?", "Chicago", "IL", "fahrenheit", 52),
    ("Weather in Portland, OR in celsius?", "Portland", "OR", "celsius", 13),
    ("How hot is Las Vegas, NV in fahrenheit?", "Las Vegas", "NV", "fahrenheit", 101),
)
"""The small model needs this many examples to call tools."""


def user(text: str) -> Message:
    return Message(role="user", content=text)


def shown(number: int, question: str, city: str, state: str, unit: str, degrees: int) -> list[Message]:
    arguments = json.dumps({"city": city, "state": state, "unit": unit})
    call = ToolCall(id=f"example{number:02}", name=FORECAST.name, arguments=arguments)
    answer = f"The weather in {city}, {state} is {degrees} degrees {unit}."
    return [
        user(question),
        Message(role="assistant", tool_calls=(call,)),
        Message(role="tool", content=answer, tool_call_id=call.id),
        Message(role="assistant", content=answer),
    ]


def dallas(**settings: Any) -> AskModel:
    """Return a request for Dallas's weather, after the examples."""
    examples = [message for number, example in enumerate(EXAMPLES) for message in shown(number, *example)]
    question = user("Can you tell me what the temperature will be in Dallas, TX in fahrenheit?")
    return ask([*examples, question], tools=(FORECAST,), **settings)


@pytest.mark.vllm
class TestContract(ModelBackendContract):
    @pytest.fixture
    def fresh(self) -> ModelBackend:
        return VllmBackend(SMALL_MODEL, base_dir=SPECS)

    @pytest.fixture
    def live(self, small_model: Live) -> Live:
        return small_model


@pytest.mark.vllm
class TestReply:
    def test_reads_a_call_and_finds_the_prompt_in_the_cache(self, small_model: Live) -> None:
        first, second = small_model.reply(dallas()), small_model.reply(dallas())
        arguments = '{"city": "Dallas", "state": "TX", "unit": "fahrenheit"}'
        assert first == Reply(
            tool_calls=(ToolCall(id="", name="get_current_weather", arguments=arguments),),
            finish_reason="tool_calls",
            usage=first.usage,
            text=f'<tool_call>\n{{"name": "get_current_weather", "arguments": {arguments}}}\n</tool_call>',
            tokens=first.tokens,
        )
        assert first.tokens is not None
        assert (len(first.tokens.ids), first.tokens.end) == (
            4 * first.usage.completion_tokens,
            first.usage.prompt_tokens + first.usage.completion_tokens,
        )
        assert second.tool_calls == first.tool_calls
        assert second.usage.cached_tokens > 800

    def test_returns_a_forbidden_call_as_text(self, small_model: Live) -> None:
        reply = small_model.reply(dallas(tool_choice="none"))
        assert (reply.tool_calls, reply.invalid_call, reply.content) == ((), None, reply.text)

    def test_returns_any_json_object(self, small_model: Live) -> None:
        asked = ask([user('Repeat: {"name": "Ann"}')], response_format=ResponseFormat(type="json_object"))
        assert isinstance(msgspec.json.decode(small_model.reply(asked).content or ""), dict)

    def test_a_strict_tools_arguments_match_its_schema(self, small_model: Live) -> None:
        schema = {
            "type": "object",
            "properties": {"level": {"type": "integer", "minimum": 10, "maximum": 99}},
            "required": ["level"],
            "additionalProperties": False,
        }
        tool = ToolDeclaration(name="set_level", description="Set the level.", parameters=schema, strict=True)
        reply = small_model.reply(ask([user("Who are you?")], tools=(tool,), tool_choice="set_level"))
        (call,) = reply.tool_calls
        jsonschema.validate(msgspec.json.decode(call.arguments), schema)

    def test_a_cancelled_request_frees_its_place(self, small_model: Live) -> None:
        async def cancel_all() -> int:
            endless = {"max_tokens": 3000, "ignore_eos": True}
            tasks = [asyncio.create_task(small_model.backend.reply(ask(sampling=endless))) for _ in range(4)]
            await asyncio.sleep(1)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            backend = small_model.backend
            assert isinstance(backend, VllmBackend)
            assert backend._engine is not None
            return int(backend._engine._engine.get_num_unfinished_requests())

        assert small_model.run(cancel_all()) == 0

    def test_renders_the_prompt(self, small_model: Live) -> None:
        backend = small_model.backend
        assert isinstance(backend, VllmBackend)
        assert small_model.run(backend.rendered_prompt(ask(LOOKED_UP, tools=(WEATHER,)))) == (
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face\n\n"
            "You can call these functions:\nget_weather(city: Dallas or Boston): Get the weather in a city.\n"
            'To call a function, answer with\n<tool_call>\n{"name": "<function name>", "arguments": {<arguments>}}\n'
            "</tool_call><|im_end|>\n<|im_start|>user\nWhat is the weather in Dallas?<|im_end|>\n"
            '<|im_start|>assistant\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Dallas"}}\n</tool_call>'
            "<|im_end|>\n<|im_start|>tool\n85 F<|im_end|>\n<|im_start|>assistant\n"
        )


CALL_TEXT = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Dallas"}}\n</tool_call>'
BROKEN_TEXT = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Dal\n</tool_call>'
DALLAS = ToolCall(id="", name="get_weather", arguments='{"city": "Dallas"}')


@pytest.mark.vllm
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("It is hot.", Reply(content="It is hot.", text="It is hot."), id="an answer"),
        pytest.param(
            f"Let me see.\n{CALL_TEXT}\n{CALL_TEXT}",
            Reply(
                content="Let me see.\n",
                tool_calls=(DALLAS, DALLAS),
                finish_reason="tool_calls",
                text=f"Let me see.\n{CALL_TEXT}\n{CALL_TEXT}",
            ),
            id="text and two calls",
        ),
        pytest.param(
            f"{CALL_TEXT}{BROKEN_TEXT}",
            Reply(
                content=f"{CALL_TEXT}{BROKEN_TEXT}",
                text=f"{CALL_TEXT}{BROKEN_TEXT}",
                invalid_call=f"the hermes parser could read 0 of 2 tool calls in {CALL_TEXT + BROKEN_TEXT!r}",
            ),
            id="one of two calls is broken",
        ),
    ],
)
def test_reads_text_by_the_familys_parser(small_model: Live, text: str, expected: Reply) -> None:
    assert isinstance(small_model.backend, VllmBackend)
    assert small_model.run(small_model.backend.read_text(ask(tools=(WEATHER,)), text)) == expected


@pytest.mark.vllm
@pytest.mark.parametrize(
    ("request_", "message"),
    [
        pytest.param(
            ask(sampling={"temprature": 1.0}),
            "vLLM has no sampling parameter 'temprature'; did you mean 'temperature'?",
            id="unknown sampling",
        ),
        pytest.param(ask(sampling={"n": 2}), "sampling.n is set by flowrun itself: leave it out", id="our sampling"),
        pytest.param(ask(sampling={"top_p": 2.0}), "top_p must be in (0, 1], got 2.0.", id="invalid sampling"),
        pytest.param(ask(sampling={"max_tokens": "many"}), "TypeError: ", id="sampling of a wrong type"),
        pytest.param(ask(tools=(WEATHER,), tool_choice="nix"), "The tool specified in `tool_choice`", id="no tool"),
        pytest.param(
            ask(response_format=ResponseFormat(schema={"type": "nonsense"})), "Grammar error: ", id="bad grammar"
        ),
    ],
)
def test_refuses(small_model: Live, request_: AskModel, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        small_model.reply(request_)
    assert caught.value.name == "model.request_refused"
    assert caught.value.message.startswith(message)


@pytest.mark.vllm
def test_a_prompt_that_just_fits_leaves_no_room(small_model: Live) -> None:
    backend = small_model.backend
    assert isinstance(backend, VllmBackend)
    usage = small_model.reply(ask(sampling={"max_tokens": 1})).usage
    filler = " a" * (4096 - usage.prompt_tokens)
    with pytest.raises(ModelError, match="leaves none for the reply") as caught:
        small_model.reply(ask([user(f"{QUESTION.content}{filler}")]))
    assert caught.value.name == "model.context_overflow"


@pytest.mark.vllm
def test_tools_need_a_parser(tiny_mistral: Model) -> None:
    with started(VllmBackend(msgspec.structs.replace(tiny_mistral, tool_call_parser=None), base_dir=SPECS)) as live:
        with pytest.raises(ModelError) as caught:
            live.reply(ask(tools=(WEATHER,)))
        assert isinstance(live.reply(ask(tools=(WEATHER,), tool_choice="none", sampling={"max_tokens": 2})), Reply)
    assert caught.value.name == "model.request_refused"
    assert "set model.tool_call_parser to the family's, one of apertus, cohere_command3, " in caught.value.message


@pytest.mark.vllm
def test_has_the_concurrency_of_the_engines_sequences(needs_vllm: None) -> None:
    model = msgspec.structs.replace(SMALL_MODEL, engine={**SMALL_MODEL.engine, "max_num_seqs": 8})

    async def concurrency() -> int:
        reader = VllmReader(model, base_dir=SPECS)
        await reader.start()
        assert reader._chat is not None
        concurrency = reader._chat.concurrency
        await reader.stop()
        return concurrency

    assert asyncio.run(concurrency()) == 8


# --- without the engine -------------------------------------------------------------------------------------------


def test_importing_the_adapter_is_cheap() -> None:
    heavy = "{'vllm', 'torch', 'transformers', 'huggingface_hub'}"
    code = f"import sys, flowrun.backends.vllm.backend; print({heavy} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_has_no_concurrency_before_the_start() -> None:
    assert VllmBackend(SMALL_MODEL, base_dir=SPECS).concurrency is None


def test_replies_need_a_start() -> None:
    with pytest.raises(ModelError, match=r"backend\.unavailable: vLLM's engine is not running"):
        asyncio.run(VllmBackend(SMALL_MODEL, base_dir=SPECS).reply(ask()))


@pytest.mark.parametrize(
    ("template", "text"),
    [
        pytest.param(None, None, id="the model's own"),
        pytest.param("{{ messages }}", "{{ messages }}", id="inline"),
        pytest.param("one\ntwo", "one\ntwo", id="inline lines"),
        pytest.param("chat.jinja", "from the file", id="a file beside the spec"),
    ],
)
def test_loads_a_template(tmp_path: Path, template: str | None, text: str | None) -> None:
    (tmp_path / "chat.jinja").write_text("from the file")
    assert load_template(template, tmp_path) == text


def test_reports_a_missing_template(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"model\.chat_template: cannot read .*/chat\.jinja: .* No such file"):
        load_template("chat.jinja", tmp_path)


def test_work_that_must_end_ends_before_its_cancellation_counts() -> None:
    notes: list[str] = []

    async def stop() -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        notes.append("stopped")

    async def go() -> None:
        task = asyncio.ensure_future(to_the_end(stop()))
        for _ in range(3):
            await asyncio.sleep(0)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(go())
    assert notes == ["stopped"]


@pytest.mark.vllm
def test_seeds_hold_where_prompts_are_read_in_several_steps(small_model: Live) -> None:
    """vLLM ends its engine there on CPUs, without the mend of `cpu_generators`. Another order, other steps."""
    form = ResponseFormat(type="regex", pattern="[a-z]{12}")

    def request(number: int) -> AskModel:
        numbers = " ".join(str((number * 37 + place * 91) % 997) for place in range(100))
        sampling: dict[str, Any] = {"temperature": 1.0, "seed": number, "max_tokens": 40}
        return ask([user(f"{number} {numbers}")], sampling=sampling, response_format=form)

    async def reply_to(numbers: list[int]) -> dict[int, str | None]:
        replies = await asyncio.gather(*(small_model.backend.reply(request(number)) for number in numbers))
        return {number: reply.content for number, reply in zip(numbers, replies, strict=True)}

    together = small_model.run(reply_to(list(range(12))))
    alone: dict[int, str | None] = {}
    for number in (11, 5, 0):
        alone |= small_model.run(reply_to([number]))
    assert {number: together[number] for number in alone} == alone
