"""The openai backend against a real HTTP server on this machine: requests, replies, errors."""

import asyncio
import json
import math
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, TypeVar

import msgspec
import openai
import pytest

from flowrun.backends.openai import OpenAIBackend
from flowrun.backends.server_errors import MEANINGS
from flowrun.backends.token_ids import ids_of, numbers_of
from flowrun.core.events import AskModel, ToolDeclaration
from flowrun.core.messages import Message, Reply, ToolCall, Usage
from flowrun.core.ports import ModelBackend
from flowrun.errors import BackendError, Bug, ModelError
from flowrun.spec.model import JSON, Model, ResponseFormat, Seconds
from tests.unit.backends.chunks import chunk, event, stream_of
from tests.unit.backends.contract import (
    CALL,
    CITY,
    LOOKED_UP,
    QUESTION,
    VERDICT,
    WEATHER,
    Live,
    ModelBackendContract,
    ask,
    obliging,
    started,
)

T = TypeVar("T")


# --- the server ---------------------------------------------------------------------------------------------------


class Seen(NamedTuple):
    """A request as the server received it. ``gone`` waits until the client has closed the connection."""

    path: str
    headers: Mapping[str, str]
    body: Any
    gone: Callable[[], None]


class Answer(NamedTuple):
    """The server's response to a request."""

    body: JSON | bytes
    status: int = 200
    headers: Mapping[str, str] = {}
    rest: Callable[[], bytes] | None = None
    breaks_off: bool = False


def completion(message: JSON = None, finish_reason: str | None = "stop", **more: JSON) -> dict[str, JSON]:
    message = {"role": "assistant", "content": "It is fair."} if message is None else message
    return {
        "id": "c1",
        "object": "chat.completion",
        "choices": [{"message": message, "finish_reason": finish_reason}],
    } | more


def decision(likeliest: Mapping[str, JSON], message: JSON = None, **more: JSON) -> dict[str, JSON]:
    """Return the completion of one token, with the log-probabilities of the likeliest ones."""
    top = [{"token": token, "logprob": value, "bytes": None} for token, value in likeliest.items()]
    logprobs = {"content": [{**top[0], "top_logprobs": top}] if top else [], "refusal": None}
    said = {"role": "assistant", "content": next(iter(likeliest), "")} if message is None else message
    return {
        "id": "c1",
        "object": "chat.completion",
        "choices": [{"message": said, "finish_reason": "length", "logprobs": logprobs}],
    } | more


IN_PIECES = {"content-type": "text/event-stream; charset=utf-8"}


def answer_of(answer: JSON | Answer) -> Answer:
    return answer if isinstance(answer, Answer) else Answer(answer)


class Server:
    """A server that lists its models, and answers chat completions by a function."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.models: JSON | Answer = {"object": "list", "data": [{"id": "qwen"}, {"id": "smollm"}]}
        self.answer: Callable[[Seen], JSON | Answer] = lambda seen: completion()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def respond(self, seen: Seen) -> Answer:
        self.seen.append(seen)
        answer = self.models if seen.path.startswith("/v1/models") else self.answer(seen)
        return answer_of(answer)

    def backend(
        self,
        *,
        max_retries: int = 0,
        stall: float = 0.0,
        mask: Callable[[str], str] = str,
        **fields: Any,
    ) -> OpenAIBackend:
        model = Model(**{"backend": "openai", "name": "default", "base_url": self.url} | fields)
        return OpenAIBackend(model, max_retries=max_retries, stall=stall, mask=mask)

    @property
    def asked(self) -> Seen:
        """Return the only request for a chat completion."""
        (seen,) = (each for each in self.seen if each.path == "/v1/chat/completions")
        return seen


@pytest.fixture
def server() -> Iterator[Server]:
    served = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            length = int(self.headers.get("content-length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = served.respond(Seen(self.path, headers, body, self.wait_until_gone))
            content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            plain = {"content-type": "application/json"}
            if answer.rest is None:
                plain["content-length"] = str(len(content))
            self.send_response(answer.status)
            for name, value in {**plain, **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
            if answer.rest is not None:
                self.wfile.write(answer.rest())
                self.close_connection = True
            if answer.breaks_off:
                self.connection.shutdown(socket.SHUT_RDWR)

        def wait_until_gone(self) -> None:
            self.connection.recv(1)

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

    class Http(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 1024

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Ignore errors: some tests close the connection."""

    with Http(("127.0.0.1", 0), Handler) as http:
        served.port = http.server_port
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield served
        finally:
            http.shutdown()
            thread.join()


@pytest.fixture(params=["aiohttp", "httpx"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test over both HTTP clients of the SDK."""

    def missing(**_: Any) -> Any:
        raise RuntimeError("install openai[aiohttp]")

    if request.param == "httpx":
        monkeypatch.setattr(openai, "DefaultAioHttpClient", missing, raising=False)


def started_and(backend: OpenAIBackend, *actions: Callable[[OpenAIBackend], Coroutine[Any, Any, T]]) -> list[T]:
    """Start a backend, return the results of the actions, and stop it."""

    async def go() -> list[T]:
        await backend.start()
        try:
            return [await action(backend) for action in actions]
        finally:
            await backend.stop()

    return asyncio.run(go())


def reply_of(backend: OpenAIBackend, request: AskModel | None = None, *, keeps_tokens: bool = False) -> Reply:
    (reply,) = started_and(backend, lambda live: live.reply(request or ask(), keeps_tokens=keeps_tokens))
    return reply


def failure_of(
    backend: OpenAIBackend, request: AskModel | None = None, *, keeps_tokens: bool = False
) -> tuple[str, str]:
    with pytest.raises(ModelError) as caught:
        reply_of(backend, request, keeps_tokens=keeps_tokens)
    return caught.value.name, caught.value.message


def start_error_of(backend: OpenAIBackend) -> str:
    with pytest.raises(BackendError) as caught:
        started_and(backend)
    return str(caught.value)


# --- the contract -------------------------------------------------------------------------------------------------


def _form_of(body: JSON) -> ResponseFormat | None:
    """Return the form that a request asks for."""
    if constraint := body.get("structured_outputs"):
        if "regex" in constraint:
            return ResponseFormat(type="regex", pattern=constraint["regex"])
        return ResponseFormat(type="choice", choices=constraint["choice"])
    form = body.get("response_format")
    return form and ResponseFormat(schema=form["json_schema"]["schema"])


def obliging_server(seen: Seen) -> JSON | Answer:
    """Return the reply of ``obliging`` in the wire format."""
    body = seen.body
    if body.get("logprobs"):
        return decision({"A": -1.0, "B": -2.0})
    choice = body.get("tool_choice", "auto")
    request = ask(
        [Message(role=each["role"], content=each["content"]) for each in body["messages"]],
        tools=tuple(ToolDeclaration(**tool["function"]) for tool in body.get("tools", ())),
        tool_choice=choice if isinstance(choice, str) else choice["function"]["name"],
        sampling={name: body[name] for name in ("temperature", "max_tokens")},
        response_format=_form_of(body),
    )
    try:
        reply = obliging(request)
    except ModelError as exc:
        return Answer({"error": {"message": exc.message, "type": "BadRequestError", "code": 400}}, 400)
    message = {
        "role": "assistant",
        "content": reply.content,
        "tool_calls": [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in reply.tool_calls
        ],
    }
    answered = completion(message, reply.finish_reason, usage=msgspec.to_builtins(reply.usage))
    return Answer(stream_of(answered), headers=IN_PIECES) if body.get("stream") else answered


@pytest.mark.usefixtures("transport")
class TestContract(ModelBackendContract):
    @pytest.fixture
    def fresh(self, server: Server) -> ModelBackend:
        server.answer = obliging_server
        return server.backend()

    @pytest.fixture
    def live(self, fresh: ModelBackend) -> Iterator[Live]:
        with started(fresh) as live:
            yield live


# --- requests -----------------------------------------------------------------------------------------------------

PLAIN: dict[str, JSON] = {
    "model": "qwen",
    "messages": [{"role": "user", "content": QUESTION.content}],
    "temperature": 0.0,
    "max_tokens": 64,
}
TOOL: dict[str, JSON] = {
    "type": "function",
    "function": {"name": "get_weather", "description": "Get the weather in a city.", "parameters": CITY},
}
STRICT = {"type": "function", "function": TOOL["function"] | {"strict": True}}


def called_with(arguments: str) -> Message:
    return Message(role="assistant", tool_calls=(ToolCall(id="a", name="f", arguments=arguments),))


def called_as(arguments: str) -> JSON:
    call: JSON = {"id": "a", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


@pytest.mark.parametrize(
    ("request_", "more"),
    [
        pytest.param(ask(), {}, id="plain"),
        pytest.param(
            ask(LOOKED_UP),
            {
                "messages": [
                    {"role": "user", "content": QUESTION.content},
                    {
                        "role": "assistant",
                        "content": None,
                        "tool_calls": [
                            {
                                "id": CALL.id,
                                "type": "function",
                                "function": {"name": "get_weather", "arguments": '{"city":"Dallas"}'},
                            }
                        ],
                    },
                    {"role": "tool", "content": "85 F", "tool_call_id": CALL.id},
                ]
            },
            id="calls",
        ),
        *(
            pytest.param(
                ask([QUESTION, called_with(written)]),
                {"messages": [{"role": "user", "content": QUESTION.content}, called_as(sent)]},
                id=f"arguments {written}",
            )
            for written, sent in [
                ('{"a": 1}', '{"a": 1}'),
                ('{"a": 1,,}', "{}"),
                ("[1]", "{}"),
                ('"a"', "{}"),
                ("", "{}"),
                ('{"a": 1e999}', "{}"),
                ('{"a": 1, "a": 2}', "{}"),
            ]
        ),
        pytest.param(
            ask([Message(role="user", content=text) for text in ("One.", "", "Two.")]),
            {"messages": [{"role": "user", "content": "One.\n\nTwo."}]},
            id="user turns in a row",
        ),
        *(
            pytest.param(
                ask([QUESTION, Message(role="assistant", content="4", reasoning="2 + 2", reasoning_key=key)]),
                {
                    "messages": [
                        {"role": "user", "content": QUESTION.content},
                        {"role": "assistant", "content": "4", key: "2 + 2"},
                    ]
                },
                id=key,
            )
            for key in ("reasoning", "reasoning_content")
        ),
        pytest.param(ask(tools=(WEATHER,)), {"tools": [TOOL], "tool_choice": "auto"}, id="tools"),
        pytest.param(
            ask(tools=(msgspec.structs.replace(WEATHER, strict=True),), tool_choice="get_weather"),
            {"tools": [STRICT], "tool_choice": {"type": "function", "function": {"name": "get_weather"}}},
            id="one strict tool",
        ),
        pytest.param(ask(tool_choice="none"), {}, id="no tools, so no choice"),
        pytest.param(
            ask(response_format=ResponseFormat(type="json_object")),
            {"response_format": {"type": "json_object"}},
            id="json object",
        ),
        pytest.param(
            ask(response_format=ResponseFormat(schema=VERDICT, strict=False)),
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "reply", "schema": VERDICT, "strict": False},
                }
            },
            id="json schema",
        ),
        pytest.param(
            ask(response_format=ResponseFormat(type="regex", pattern="[a-z]+")),
            {"structured_outputs": {"regex": "[a-z]+"}},
            id="regex, as vLLM's server takes it",
        ),
        pytest.param(
            ask(response_format=ResponseFormat(type="choice", choices=("yes", "no"))),
            {"structured_outputs": {"choice": ["yes", "no"]}},
            id="choice, as vLLM's server takes it",
        ),
        pytest.param(
            ask(response_format=ResponseFormat(type="choice", choices=("yes", "no"), strict=False)),
            {},
            id="a choice that is only checked",
        ),
        pytest.param(
            ask(sampling={"top_k": 5, "min_p": 0.1, "stop": ["END"], "seed": 7, "n": 1, "repetition_penalty": None}),
            {"top_k": 5, "min_p": 0.1, "stop": ["END"], "seed": 7},
            id="sampling by vLLM's names",
        ),
        pytest.param(
            ask(sampling={"logprobs": 3, "extra_args": {"a": 1}}),
            {"logprobs": True, "top_logprobs": 3, "vllm_xargs": {"a": 1}},
            id="sampling that the server calls differently",
        ),
    ],
)
def test_the_body_of_a_request(server: Server, request_: AskModel, more: dict[str, JSON]) -> None:
    reply_of(server.backend(), request_)
    assert server.asked.body == PLAIN | more


def test_template_kwargs_are_sent_and_settings_of_vllm_are_not(server: Server) -> None:
    own: dict[str, Any] = {"engine": {"dtype": "float32"}, "tool_call_parser": "hermes", "chat_template": "a.jinja"}
    reply_of(server.backend(chat_template_kwargs={"enable_thinking": False}, **own))
    assert server.asked.body == PLAIN | {"chat_template_kwargs": {"enable_thinking": False}}


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"n": 2}, "sampling sets n, but a state takes one reply; leave it out"),
        ({"stream": True, "model": "x"}, "sampling must not set model, stream: the state itself does"),
    ],
)
def test_sampling_that_no_state_may_set(server: Server, sampling: dict[str, JSON], message: str) -> None:
    assert failure_of(server.backend(), ask(sampling=sampling)) == ("model.request_refused", message)


ENVIRONMENT = {
    "OPENAI_API_KEY": "sk-environment",
    "OPENAI_ADMIN_KEY": "sk-environment-admin",
    "OPENAI_ORG_ID": "org-environment",
    "OPENAI_PROJECT_ID": "project-environment",
    "OPENAI_BASE_URL": "http://127.0.0.1:1/environment",
    "OPENAI_CUSTOM_HEADERS": "Authorization: Bearer sk-environment-header",
}


@pytest.mark.usefixtures("transport")
@pytest.mark.parametrize(
    ("fields", "authorization"),
    [
        pytest.param({}, "Bearer EMPTY", id="no key"),
        pytest.param({"api_key": "sk-spec"}, "Bearer sk-spec", id="key"),
        pytest.param({"api_key": "sk-spec", "headers": {"authorization": "Token t"}}, "Token t", id="header"),
        pytest.param({"base_url": "http://ann:p%40ss@127.0.0.1:{port}/v1"}, "Basic YW5uOnBAc3M=", id="address"),
    ],
)
def test_credentials_come_from_the_spec_alone(
    server: Server, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], authorization: str
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    fields = fields | ({"base_url": fields["base_url"].format(port=server.port)} if "base_url" in fields else {})
    reply_of(server.backend(**fields))
    assert [seen.headers["authorization"] for seen in server.seen] == [authorization] * 2
    assert "environment" not in str(server.seen)


def test_headers_and_the_address_query_are_sent(server: Server) -> None:
    reply_of(server.backend(headers={"X-Team": "weather"}, base_url=f"{server.url}?version=2"))
    assert [(seen.path, seen.headers["x-team"]) for seen in server.seen] == [
        ("/v1/models?version=2", "weather"),
        ("/v1/chat/completions?version=2", "weather"),
    ]


# --- replies ------------------------------------------------------------------------------------------------------


def called(arguments: Any, id_: str | None = "a1") -> dict[str, JSON]:
    call = {"id": id_, "type": "function", "function": {"name": "f", "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(completion(), Reply(content="It is fair."), id="text"),
        pytest.param(
            completion(called('{"a": 1}'), "tool_calls"),
            Reply(tool_calls=(ToolCall(id="a1", name="f", arguments='{"a": 1}'),), finish_reason="tool_calls"),
            id="call",
        ),
        pytest.param(
            completion(called('{"a": 1'), "length"),
            Reply(tool_calls=(ToolCall(id="a1", name="f", arguments='{"a": 1'),), finish_reason="length"),
            id="call that was cut",
        ),
        pytest.param(
            completion(called({"a": 1}, None), "stop"),
            Reply(tool_calls=(ToolCall(id="", name="f", arguments='{"a":1}'),), finish_reason="tool_calls"),
            id="call with a mapping, without an id, with the reason stop",
        ),
        pytest.param(
            completion(called(None), "function_call"),
            Reply(tool_calls=(ToolCall(id="a1", name="f", arguments=""),), finish_reason="tool_calls"),
            id="call without arguments",
        ),
        pytest.param(
            completion({"content": "4", "reasoning": "2 + 2", "tool_calls": []}, "tool_calls"),
            Reply(content="4", reasoning="2 + 2"),
            id="reasoning, and no call despite the reason",
        ),
        pytest.param(
            completion({"content": "4", "reasoning_content": "2 + 2", "tool_calls": None}, None),
            Reply(content="4", reasoning="2 + 2", reasoning_key="reasoning_content"),
            id="reasoning by its older name, no reason",
        ),
        pytest.param(
            completion({"content": None, "refusal": "I will not."}, "content_filter"),
            Reply(refusal="I will not.", finish_reason="content_filter"),
            id="refusal, and a reason that is kept",
        ),
        pytest.param(
            completion({"content": "4", "refusal": ""}, "STOP"), Reply(content="4"), id="a reason in capitals"
        ),
        pytest.param(
            completion({"content": None, "function_call": {"name": "f", "arguments": "{}"}}, "function_call"),
            Reply(tool_calls=(ToolCall(id="", name="f", arguments="{}"),), finish_reason="tool_calls"),
            id="call in the form before tool_calls",
        ),
        pytest.param(
            completion(
                usage={
                    "prompt_tokens": 9,
                    "completion_tokens": 4,
                    "total_tokens": 13,
                    "prompt_tokens_details": {"cached_tokens": 8},
                }
            ),
            Reply(content="It is fair.", usage=Usage(prompt_tokens=9, completion_tokens=4, cached_tokens=8)),
            id="usage",
        ),
        pytest.param(
            completion(usage={"prompt_tokens": 9, "completion_tokens": None, "prompt_tokens_details": None}),
            Reply(content="It is fair.", usage=Usage(prompt_tokens=9)),
            id="half a usage",
        ),
        pytest.param(completion(usage=None), Reply(content="It is fair."), id="no usage"),
        *(
            pytest.param(completion({"content": content}), reply, id=f"content {content}")
            for content, reply in [
                ([{"type": "text", "text": "Ro"}, {"type": "text", "text": "me."}], Reply(content="Rome.")),
                ([{"type": "output_text", "text": "Rome."}], Reply(content="Rome.")),
                (["Ro", "me."], Reply(content="Rome.")),
                ({"type": "text", "text": "Rome."}, Reply(content="Rome.")),
                ([{"type": "text", "text": {"value": "Rome."}}], Reply(content="Rome.")),
                ([{"type": "text", "text": None}, {"type": "text", "text": "Rome."}], Reply(content="Rome.")),
                ([{"type": "refusal", "refusal": "No."}], Reply(refusal="No.")),
                (
                    [
                        {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
                        {"type": "text", "text": "4"},
                    ],
                    Reply(content="4", reasoning="Hm."),
                ),
                ([], Reply()),
            ]
        ),
        pytest.param(
            completion({"content": None, "tool_calls": {"id": 7, "name": "f", "arguments": [1]}}),
            Reply(tool_calls=(ToolCall(id="7", name="f", arguments="[1]"),), finish_reason="tool_calls"),
            id="one flat call with a number for an id",
        ),
        pytest.param(
            completion(usage={"prompt_tokens": 9.0, "completion_tokens": "4", "prompt_tokens_details": []}),
            Reply(content="It is fair.", usage=Usage(prompt_tokens=9)),
            id="a usage of other types",
        ),
    ],
)
def test_the_reply_of_a_body(server: Server, body: JSON, expected: Reply) -> None:
    server.answer = lambda seen: body
    assert reply_of(server.backend()) == expected


@pytest.mark.parametrize(
    ("message", "name", "reported"),
    [
        pytest.param(
            {"content": [{"type": "image_url", "image_url": {"url": "x"}}]},
            "model.invalid_output",
            'its content has a part of type \'image_url\'; it is [{"type": "image_url", "image_url": {"url": "x"}}]',
            id="a picture",
        ),
        pytest.param(
            {"content": 4}, "model.invalid_output", "its content is no text and no list of texts; it is 4", id="number"
        ),
        pytest.param(
            {"content": {"answer": "x"}},
            "model.invalid_output",
            'its content is no text and no list of texts; it is {"answer": "x"}',
            id="a mapping without text",
        ),
        pytest.param(
            {"tool_calls": "f()"}, "model.invalid_call", 'its tool_calls are no list; it is "f()"', id="calls as a text"
        ),
        pytest.param(
            {"tool_calls": [{"id": "a", "function": {"arguments": "{}"}}]},
            "model.invalid_call",
            'a tool call names no function; it is {"id": "a", "function": {"arguments": "{}"}}',
            id="a call of nothing",
        ),
    ],
)
def test_a_reply_whose_form_nobody_knows_is_its_own_fault(
    server: Server, message: JSON, name: str, reported: str
) -> None:
    server.answer = lambda seen: completion(message)
    assert failure_of(server.backend()) == (name, f"the reply cannot be read: {reported}")


@pytest.mark.parametrize(
    ("answer", "reported"),
    [
        pytest.param(
            Answer(b"<html>\n<h1>Welcome</h1>", headers={"content-type": "text/html"}),
            "JSON is malformed: invalid character (byte 0); it begins: <html> <h1>Welcome</h1>",
            id="html",
        ),
        pytest.param(Answer(b""), "Input data was truncated; it begins: ", id="nothing"),
        pytest.param(
            Answer(b'{"choices": [{"mess'),
            'Input data was truncated; it begins: {"choices": [{"mess',
            id="half a body",
        ),
        pytest.param(
            Answer({"choices": []}),
            'Expected `array` of length >= 1 - at `$.choices`; it begins: {"choices": []}',
            id="no choices",
        ),
        pytest.param(
            Answer({"error": "overloaded"}),
            'Object missing required field `choices`; it begins: {"error": "overloaded"}',
            id="an error that is called a success",
        ),
        pytest.param(
            Answer({"choices": [{"message": None}]}),
            'Expected `object`, got `null` - at `$.choices[0].message`; it begins: {"choices": [{"message": null}]}',
            id="no message",
        ),
    ],
)
def test_an_answer_that_is_no_chat_completion(server: Server, answer: Answer, reported: str) -> None:
    server.answer = lambda seen: answer
    expected = f"the server {server.url} (model 'qwen') gave an answer that is no chat completion: {reported}"
    assert failure_of(server.backend()) == ("backend.unavailable", expected)


# --- errors -------------------------------------------------------------------------------------------------------


def error(message: str, **more: JSON) -> JSON:
    return {"error": {"message": message, "type": "BadRequestError"} | more}


@pytest.mark.parametrize(
    ("answer", "name", "reported"),
    [
        pytest.param(
            Answer(error("temperature must be non-negative", code=400), 400),
            "model.request_refused",
            "refused the request: temperature must be non-negative (HTTP 400)",
            id="400",
        ),
        pytest.param(
            Answer({"object": "error", "message": "old vLLM"}, 400),
            "model.request_refused",
            "refused the request: old vLLM (HTTP 400)",
            id="400 in an older form",
        ),
        pytest.param(
            Answer({"detail": [{"loc": ["body", "top_k"]}]}, 422),
            "model.request_refused",
            "refused the request: [{'loc': ['body', 'top_k']}] (HTTP 422)",
            id="422",
        ),
        pytest.param(
            Answer(error("This model's maximum context length is 4096 tokens."), 400),
            "model.context_overflow",
            "says that the prompt does not fit: This model's maximum context length is 4096 tokens. (HTTP 400)",
            id="vLLM's overflow",
        ),
        pytest.param(
            Answer(error("The decoder prompt (length 9) is longer than the maximum model length of 8."), 400),
            "model.context_overflow",
            "says that the prompt does not fit: "
            "The decoder prompt (length 9) is longer than the maximum model length of 8. (HTTP 400)",
            id="vLLM's other overflow",
        ),
        pytest.param(
            Answer(error("Please shorten it.", code="context_length_exceeded"), 400),
            "model.context_overflow",
            "says that the prompt does not fit: Please shorten it. (HTTP 400)",
            id="overflow by its code",
        ),
        pytest.param(
            Answer(error("bad key"), 401),
            "backend.unavailable",
            "refused the credentials: bad key (HTTP 401); set model.api_key",
            id="401",
        ),
        pytest.param(
            Answer(error("not yours"), 403),
            "backend.unavailable",
            "denied access: not yours (HTTP 403); see what model.api_key is allowed to do",
            id="403",
        ),
        pytest.param(
            Answer(error("The model `qwen` does not exist."), 404),
            "model.request_refused",
            "does not know the model or the address: The model `qwen` does not exist. (HTTP 404); "
            "model.base_url mostly ends in /v1",
            id="404",
        ),
        pytest.param(
            Answer(b"I'm a teapot", 418),
            "model.request_refused",
            "refused the request: I'm a teapot (HTTP 418)",
            id="418",
        ),
        pytest.param(
            Answer(error("slow down"), 429),
            "backend.unavailable",
            "is asked too much: slow down (HTTP 429); run fewer at once, or wait",
            id="429",
        ),
        pytest.param(
            Answer(error("EngineCore died"), 500),
            "backend.unavailable",
            "failed: EngineCore died (HTTP 500); see the server's log",
            id="500",
        ),
        pytest.param(
            Answer(b"<html>" + b"x" * 1000, 503),
            "backend.unavailable",
            f"failed: <html>{'x' * 294} ... (HTTP 503); see the server's log",
            id="503 of a proxy",
        ),
        pytest.param(
            Answer(b"", 502),
            "backend.unavailable",
            "failed: Error code: 502 (HTTP 502); see the server's log",
            id="empty",
        ),
    ],
)
def test_errors_of_the_server(server: Server, answer: Answer, name: str, reported: str) -> None:
    server.answer = lambda seen: answer
    assert failure_of(server.backend()) == (name, f"the server {server.url} (model 'qwen') {reported}")


@pytest.mark.usefixtures("transport")
@pytest.mark.parametrize("status", [408, 409, 500, 502, 504])
def test_failures_that_may_pass_are_tried_again(server: Server, status: int) -> None:
    failed = Answer(error("failed"), status, {"retry-after-ms": "1"})
    answers = iter([failed, failed, completion()])
    server.answer = lambda seen: next(answers)
    assert reply_of(server.backend(max_retries=2)) == Reply(content="It is fair.")


@pytest.mark.usefixtures("transport")
@pytest.mark.parametrize("status", [429, 503, 529])
def test_a_busy_server_is_waited_for_however_often_it_refuses(server: Server, status: int) -> None:
    busy = Answer(error("busy"), status, {"retry-after-ms": "1"})
    answers = iter([*[busy] * 12, completion()])
    server.answer = lambda seen: next(answers)
    backend = server.backend(stall=60, timeout=Seconds(30))
    assert reply_of(backend) == Reply(content="It is fair.")


def test_a_server_is_busy_while_it_starts(server: Server) -> None:
    answers = iter([Answer(error("loading"), 503, {"retry-after-ms": "1"}), server.models])
    server.respond = lambda seen: answer_of(next(answers))  # type: ignore[method-assign]
    started_and(server.backend(stall=60))


def test_money_that_is_spent_comes_back_by_no_waiting(server: Server) -> None:
    server.answer = lambda seen: Answer(error("You exceeded your quota.", code="insufficient_quota"), 429)
    assert failure_of(server.backend(stall=60))[0] == "backend.unavailable"


@pytest.mark.usefixtures("transport")
def test_the_pauses_of_a_busy_server_are_not_the_models_time(server: Server) -> None:
    busy = Answer(error("busy"), 429, {"retry-after-ms": "300"})
    answers = iter([busy, busy, completion()])
    server.answer = lambda seen: next(answers)
    assert reply_of(server.backend(stall=60, timeout=Seconds(0.5))) == Reply(content="It is fair.")


@pytest.mark.usefixtures("transport")
@pytest.mark.parametrize("over", [429, 503, 529, 502, "reset"])
def test_a_server_that_takes_few_at_once_fails_none(server: Server, over: int | str) -> None:
    """A server takes three at once, and refuses or drops the other connections."""
    places = threading.Semaphore(3)

    def answer(seen: Seen) -> JSON | Answer:
        if not places.acquire(blocking=False):
            if isinstance(over, str):
                raise ConnectionAbortedError
            return Answer(error("slow down"), over)
        try:
            time.sleep(0.02)
        finally:
            places.release()
        return completion()

    server.answer = answer

    async def all_at_once(backend: OpenAIBackend) -> list[Reply]:
        return await asyncio.gather(*(backend.reply(ask()) for _ in range(60)))

    backend = server.backend(max_retries=2, stall=60)
    assert started_and(backend, all_at_once) == [[Reply(content="It is fair.")] * 60]
    assert backend.concurrency is not None
    assert backend.concurrency < 30


def with_tokens(prompt: JSON, ids: JSON, logprobs: list[JSON]) -> JSON:
    answer: Any = completion({"content": "hi"}, prompt_token_ids=prompt)
    answer["choices"][0] |= {"token_ids": ids, "logprobs": {"content": [{"logprob": one} for one in logprobs]}}
    return answer


def test_tokens_of_a_server_are_those_that_it_names(server: Server) -> None:
    server.answer = lambda seen: with_tokens([1, 2], [3, 4], [-0.5, -1.5])
    tokens = reply_of(server.backend(), keeps_tokens=True).tokens
    assert tokens is not None
    assert (list(ids_of(tokens.prompt)), list(ids_of(tokens.ids)), list(numbers_of(tokens.logprobs))) == (
        [1, 2],
        [3, 4],
        [-0.5, -1.5],
    )
    assert (server.asked.body["return_token_ids"], server.asked.body["logprobs"]) == (True, True)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(completion({"content": "hi"}), id="none"),
        pytest.param(with_tokens(None, [3, 4], [-0.5, -1.5]), id="none of the prompt"),
        pytest.param(with_tokens([1], None, [-0.5]), id="none of the reply"),
        pytest.param(with_tokens([1], [3, 4], [-0.5]), id="fewer log-probabilities"),
        pytest.param(with_tokens([1], [3], [None]), id="no number"),
        pytest.param(with_tokens(["1"], [3], [-0.5]), id="no ids"),
    ],
)
def test_a_server_that_names_no_tokens_is_refused(server: Server, answer: JSON) -> None:
    server.answer = lambda seen: answer
    name, message = failure_of(server.backend(), keeps_tokens=True)
    assert name == "model.request_refused"
    assert "gives no token ids: --tokens needs vLLM in this process, or a server of vLLM" in message


def test_a_timeout_is_that_of_all_attempts(server: Server) -> None:
    server.answer = lambda seen: Answer(error("failed"), 500, {"retry-after-ms": "300"})
    begun = time.monotonic()
    assert failure_of(server.backend(max_retries=100, timeout=Seconds(1)))[0] == "backend.unavailable"
    assert time.monotonic() - begun < 10


@pytest.mark.usefixtures("transport")
def test_a_reply_that_takes_too_long(server: Server) -> None:
    released = threading.Event()

    def wait(seen: Seen) -> JSON:
        released.wait(30)
        return completion()

    server.answer = wait
    try:
        name, message = failure_of(server.backend(timeout=Seconds(0.1)))
    finally:
        released.set()
    assert name == "backend.unavailable"
    assert message.startswith(f"the server {server.url} (model 'qwen') did not answer in time: ")
    assert message.endswith("; raise model.timeout, or ask less")


@pytest.mark.usefixtures("transport")
def test_a_server_that_has_gone(server: Server) -> None:
    def hang_up(seen: Seen) -> JSON:
        raise ConnectionAbortedError

    server.answer = hang_up
    name, message = failure_of(server.backend())
    assert name == "backend.unavailable"
    assert message.startswith(f"the server {server.url} (model 'qwen') could not be reached: ")


def test_text_that_is_no_unicode_is_refused(server: Server) -> None:
    name, message = failure_of(server.backend(), ask([Message(role="user", content="half \ud83d")]))
    assert name == "model.request_refused"
    assert message.startswith(f"the server {server.url} (model 'qwen') cannot be sent a text that is no Unicode: ")


def sdk_errors(base: type[Exception]) -> Iterator[type[Exception]]:
    for kind in base.__subclasses__():
        yield kind
        yield from sdk_errors(kind)


def test_every_error_of_the_sdk_has_its_meaning() -> None:
    known = {kind for kind in sdk_errors(openai.APIError) if kind.__module__.startswith("openai")}
    general = {"Exception", "APIStatusError"}
    meant = {kind: next(base.__name__ for base in kind.__mro__ if base.__name__ in MEANINGS) for kind in known}
    assert {kind.__name__ for kind, name in meant.items() if name in general} == {"APIStatusError"}
    assert {"BadRequestError", "APITimeoutError"} <= {kind.__name__ for kind in known}


# --- secrets ------------------------------------------------------------------------------------------------------

SECRETS: dict[str, Any] = {"api_key": "sk-secret", "headers": {"X-Token": "token-secret"}}


def test_no_secret_in_a_message_or_traceback(server: Server) -> None:
    server.answer = lambda seen: Answer(error("key sk-secret, token token-secret, pass word-secret, other hidden"), 401)
    base_url = f"http://ann:word-secret@127.0.0.1:{server.port}/v1"
    backend = server.backend(base_url=base_url, mask=lambda text: text.replace("hidden", "<redacted>"), **SECRETS)
    with pytest.raises(ModelError) as caught:
        reply_of(backend)
    assert caught.value.message == (
        f"the server {server.url} (model 'qwen') refused the credentials: "
        "key ***, token ***, pass ***, other <redacted> (HTTP 401); set model.api_key"
    )
    shown = "".join(traceback.format_exception(caught.value))
    assert [secret for secret in ("sk-secret", "token-secret", "word-secret", "hidden") if secret in shown] == []


def test_an_error_without_secrets_keeps_its_cause(server: Server) -> None:
    server.answer = lambda seen: Answer(error("bad"), 400)
    with pytest.raises(ModelError) as caught:
        reply_of(server.backend(**SECRETS))
    assert isinstance(caught.value.__cause__, openai.BadRequestError)


def test_an_answer_that_is_no_chat_completion_shows_no_secret_either(server: Server) -> None:
    server.answer = lambda seen: Answer(b"<p>sk-secret</p>")
    assert failure_of(server.backend(**SECRETS))[1].endswith("it begins: <p>***</p>")


@pytest.mark.parametrize("at", [0, 1, 291, 295, 299, 300, 301, 595, 600])
def test_a_secret_is_masked_before_a_text_is_cut(server: Server, at: int) -> None:
    key = "sk-order-0123456789abcdef"
    for answer in (Answer(error("x" * at + key), 400), Answer(b"x" * at + key.encode())):
        server.answer = lambda seen, answer=answer: answer  # type: ignore[misc]
        message = failure_of(server.backend(api_key=key, headers={"X-Token": "token-secret"}))[1]
        assert "sk-" not in message.replace("***", "")
    server.models = Answer(b"x" * at + key.encode())
    with pytest.raises(BackendError) as caught:
        reply_of(server.backend(api_key=key))
    assert "sk-" not in str(caught.value)


# --- starting and stopping ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "chosen"), [("default", "qwen"), ("smollm", "smollm")])
def test_the_model_is_the_one_named_or_the_first(server: Server, name: str, chosen: str) -> None:
    reply_of(server.backend(name=name))
    assert server.asked.body["model"] == chosen


@pytest.mark.parametrize(
    ("name", "models", "reported"),
    [
        pytest.param("smolm", None, "has no model 'smolm'; it has: qwen, smollm; did you mean 'smollm'?", id="similar"),
        pytest.param("gpt-9", None, "has no model 'gpt-9'; it has: qwen, smollm", id="other"),
        pytest.param("default", {"data": []}, "has no model 'default'; it has: none at all", id="none"),
        pytest.param(
            "gpt-9",
            {"data": [{"id": f"m{number:02}"} for number in range(30)]},
            "has no model 'gpt-9'; it has: " + ", ".join(f"m{number:02}" for number in range(20)) + ", ...",
            id="many",
        ),
        pytest.param(
            "qwen",
            Answer(b"<html>", headers={"content-type": "text/html"}),
            "(model 'qwen') lists no models at /models: JSON is malformed: invalid character (byte 0); "
            "its answer begins: <html>; model.base_url mostly ends in /v1",
            id="no list",
        ),
        pytest.param(
            "qwen",
            Answer({"detail": "Not Found"}, 404),
            "(model 'qwen') does not know the model or the address: Not Found (HTTP 404); "
            "model.base_url mostly ends in /v1",
            id="wrong path",
        ),
    ],
)
def test_a_start_without_the_model(server: Server, name: str, models: JSON | Answer, reported: str) -> None:
    server.models = models if models is not None else server.models
    assert start_error_of(server.backend(name=name)) == f"the server {server.url} {reported}"


@pytest.mark.usefixtures("transport")
def test_a_start_without_a_server() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        message = start_error_of(OpenAIBackend(Model(backend="openai", name="m", base_url=url), max_retries=0))
    assert message.startswith(f"the server {url} (model 'm') could not be reached: ")
    assert message.endswith("; is it running, and is model.base_url right?")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"base_url": None}, "model.base_url is missing; it must be like http://localhost:8000/v1"),
        (
            {"base_url": "localhost:8000"},
            "model.base_url is 'localhost:8000'; it must be like http://localhost:8000/v1",
        ),
        ({"base_url": "http:///v1"}, "model.base_url is 'http:///v1'; it must be like http://localhost:8000/v1"),
        (
            {"base_url": "http://ann:word@host:port/v1?key=k"},
            "model.base_url is 'host:port/v1'; it must be like http://localhost:8000/v1",
        ),
        (
            {"base_url": "http://[::1/v1"},
            "model.base_url is 'http://[::1/v1'; it must be like http://localhost:8000/v1",
        ),
        ({"api_key": "sk-1\n"}, "model.api_key holds a line break or a character that HTTP does not allow there"),
        (
            {"headers": {"X-A": "ä"}},
            "model.headers.X-A holds a line break or a character that HTTP does not allow there",
        ),
    ],
)
def test_settings_that_cannot_be_used(fields: dict[str, Any], message: str) -> None:
    model = Model(**{"backend": "openai", "name": "m", "base_url": "http://127.0.0.1:1/v1"} | fields)
    assert start_error_of(OpenAIBackend(model, max_retries=0)) == message


def test_a_reply_before_the_start_is_a_bug(server: Server) -> None:
    with pytest.raises(Bug):
        asyncio.run(server.backend().reply(ask()))


def test_may_be_started_again(server: Server) -> None:
    backend = server.backend()
    assert [reply_of(backend), reply_of(backend)] == [Reply(content="It is fair.")] * 2


# --- many at once -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("transport")
def test_no_connection_pool_limits_live_runs(server: Server) -> None:
    many = 150  # more than the default limits of the HTTP clients
    all_here = threading.Barrier(many)

    def wait_for_all(seen: Seen) -> JSON:
        all_here.wait(60)
        return completion()

    server.answer = wait_for_all

    async def all_at_once(backend: OpenAIBackend) -> list[Reply]:
        return await asyncio.gather(*(backend.reply(ask()) for _ in range(many)))

    assert started_and(server.backend(), all_at_once) == [[Reply(content="It is fair.")] * many]


@pytest.mark.usefixtures("transport")
def test_cancelling_frees_the_servers_resources(server: Server) -> None:
    arrived, gone = threading.Event(), threading.Event()

    def notice(seen: Seen) -> JSON:
        arrived.set()
        seen.gone()
        gone.set()
        return completion()

    server.answer = notice

    async def cancel(backend: OpenAIBackend) -> bool:
        task = asyncio.create_task(backend.reply(ask()))
        await asyncio.to_thread(arrived.wait, 30)
        task.cancel()
        await asyncio.wait((task,))
        return await asyncio.to_thread(gone.wait, 30) and task.cancelled()

    assert started_and(server.backend(), cancel) == [True]


def test_importing_the_adapter_imports_no_sdk() -> None:
    code = "import flowrun.backends.openai, sys; print({'openai', 'httpx', 'aiohttp', 'vllm'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


# --- text as it is written --------------------------------------------------------------------------------------------

PIECES = [
    chunk({"role": "assistant", "content": ""}),
    chunk({"content": "It is"}),
    chunk({"content": " fair."}, "stop"),
]


def in_pieces(*data: JSON, **more: Any) -> Answer:
    """Return an answer in pieces; with ``breaks_off`` the connection ends before it is complete."""
    body = b"".join(map(event, data))
    length = {"content-length": str(len(body) + 100)} if more.get("breaks_off") else {}
    return Answer(body, headers=IN_PIECES | length, **more)


def watched(
    backend: OpenAIBackend, request: AskModel | None = None
) -> tuple[Reply | tuple[str, str], list[str | None]]:
    """Return the reply, or the name and the message of its failure, and the pieces of its text."""
    pieces: list[str | None] = []
    try:
        (reply,) = started_and(backend, lambda live: live.reply(request or ask(), on_text=pieces.append))
    except ModelError as exc:
        return (exc.name, exc.message), pieces
    return reply, pieces


def answering(server: Server, *answers: JSON | Answer) -> None:
    """Let the server give these answers, one after the other."""
    left = list(answers)
    server.answer = lambda seen: left.pop(0)


@pytest.mark.usefixtures("transport")
def test_a_watched_reply_is_asked_for_in_pieces(server: Server) -> None:
    usage = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}
    server.answer = lambda seen: in_pieces(*PIECES, usage, "[DONE]")
    reply = Reply(content="It is fair.", usage=Usage(prompt_tokens=9, completion_tokens=4))
    assert watched(server.backend()) == (reply, ["It is", " fair."])
    assert server.asked.body == PLAIN | {"stream": True, "stream_options": {"include_usage": True}}


def test_pieces_come_as_they_are_written(server: Server) -> None:
    said = threading.Event()

    def answer(seen: Seen) -> Answer:
        def rest() -> bytes:
            assert said.wait(30)
            return b"".join(map(event, [*PIECES[2:], "[DONE]"]))

        return Answer(b"".join(map(event, PIECES[:2])), headers=IN_PIECES | {"connection": "close"}, rest=rest)

    server.answer = answer

    def on_text(piece: str | None) -> None:
        said.set()

    assert started_and(server.backend(), lambda live: live.reply(ask(), on_text=on_text)) == [
        Reply(content="It is fair.")
    ]


def test_a_server_that_does_not_stream_gives_its_text_in_one_piece(server: Server) -> None:
    assert watched(server.backend()) == (Reply(content="It is fair."), ["It is fair."])


def test_a_server_that_refuses_to_stream_is_asked_without_and_not_again(server: Server) -> None:
    server.answer = lambda seen: Answer(error("no stream_options"), 422) if "stream" in seen.body else completion()
    pieces: list[str | None] = []

    def ask_watched(live: OpenAIBackend) -> Coroutine[Any, Any, Reply]:
        return live.reply(ask(), on_text=pieces.append)

    assert started_and(server.backend(), ask_watched, ask_watched) == [Reply(content="It is fair.")] * 2
    assert pieces == ["It is fair."] * 2
    asked = [seen.body for seen in server.seen if seen.path == "/v1/chat/completions"]
    assert ["stream" in body for body in asked] == [True, False, False]


def test_a_request_that_is_refused_fails_as_without_a_stream(server: Server) -> None:
    server.answer = lambda seen: Answer(error("no such sampling"), 400)
    failure, pieces = watched(server.backend())
    assert (failure, pieces) == (failure_of(server.backend()), [])
    answering(server, Answer(error("no"), 400), Answer(error("no"), 400), in_pieces(*PIECES))
    backend = server.backend()
    watched(backend)
    assert watched(backend) == (Reply(content="It is fair."), ["It is", " fair."])  # it was not about the stream


@pytest.mark.usefixtures("transport")
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(in_pieces(*PIECES[:2], breaks_off=True), id="the connection breaks"),
        pytest.param(in_pieces(*PIECES[:2]), id="the answer ends"),
        pytest.param(in_pieces(*PIECES[:2], {"error": {"message": "out of memory", "code": 500}}), id="an error"),
        pytest.param(in_pieces(*PIECES[:2], {"error": {"message": "busy", "code": 429}}), id="it is busy"),
    ],
)
def test_an_attempt_that_fails_in_the_middle_is_made_again_and_said_to_be_void(server: Server, fault: Answer) -> None:
    answering(server, fault, in_pieces(*PIECES, "[DONE]"))
    backend = server.backend(max_retries=1, stall=30.0)
    assert watched(backend) == (Reply(content="It is fair."), ["It is", None, "It is", " fair."])


@pytest.mark.parametrize(
    ("fault", "name", "message"),
    [
        pytest.param(
            in_pieces(*PIECES[:2]),
            "backend.unavailable",
            "ended its answer in the middle: the stream ended before the reply did; see the server's log",
            id="the answer ends",
        ),
        pytest.param(
            in_pieces(*PIECES[:2], {"error": {"message": "key sk-secret", "code": 500}}),
            "backend.unavailable",
            "failed: key ***; see the server's log",
            id="an error",
        ),
        pytest.param(
            in_pieces(*PIECES[:2], "{"),
            "backend.unavailable",
            "gave an answer that is no chat completion: an event holds no JSON: Expecting property name enclosed in "
            "double quotes: line 1 column 2 (char 1); it has: {",
            id="no JSON",
        ),
    ],
)
def test_a_reply_that_fails_in_the_middle(server: Server, fault: Answer, name: str, message: str) -> None:
    server.answer = lambda seen: fault
    failure = (name, f"the server {server.url} (model 'qwen') {message}")
    assert watched(server.backend(api_key="sk-secret")) == (failure, ["It is"])


def test_tokens_are_kept_of_a_watched_reply(server: Server) -> None:
    logprobs = [{"content": [{"token": "x", "logprob": value}]} for value in (-0.5, -1.0)]
    first, second = chunk({"content": "Hi"}, prompt_token_ids=[1, 2]), chunk({"content": "."}, "stop")
    first["choices"][0] |= {"token_ids": [3], "logprobs": logprobs[0]}
    second["choices"][0] |= {"token_ids": [4], "logprobs": logprobs[1]}
    server.answer = lambda seen: in_pieces(first, second)
    backend, pieces = server.backend(), list[str | None]()
    (reply,) = started_and(backend, lambda live: live.reply(ask(), keeps_tokens=True, on_text=pieces.append))
    assert reply.tokens is not None
    assert [[*ids_of(reply.tokens.ids)], [*numbers_of(reply.tokens.logprobs)]] == [[3, 4], [-0.5, -1.0]]
    assert pieces == ["Hi", "."]


@pytest.mark.usefixtures("transport")
def test_cancelling_a_watched_reply_frees_the_servers_resources(server: Server) -> None:
    gone = threading.Event()

    def answer(seen: Seen) -> Answer:
        def rest() -> bytes:
            seen.gone()
            gone.set()
            return b""

        return Answer(b"".join(map(event, PIECES[:2])), headers=IN_PIECES | {"content-length": "9999"}, rest=rest)

    server.answer = answer

    async def cancel(backend: OpenAIBackend) -> bool:
        begun = asyncio.Event()
        task = asyncio.create_task(backend.reply(ask(), on_text=lambda piece: begun.set()))
        await asyncio.wait_for(begun.wait(), 30)
        task.cancel()
        await asyncio.wait((task,))
        return await asyncio.to_thread(gone.wait, 30) and task.cancelled()

    assert started_and(server.backend(), cancel) == [True]


# --- decisions --------------------------------------------------------------------------------------------------------


QUESTION_OF_TWO = ask([Message(role="user", content="Well?")], labels=("high", "low"))


@pytest.mark.parametrize(
    ("sampling", "sent"),
    [
        pytest.param({}, {"max_tokens": 1}, id="without sampling"),
        pytest.param(
            {"temperature": 0.0, "top_p": 0.5, "logit_bias": {"1": 5}, "stop": ["A"], "seed": 3, "logprobs": 2, "n": 1},
            {"max_tokens": 1},
            id="what chooses tokens is left out",
        ),
        pytest.param(
            {"max_completion_tokens": 64, "reasoning_effort": "none"},
            {"max_completion_tokens": 1, "reasoning_effort": "none"},
            id="what the model needs stays",
        ),
    ],
)
def test_a_decision_asks_for_the_likeliest_tokens(
    server: Server, sampling: dict[str, JSON], sent: dict[str, JSON]
) -> None:
    server.answer = lambda seen: decision({"A": -1.0, "B": -2.0})
    reply_of(server.backend(), msgspec.structs.replace(QUESTION_OF_TWO, sampling=sampling))
    assert server.asked.body == {
        "model": "qwen",
        "messages": [{"role": "user", "content": "Well?"}],
        "temperature": 1,
        "logprobs": True,
        "top_logprobs": 20,
        **sent,
    }


@pytest.mark.parametrize(
    ("likeliest", "high", "mass"),
    [
        pytest.param({"A": math.log(0.6), "B": math.log(0.2), "C": -3.0}, 0.75, 0.8, id="plain letters"),
        pytest.param({" A": math.log(0.6), "Ġb": -0.1, "▁B": math.log(0.2)}, 0.75, 0.8, id="letters behind spaces"),
        pytest.param({"A": math.log(0.6), " A": -5.0, " B": math.log(0.2), "B": -9}, 0.75, 0.8, id="the likelier"),
        pytest.param({"Well": -0.1, "A": math.log(0.25)}, 1.0, 0.25, id="one of them is not among the likeliest"),
        pytest.param({"B": 1e-7, "A": -100}, 0.0, 1.0, id="a number that is rounded up"),
    ],
)
def test_the_probabilities_are_those_of_the_letters(
    server: Server, likeliest: dict[str, JSON], high: float, mass: float
) -> None:
    server.answer = lambda seen: decision(likeliest, usage={"prompt_tokens": 7, "completion_tokens": 1})
    reply = reply_of(server.backend(), QUESTION_OF_TWO)
    assert reply.probabilities == pytest.approx({"high": high, "low": 1 - high})
    assert reply.mass == pytest.approx(mass)
    plain = msgspec.structs.replace(reply, probabilities=None, mass=1.0)
    assert plain == Reply(usage=Usage(prompt_tokens=7, completion_tokens=1))


THOUGHT = {"role": "assistant", "content": None, "reasoning": "Let me"}


@pytest.mark.parametrize(
    ("answer", "name", "reported"),
    [
        pytest.param(
            completion(),
            "model.request_refused",
            "the server returned no log-probabilities: use another server, or one that returns logprobs",
            id="no log-probabilities",
        ),
        pytest.param(
            completion(THOUGHT, "length"),
            "model.request_refused",
            "the model reasons before it answers: turn that off",
            id="a model that reasons, without log-probabilities",
        ),
        pytest.param(
            decision({"Let": -0.1, "A": -3.0}, THOUGHT),
            "model.invalid_output",
            """one of ["Let", "A"]: the model reasons before it answers""",
            id="a model that reasons",
        ),
        pytest.param(
            decision({"<think>": -0.1, "The": -3.0}),
            "model.invalid_output",
            """no letter of a choice begins the reply, but one of ["<think>", "The"]""",
            id="no letter",
        ),
        pytest.param(
            Answer(error("You are not allowed to request logprobs from this model."), 403),
            "backend.unavailable",
            "not allowed to request logprobs",
            id="a model that may not be asked",
        ),
        pytest.param(
            Answer(error("'logprobs' is not supported with this model."), 400),
            "model.request_refused",
            "'logprobs' is not supported",
            id="a server that refuses",
        ),
    ],
)
def test_an_answer_that_decides_nothing(server: Server, answer: JSON | Answer, name: str, reported: str) -> None:
    server.answer = lambda seen: answer
    failed, message = failure_of(server.backend(), QUESTION_OF_TWO)
    assert failed == name
    assert reported in message


def test_a_model_that_declines_to_decide(server: Server) -> None:
    server.answer = lambda seen: completion({"role": "assistant", "content": None, "refusal": "I will not."})
    assert reply_of(server.backend(), QUESTION_OF_TWO).refusal == "I will not."
