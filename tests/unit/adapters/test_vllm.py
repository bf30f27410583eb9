"""The real engine: what it is asked it does, what it cannot do it names, and nothing of it is left behind."""

import asyncio
import contextlib
import gc
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from flowrun.adapters.vllm import VllmBackend, load_template
from flowrun.adapters.vllm_engine import INSTALL
from flowrun.errors import BackendError, ModelError
from flowrun.events import AskModel, ToolDeclaration
from flowrun.messages import Message, Reply, ToolCall
from flowrun.ports import ModelBackend
from flowrun.spec import Model, ResponseFormat
from tests.conftest import SMALL_MODEL, SPECS
from tests.unit.adapters.contract import LOOKED_UP, QUESTION, WEATHER, Live, ModelBackendContract, ask, started

ROOT = Path(__file__).parents[3]
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
"""The small model calls tools only after so many examples."""


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
    """Ask for Dallas's weather after the examples."""
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
        )
        assert second.tool_calls == first.tool_calls
        assert second.usage.cached_tokens > 800

    def test_gives_a_call_that_it_may_not_make_as_text(self, small_model: Live) -> None:
        reply = small_model.reply(dallas(tool_choice="none"))
        assert (reply.tool_calls, reply.invalid_call, reply.content) == ((), None, reply.text)

    def test_keeps_any_json_object(self, small_model: Live) -> None:
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

    def test_renders_what_the_model_reads(self, small_model: Live) -> None:
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
            id="words and two calls",
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


# --- starts that fail ---------------------------------------------------------------------------------------------


def start_error(model: Model) -> str:
    """Give the error of a start that must fail, and see that no engine is left."""
    backend = VllmBackend(model, base_dir=SPECS)

    async def start() -> None:
        try:
            await backend.start()
        finally:
            await backend.stop()

    with pytest.raises(BackendError) as caught:
        asyncio.run(start())
    message = str(caught.value)
    with warnings.catch_warnings(action="ignore"):  # vLLM leaves its sockets to the garbage collector, which says so
        del caught
        gc.collect()
    return message


def changed(**settings: Any) -> Model:
    return msgspec.structs.replace(SMALL_MODEL, **settings)


@pytest.mark.vllm
@pytest.mark.usefixtures("needs_vllm")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param(
            {
                "engine": {"dtyp": "float32", "revision": "main"},
                "sampling": {"temprature": 1},
                "tool_call_parser": "hermez",
            },
            "vLLM has no engine argument 'dtyp'; did you mean 'dtype'?\n"
            "model.engine.revision has a place of its own: model.revision\n"
            "vLLM has no sampling parameter 'temprature'; did you mean 'temperature'?\n"
            "vLLM has no tool_call_parser 'hermez'; did you mean 'hermes'?",
            id="all names at once",
        ),
        pytest.param(
            {"engine": {"max_model_len": -5}},
            f"vLLM refuses {SMALL_MODEL.name!r} or its engine arguments: "
            "max_model_len: Input should be greater than or equal to -1",
            id="a value",
        ),
        pytest.param(
            {"tool_call_parser": "mistral"},
            f"the parsers do not fit the model {SMALL_MODEL.name!r}: "
            "Mistral parser could not locate the tool call token in the tokenizer!",
            id="another family's parser",
        ),
        pytest.param(
            {"chat_template": "{% if messages %}\n{{ messages"},
            "model.chat_template, line 2: unexpected end of template, expected 'end of print statement'.",
            id="template",
        ),
    ],
)
def test_a_start_says_what_is_wrong(settings: Mapping[str, Any], message: str) -> None:
    assert start_error(changed(**settings)) == message


@pytest.mark.vllm
def test_a_start_gives_the_engines_own_reason(tiny_mistral: Model) -> None:
    greedy = msgspec.structs.replace(tiny_mistral, engine={**tiny_mistral.engine, "kv_cache_memory_bytes": 1000})
    error = start_error(greedy)
    assert error.startswith("vLLM's engine did not start: ValueError: No available memory for the cache blocks.")
    assert "2 GiB" not in error


def test_a_start_says_how_to_install_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert start_error(SMALL_MODEL) == INSTALL


@pytest.mark.vllm
def test_tools_need_a_parser(tiny_mistral: Model) -> None:
    with started(VllmBackend(msgspec.structs.replace(tiny_mistral, tool_call_parser=None), base_dir=SPECS)) as live:
        with pytest.raises(ModelError) as caught:
            live.reply(ask(tools=(WEATHER,)))
        assert isinstance(live.reply(ask(tools=(WEATHER,), tool_choice="none", sampling={"max_tokens": 2})), Reply)
    assert caught.value.name == "model.request_refused"
    assert "set model.tool_call_parser to the family's, one of apertus, cohere_command3, " in caught.value.message


# --- Mistral's own formats ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mistral(tiny_mistral: Model) -> Iterator[Live]:
    with started(VllmBackend(tiny_mistral, base_dir=SPECS)) as live:
        yield live


@pytest.mark.vllm
class TestMistral:
    def test_replies_with_tools_in_the_prompt(self, mistral: Live) -> None:
        assert isinstance(mistral.backend, VllmBackend)
        asked = ask(LOOKED_UP, tools=(WEATHER,), sampling={"max_tokens": 3})
        prompt = mistral.run(mistral.backend.rendered_prompt(asked)).replace("▁", " ")
        assert prompt.startswith('<s>[AVAILABLE_TOOLS] [{"type": "function", "function": {"name": "get_weather"')
        assert prompt.endswith(
            '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Dallas"}, "id": "call00001"}]</s>'
            '[TOOL_RESULTS] {"content": "85 F", "call_id": "call00001"}[/TOOL_RESULTS]'
        )
        assert mistral.reply(asked).usage.completion_tokens == 3

    @pytest.mark.parametrize(
        ("text", "choice", "calls", "invalid"),
        [
            pytest.param(
                '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Dallas"}}]',
                "auto",
                (DALLAS,),
                None,
                id="one",
            ),
            pytest.param(
                '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": ',
                "auto",
                (),
                "the mistral parser could read 0 of 1 tool calls in "
                """'[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": '""",
                id="broken",
            ),
            pytest.param(
                '[{"name": "get_weather", "arguments": {"city": "Dallas"}}]', "required", (DALLAS,), None, id="forced"
            ),
            pytest.param(
                "Hello",
                "get_weather",
                (),
                "tool_choice is get_weather, but the mistral parser found no call in 'Hello'",
                id="forced in vain",
            ),
        ],
    )
    def test_reads_calls(
        self, mistral: Live, text: str, choice: str, calls: tuple[ToolCall, ...], invalid: str | None
    ) -> None:
        assert isinstance(mistral.backend, VllmBackend)
        reply = mistral.run(mistral.backend.read_text(ask(tools=(WEATHER,), tool_choice=choice), text))
        assert (reply.tool_calls, reply.invalid_call) == (calls, invalid)


# --- the engine's process -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def program(mode: str, model: Model) -> Iterator[subprocess.Popen[str]]:
    """Run ``vllm_life`` in a process group of its own."""
    command = [sys.executable, "-m", "tests.unit.adapters.vllm_life", mode, msgspec.json.encode(model).decode()]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True, text=True, **streams) as running:  # type: ignore[call-overload]
        try:
            yield running
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    """Tell whether a process still runs; one that waits to be reaped does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_for_end(pid: int, *, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not alive(pid)


@pytest.mark.vllm
def test_nothing_is_left_of_an_engine_that_dies_is_given_up_or_interrupted(tiny_mistral: Model) -> None:
    with program("life", tiny_mistral) as running:
        assert running.stdout is not None
        told = [json.loads(running.stdout.readline()) for _ in range(4)]
        engine = told[-1]["running"]
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does at Ctrl-C
        rest, complaints = running.communicate(timeout=60)
    died = "backend.unavailable: vLLM's engine died: its process was killed by SIGKILL, most often for lack of memory"
    assert told[:-1] == [
        {"in flight": died, "afterwards": died},
        {
            "after stop": [],
            "later": "backend.unavailable: vLLM's engine is not running: it was not started, or was stopped",
        },
        {"given up while": "loading the weights", "left": []},
    ]
    assert (rest, complaints, running.returncode) == ('{"interrupted": true, "left": []}\n', "", 130)
    assert not alive(engine)


@pytest.mark.vllm
def test_an_engine_ends_with_a_parent_that_is_killed(tiny_mistral: Model) -> None:
    with program("wait", tiny_mistral) as running:
        assert running.stdout is not None
        engine = json.loads(running.stdout.readline())["running"]
        assert alive(engine)
        running.kill()
        running.communicate()
    assert wait_for_end(engine, seconds=10)


# --- without the engine -------------------------------------------------------------------------------------------


def test_importing_the_adapter_is_cheap() -> None:
    heavy = "{'vllm', 'torch', 'transformers', 'huggingface_hub'}"
    code = f"import sys, flowrun.adapters.vllm; print({heavy} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


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


def test_says_that_a_template_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"model\.chat_template: cannot read .*/chat\.jinja: .* No such file"):
        load_template("chat.jinja", tmp_path)
