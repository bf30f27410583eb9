"""Flows as tools, called by the client of the MCP SDK: in the protocol of the handshake, and in that of 2026-07-28."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import pytest

pytest.importorskip("mcp", reason="the MCP SDK is not installed")

import httpx2
from mcp import types
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from tests.serving import wait_for
from tests.unit.serving.conftest import KEY, Served

T = TypeVar("T")

MODES: Final = (pytest.param("legacy", id="2025-11-25"), pytest.param("2026-07-28", id="2026-07-28"))

each_protocol = pytest.mark.parametrize("mode", MODES)


@asynccontextmanager
async def connected(served: Served, mode: str, **callbacks: Any) -> AsyncIterator[Client]:
    """Connect a client with the key."""
    url = f"{served.server.url}/mcp"
    async with httpx2.AsyncClient(headers={"authorization": f"Bearer {KEY}"}) as http_client:
        transport = streamable_http_client(url, http_client=http_client)
        async with Client(transport, mode=mode, **callbacks) as client:
            yield client


def ask(served: Served, mode: str, work: Callable[[Client], Awaitable[T]], **callbacks: Any) -> T:
    async def go() -> T:
        async with connected(served, mode, **callbacks) as client:
            return await work(client)

    return asyncio.run(go())


def call(served: Served, mode: str, name: str, arguments: dict[str, Any], **callbacks: Any) -> types.CallToolResult:
    """Call one tool by a client of its own."""
    return ask(served, mode, lambda client: client.call_tool(name, arguments), **callbacks)


def text_of(result: types.CallToolResult) -> str:
    """Return the text of a result that has no other content."""
    (part,) = result.content
    assert isinstance(part, types.TextContent)
    return part.text


class Person:
    """Fills in the forms that a client shows, and keeps what they said."""

    def __init__(self, *answers: types.ElicitResult) -> None:
        self._answers = list(answers)
        self.forms: list[types.ElicitRequestFormParams] = []

    async def __call__(self, context: Any, form: Any) -> types.ElicitResult:
        self.forms.append(form)
        return self._answers.pop(0)


def accept(**content: Any) -> types.ElicitResult:
    return types.ElicitResult(action="accept", content=content)


@each_protocol
def test_the_flows_are_tools(served: Served, mode: str) -> None:
    tools = {tool.name: tool for tool in ask(served, mode, lambda client: client.list_tools()).tools}
    assert [*tools] == ["parrot", "history", "weather", "fails", "asks", "rests", "pays", "repeats"]
    assert tools["repeats"].description == "Gives a text back."
    assert tools["parrot"].description == "Runs the flow parrot 1.0.0."
    assert tools["parrot"].input_schema == {
        "type": "object",
        "properties": {"text": {"type": "string"}, "shout": {"type": "boolean", "default": False}},
        "required": ["text"],
        "additionalProperties": False,
    }


@each_protocol
def test_an_output_is_text_and_a_mapping_is_structured_too(served: Served, mode: str) -> None:
    said = call(served, mode, "parrot", {"text": "hi"})
    assert (text_of(said), said.structured_content, said.is_error) == ("You said hi", None, False)
    repeated = call(served, mode, "repeats", {"text": "hi"})
    assert repeated.structured_content == {"text": "hi", "length": 2}
    assert text_of(repeated) == '{\n  "text": "hi",\n  "length": 2\n}'


@each_protocol
def test_errors(served: Served, mode: str) -> None:
    failed = call(served, mode, "fails", {"text": "x"})
    assert (text_of(failed), failed.is_error) == ("tool.failed: ValueError: the oven is cold", True)
    refused = call(served, mode, "repeats", {"txt": "x"})
    assert refused.is_error
    assert text_of(refused).startswith("the inputs do not match what repeats declares: ")

    async def unknown(client: Client) -> None:
        with pytest.raises(MCPError, match="there is no tool 'nothing'"):
            await client.call_tool("nothing", {})

    ask(served, mode, unknown)


@each_protocol
def test_a_client_is_told_the_states_if_it_wants_to_know(served: Served, mode: str) -> None:
    entered: list[tuple[float, str | None]] = []
    said: list[Any] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        entered.append((progress, message))

    async def on_log(params: types.LoggingMessageNotificationParams) -> None:
        said.append((params.level, params.logger, params.data["state"]))

    async def work(client: Client) -> None:
        await client.call_tool("repeats", {"text": "nothing is asked for"})
        assert (entered, said) == ([], [])
        meta: Any = None
        if mode == "legacy":
            await client.session.send_request(
                types.SetLevelRequest(params=types.SetLevelRequestParams(level="info")), types.EmptyResult
            )
        else:
            meta = {types.LOG_LEVEL_META_KEY: "info"}
        await client.call_tool("repeats", {"text": "hi"}, progress_callback=on_progress, meta=meta)

    ask(served, mode, work, logging_callback=on_log)
    assert entered == [(1.0, "repeat"), (2.0, "done")]
    assert said == [("info", "repeats", "repeat"), ("info", "repeats", "done")]


@each_protocol
def test_the_user_of_a_client_answers_a_run_that_waits(served: Served, mode: str) -> None:
    person = Person(accept(answer=True))
    assert text_of(call(served, mode, "asks", {"text": "it"}, elicitation_callback=person)) == "sent"
    (form,) = person.forms
    assert form.message == "Send it?"
    assert form.requested_schema == {
        "type": "object",
        "properties": {"answer": {"type": "boolean"}},
        "required": ["answer"],
    }


@each_protocol
@pytest.mark.parametrize(
    ("answer", "output", "paid"),
    [
        pytest.param(accept(ok=True), "Done after paid 5", 1, id="approved"),
        pytest.param(accept(ok=False, reason="too much"), "Done after error: tool.refused: too much", 0, id="refused"),
    ],
)
def test_the_user_of_a_client_approves_a_call(
    served: Served, mode: str, answer: types.ElicitResult, output: str, paid: int
) -> None:
    before = served.calls().count("pay 5")
    person = Person(answer)
    assert text_of(call(served, mode, "pays", {"amount": 5}, elicitation_callback=person)) == output
    assert [form.message for form in person.forms] == ["Pay 5?\n  pay\n    amount: 5"]
    assert served.calls().count("pay 5") == before + paid


@each_protocol
@pytest.mark.parametrize(
    "person",
    [
        pytest.param(Person(*[types.ElicitResult(action="decline")] * 2), id="declined"),
        pytest.param(Person(*[types.ElicitResult(action="cancel")] * 2), id="cancelled"),
        pytest.param(None, id="a client that shows no forms"),
    ],
)
def test_a_run_that_nobody_answers_waits(served: Served, mode: str, person: Person | None) -> None:
    result = call(served, mode, "asks", {"text": "it"}, elicitation_callback=person)
    assert result.meta is not None
    run, url = result.meta["flowrun/run"], served.server.url
    question = f'{{"id":"{run}/1/0","value":"..."}}'
    assert text_of(result) == (
        f"Send it?\n\n(Run {run} waits for an answer: at {url}/runs/{run}, or by POST {url}/v1/runs/{run}/answers "
        f'with {question}, whose value matches {{"type":"boolean"}})'
    )
    assert not result.is_error


@each_protocol
def test_an_answer_that_does_not_match_is_asked_for_again(served: Served, mode: str) -> None:
    person = Person(accept(answer="perhaps"), accept(answer=False))
    assert text_of(call(served, mode, "asks", {"text": "it"}, elicitation_callback=person)) == "kept"
    assert len(person.forms) == 2
    assert person.forms[1].message.startswith("Send it?\n\n(")


def test_another_client_brings_the_answer(served: Served) -> None:
    """What an ``InputRequiredResult`` holds is enough for a client that was started since."""

    async def begin(client: Client) -> types.InputRequiredResult:
        result = await client.session.call_tool("asks", {"text": "it"}, allow_input_required=True)
        assert isinstance(result, types.InputRequiredResult)
        return result

    async def shows(context: Any, form: Any) -> types.ElicitResult:
        raise AssertionError("the caller answers by itself")

    required = ask(served, "2026-07-28", begin, elicitation_callback=shows)
    assert required.input_requests is not None
    (question,) = required.input_requests
    answers: Any = {question: accept(answer=True)}

    async def go_on(client: Client) -> types.CallToolResult:
        state = required.request_state
        return await client.call_tool("asks", {"text": "it"}, input_responses=answers, request_state=state)

    result = ask(served, "2026-07-28", go_on, elicitation_callback=shows)
    assert text_of(result) == "sent"


def test_a_run_that_is_not_there_cannot_go_on(served: Served) -> None:
    waiting = call(served, "2026-07-28", "asks", {"text": "it"})
    assert waiting.meta is not None
    run = waiting.meta["flowrun/run"]

    async def go_on(client: Client, name: str, state: str) -> str:
        result = await client.call_tool(name, {}, request_state=state)
        assert result.is_error
        return text_of(result)

    async def work(client: Client) -> None:
        assert await go_on(client, "asks", "nothing") == "there is no run 'nothing'"
        assert await go_on(client, "asks", run[:6]) == f"there is no run '{run[:6]}'"
        assert await go_on(client, "repeats", run) == f"no run {run} of repeats waits"

    ask(served, "2026-07-28", work)


@each_protocol
def test_a_call_that_is_given_up_is_cancelled(served: Served, mode: str) -> None:
    served.model.released.clear()
    gone, asked = served.model.gone, len(served.model.asked)

    async def work(client: Client) -> None:
        calling = asyncio.create_task(client.call_tool("parrot", {"text": "hold"}))
        await asyncio.to_thread(wait_for, lambda: len(served.model.asked) == asked + 1)
        calling.cancel()
        await asyncio.to_thread(wait_for, lambda: served.model.gone == gone + 1)

    ask(served, mode, work)
    served.model.released.set()
