"""The contract of all ``ModelBackend``s, whatever their model. The tests of a backend subclass it.

A subclass defines two fixtures: ``fresh``, a backend that was not started, and ``live``, a started one with its event
loop (from ``started``; of any scope, so that a real engine starts once). No test depends on the words of a reply, only
on the properties that the request demands, so real models can pass too:

    @pytest.mark.vllm
    class TestVllm(ModelBackendContract):
        @pytest.fixture(scope="class")
        def live(self) -> Iterator[Live]:
            with started(VllmBackend(...)) as live:
                yield live
"""

import asyncio
import re
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import jsonschema
import msgspec
import pytest

from flowrun.core.decisions import write_question
from flowrun.core.events import AskModel, ToolDeclaration
from flowrun.core.messages import Log, Message, Reply, ToolCall, Usage
from flowrun.core.ports import ModelBackend
from flowrun.core.replies import accept_decision
from flowrun.errors import ModelError
from flowrun.spec.model import JSON, ResponseFormat

T = TypeVar("T")

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Dallas", "Boston"]}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = ToolDeclaration(name="get_weather", description="Get the weather in a city.", parameters=CITY)
TIME = ToolDeclaration(name="get_time", description="Get the time in a city.", parameters=CITY)
VERDICT = {
    "type": "object",
    "properties": {"sure": {"type": "boolean"}},
    "required": ["sure"],
    "additionalProperties": False,
}
QUESTION = Message(role="user", content="What is the weather in Dallas?")
CALL = ToolCall(id="call00001", name="get_weather", arguments='{"city":"Dallas"}')
LOOKED_UP = (
    QUESTION,
    Message(role="assistant", tool_calls=(CALL,)),
    Message(role="tool", content="85 F", tool_call_id=CALL.id, name=CALL.name),
)
WINDOW = 4096
"""The largest context window of the tested models, in tokens."""


def ask(
    messages: Sequence[Message] = (QUESTION,),
    *,
    tools: tuple[ToolDeclaration, ...] = (),
    tool_choice: str = "auto",
    sampling: Mapping[str, JSON] | None = None,
    response_format: ResponseFormat | None = None,
    labels: tuple[str, ...] = (),
) -> AskModel:
    """Return a request; by default for a greedy and short reply."""
    return AskModel(
        step=1,
        state="ask",
        run="r1",
        thread="main",
        model="default",
        messages=Log(messages),
        tools=tools,
        tool_choice=tool_choice,
        sampling={"temperature": 0.0, "max_tokens": 64} | dict(sampling or {}),
        response_format=response_format,
        labels=labels,
    )


def said_in(pieces: Sequence[str | None]) -> str:
    """Return the text that pieces are together: what stands before None is void."""
    said = ""
    for piece in pieces:
        said = "" if piece is None else said + piece
    return said


def seen_of(reply: Reply) -> Any:
    """Return what a flow sees of a reply."""
    calls = [(call.name, msgspec.json.decode(call.arguments)) for call in reply.tool_calls]
    return reply.content, reply.reasoning, calls, reply.finish_reason, reply.invalid_call


class Live:
    """A started backend and its event loop."""

    def __init__(self, backend: ModelBackend, runner: asyncio.Runner) -> None:
        self.backend = backend
        self._runner = runner

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the backend's loop to its end."""
        return self._runner.run(coroutine)

    def reply(self, request: AskModel) -> Reply:
        """Return the backend's reply."""
        return self.run(self.backend.reply(request))

    def watch(self, request: AskModel) -> tuple[Reply, list[str | None]]:
        """Return the backend's reply, and the pieces in which its text came."""
        pieces: list[str | None] = []
        return self.run(self.backend.reply(request, on_text=pieces.append)), pieces


@contextmanager
def started(backend: ModelBackend) -> Iterator[Live]:
    """Start a backend in a loop of its own, and stop it at the end."""
    with asyncio.Runner() as runner:
        runner.run(backend.start())
        try:
            yield Live(backend, runner)
        finally:
            runner.run(backend.stop())


class ModelBackendContract:
    """The tests. ``pytest`` collects them in subclasses only."""

    @pytest.fixture
    def fresh(self) -> ModelBackend:
        raise NotImplementedError("a subclass returns a backend that was not started")

    @pytest.fixture
    def live(self) -> Iterator[Live]:
        raise NotImplementedError("a subclass returns a started backend")

    def test_answers_with_text(self, live: Live) -> None:
        reply = live.reply(ask())
        assert reply.content
        assert reply.tool_calls == ()
        assert reply.finish_reason in ("stop", "length")

    def test_counts_tokens(self, live: Live) -> None:
        usage = live.reply(ask()).usage
        assert usage.prompt_tokens > 0
        assert 0 < usage.completion_tokens <= 64
        assert 0 <= usage.cached_tokens <= usage.prompt_tokens

    def test_reports_that_a_reply_was_cut(self, live: Live) -> None:
        assert live.reply(ask(sampling={"max_tokens": 1})).finish_reason == "length"

    @pytest.mark.parametrize(
        ("choice", "allowed"), [("required", {"get_weather", "get_time"}), ("get_time", {"get_time"})]
    )
    def test_calls_when_it_must(self, live: Live, choice: str, allowed: set[str]) -> None:
        reply = live.reply(ask(tools=(WEATHER, TIME), tool_choice=choice))
        assert reply.finish_reason == "tool_calls"
        assert reply.invalid_call is None
        assert {call.name for call in reply.tool_calls} <= allowed
        for call in reply.tool_calls:
            jsonschema.validate(msgspec.json.decode(call.arguments), CITY)

    def test_calls_nothing_when_it_must_not(self, live: Live) -> None:
        reply = live.reply(ask(tools=(WEATHER,), tool_choice="none"))
        assert (reply.tool_calls, reply.invalid_call) == ((), None)

    def test_matches_a_json_schema(self, live: Live) -> None:
        reply = live.reply(ask(response_format=ResponseFormat(schema=VERDICT)))
        jsonschema.validate(msgspec.json.decode(reply.content or ""), VERDICT)

    def test_matches_a_regular_expression(self, live: Live) -> None:
        reply = live.reply(ask(response_format=ResponseFormat(type="regex", pattern="[A-Z]{3}-[0-9]{2}")))
        assert re.fullmatch("[A-Z]{3}-[0-9]{2}", reply.content or "")

    def test_is_one_of_the_choices(self, live: Live) -> None:
        reply = live.reply(ask(response_format=ResponseFormat(type="choice", choices=("sunny", "rainy day"))))
        assert reply.content in ("sunny", "rainy day")

    def test_decides(self, live: Live) -> None:
        question = Message(role="user", content=write_question("Is it hot in Dallas?", {"yes": "", "no": "it is cold"}))
        reply = live.reply(ask([*LOOKED_UP, question], labels=("yes", "no")))
        assert accept_decision(reply, ("yes", "no"))["mass"] > 0

    def test_reads_calls_and_their_results(self, live: Live) -> None:
        assert isinstance(live.reply(ask(LOOKED_UP, tools=(WEATHER,))), Reply)

    @pytest.mark.parametrize(
        "settings",
        [
            pytest.param({}, id="a text"),
            pytest.param({"tools": (WEATHER,), "tool_choice": "required"}, id="a call"),
            pytest.param({"tools": (WEATHER,)}, id="a choice"),
            pytest.param({"response_format": ResponseFormat(schema=VERDICT)}, id="a form"),
        ],
    )
    def test_pieces_of_its_text_are_together_its_text(self, live: Live, settings: Mapping[str, Any]) -> None:
        request = ask(sampling={"max_tokens": 24}, **settings)
        watched, pieces = live.watch(request)
        assert said_in(pieces) == (watched.content or "")
        assert seen_of(watched) == seen_of(live.reply(request))

    def test_a_decision_has_no_text(self, live: Live) -> None:
        assert live.watch(ask(labels=("yes", "no")))[1] == []

    def test_answers_many_at_once(self, live: Live) -> None:
        async def all_at_once() -> list[Reply]:
            return await asyncio.gather(*(live.backend.reply(ask(sampling={"max_tokens": n})) for n in range(1, 9)))

        assert [reply.usage.completion_tokens <= n for n, reply in enumerate(live.run(all_at_once()), 1)] == [True] * 8

    def test_a_cancelled_request_leaves_the_others_alone(self, live: Live) -> None:
        async def cancel_one() -> Reply:
            other = asyncio.create_task(live.backend.reply(ask()))
            cancelled = asyncio.create_task(live.backend.reply(ask()))
            await asyncio.sleep(0)
            cancelled.cancel()
            await asyncio.wait((cancelled,))
            return await other

        assert live.run(cancel_one()).content

    def test_reports_that_a_prompt_does_not_fit(self, live: Live) -> None:
        with pytest.raises(ModelError) as caught:
            live.reply(ask([Message(role="user", content="weather " * 4 * WINDOW)]))
        assert caught.value.name == "model.context_overflow"

    def test_refuses_sampling_that_makes_no_sense(self, live: Live) -> None:
        with pytest.raises(ModelError) as caught:
            live.reply(ask(sampling={"temperature": -1.0}))
        assert caught.value.name == "model.request_refused"

    def test_reports_its_concurrency(self, live: Live) -> None:
        assert live.backend.concurrency is None or live.backend.concurrency > 0

    def test_may_be_stopped_without_a_start_and_twice(self, fresh: ModelBackend) -> None:
        async def stop_twice() -> None:
            await fresh.stop()
            await fresh.stop()

        asyncio.run(stop_twice())


def obliging(request: AskModel) -> Reply:
    """Return a reply that does what the request demands: the model of the fake backends. Words count as tokens.

    Raises:
        ModelError: the prompt is too long, or the temperature is negative, as for a real backend.
    """
    prompt_tokens = sum(len((message.content or "").split()) for message in request.messages)
    if prompt_tokens > WINDOW:
        raise ModelError("model.context_overflow", f"the maximum context length is {WINDOW} tokens")
    if request.sampling["temperature"] < 0:
        raise ModelError("model.request_refused", "temperature must not be negative")
    reply = _reply_to(request)
    bound = request.sampling["max_tokens"]
    words = (reply.content or "").split()
    if len(words) > bound:
        reply = Reply(content=" ".join(words[:bound]), finish_reason="length")
    usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=min(bound, max(len(words), 1)))
    return msgspec.structs.replace(reply, usage=usage)


def _reply_to(request: AskModel) -> Reply:
    if request.labels:
        return Reply(probabilities=dict.fromkeys(request.labels, 1 / len(request.labels)), mass=0.5)
    if request.tools and request.tool_choice not in ("auto", "none"):
        name = request.tools[0].name if request.tool_choice == "required" else request.tool_choice
        call = ToolCall(id="call00002", name=name, arguments='{"city":"Boston"}')
        return Reply(tool_calls=(call,), finish_reason="tool_calls")
    if (form := request.response_format) is not None and form.is_text:
        return Reply(content="ABC-12" if form.type == "regex" else form.choices[0])
    if form is not None:
        return Reply(content='{"sure":true}')
    return Reply(content="It is fair and 85 degrees.")
