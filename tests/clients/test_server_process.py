"""A server that is full, slow, killed or told to stop, as clients see it."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from flowrun.journal import open_history
from tests.model_server import ModelServer, model_server
from tests.served_flows import paths, write_flows
from tests.serving import Server, serving, wait_for, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def model() -> Iterator[ModelServer]:
    """Serve the model that the flow parrot asks."""
    with model_server() as model:
        yield model


def client_of(server: Server, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.api, api_key="none", **options)


def user(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


def record(server: Server, run: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx2.get(f"{server.api}/runs/{run}").json()
    return found


def is_live(server: Server) -> bool:
    return bool(httpx2.get(f"{server.url}/health").json()["live"])


# --- a server that is full ----------------------------------------------------------------------------------------


def test_a_client_repeats_what_a_full_server_refused(tmp_path: Path, model: ModelServer) -> None:
    write_flows(tmp_path, "parrot")
    with (
        serving(tmp_path, *paths("parrot"), "--max-live", 1, MODEL_URL=model.url) as server,
        client_of(server) as patient,
        client_of(server, max_retries=0) as hasty,
        ThreadPoolExecutor() as threads,
    ):
        with patient.chat.completions.create(model="parrot", messages=user("hold"), stream=True) as stream:
            assert next(stream).choices[0].delta.content == ""
            for streams in (False, True):
                with pytest.raises(openai.RateLimitError, match="--max-live") as caught:
                    hasty.chat.completions.create(model="parrot", messages=user("hi"), stream=streams)
                assert caught.value.code == "too_many_runs"
                assert caught.value.response.headers["retry-after"] == "1"
            refused = threads.submit(patient.chat.completions.create, model="parrot", messages=user("hi"))
            time.sleep(0.2)  # its first attempt is refused
            assert not refused.done()
            model.released.set()
            assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "You said hold"
        assert refused.result().choices[0].message.content == "You said hi"
    assert len(model.asked) == 2


# --- requests that take too long, or that nobody waits for --------------------------------------------------------


@pytest.mark.parametrize("durable", [False, True], ids=["cancelled", "durable"])
def test_a_request_that_takes_too_long(tmp_path: Path, model: ModelServer, durable: bool) -> None:
    write_flows(tmp_path, "parrot", "weather")
    options = ["--timeout", "1s", *(["--durable", "--journal", "journal.sqlite"] if durable else [])]
    with serving(tmp_path, *paths("parrot"), *options, MODEL_URL=model.url) as server, client_of(server) as client:
        with pytest.raises(openai.InternalServerError, match="longer than --timeout, 1 s") as caught:
            client.chat.completions.create(model="parrot", messages=user("hold"))
        assert (caught.value.status_code, caught.value.code) == (504, "request_timeout")
        stream = client.chat.completions.create(model="parrot", messages=user("hold"), stream=True)
        run = next(stream).id.removeprefix("chatcmpl-")
        assert next(stream).choices[0].delta.content == "You"
        with pytest.raises(openai.APIError, match="longer than --timeout") as in_stream:
            next(stream)
        assert in_stream.value.code == "request_timeout"
        assert len(model.asked) == 2  # the client did not repeat them
        if durable:
            assert (model.gone, record(server, run)["status"]) == (0, "running")
        else:
            wait_for(lambda: model.gone == 1)
            assert record(server, run)["status"] == "cancelled"
        model.released.set()
        if durable:
            wait_for(lambda: record(server, run)["status"] == "succeeded")
            assert record(server, run)["output"] == "You said hold"


def test_a_stream_that_is_silent_for_long(tmp_path: Path) -> None:
    """Proxies end connections that are silent: the server sends comments, which clients skip."""
    write_flows(tmp_path, "rests")
    with serving(tmp_path, *paths("rests")) as server, client_of(server) as client:
        stream = client.chat.completions.create(model="rests", messages=user("12"), stream=True)
        assert stream.response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert is_live(server)  # the response began, and the run goes on
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "rested"


def test_a_client_that_waits_no_longer(tmp_path: Path, model: ModelServer) -> None:
    write_flows(tmp_path, "parrot")
    with (
        serving(tmp_path, *paths("parrot"), MODEL_URL=model.url) as server,
        client_of(server, timeout=0.5, max_retries=0) as client,
        client_of(server) as patient,
    ):
        patient.models.list()
        with pytest.raises(openai.APITimeoutError):
            client.chat.completions.create(model="parrot", messages=user("hold"))
        wait_for(lambda: not is_live(server))
        model.released.set()
        assert patient.chat.completions.create(model="parrot", messages=user("hi")).choices


def test_a_durable_run_goes_on_without_its_client(tmp_path: Path, model: ModelServer) -> None:
    write_flows(tmp_path, "parrot")
    with (
        serving(tmp_path, *paths("parrot"), "--durable", "--journal", "j.sqlite", MODEL_URL=model.url) as server,
        client_of(server) as client,
    ):
        with client.chat.completions.create(model="parrot", messages=user("hold"), stream=True) as stream:
            run = next(stream).id.removeprefix("chatcmpl-")
        time.sleep(0.5)
        assert (model.gone, record(server, run)["status"], is_live(server)) == (0, "running", True)
        model.released.set()
        wait_for(lambda: record(server, run)["status"] == "succeeded")
        assert record(server, run)["output"] == "You said hold"


# --- a server that is killed --------------------------------------------------------------------------------------


def test_a_run_that_waits_outlives_the_server(tmp_path: Path) -> None:
    write_flows(tmp_path, "asks")
    words = (*paths("asks"), "--durable", "--journal", "journal.sqlite")
    with serving(tmp_path, *words) as server, client_of(server) as client:
        completion = client.chat.completions.create(model="asks", messages=user("it"))
        server.kill()
    run = completion.id.removeprefix("chatcmpl-")
    with serving(tmp_path, *words, "--port", server.port) as again:
        assert again.url == server.url  # so the address in the answer still holds
        assert record(again, run)["status"] == "waiting"
        httpx2.post(f"{again.api}/runs/{run}/answers", json={"id": f"{run}/1/0", "value": True}).raise_for_status()
        wait_for(lambda: record(again, run)["status"] == "succeeded")
        assert record(again, run)["output"] == "sent"


def test_a_call_of_mcp_that_waits_outlives_the_server(tmp_path: Path) -> None:
    """In the protocol of 2026-07-28 the client keeps what it was asked, and the server the run."""
    pytest.importorskip("mcp", reason="the MCP SDK is not installed")
    from mcp import types
    from mcp.client import Client

    async def show(context: Any, params: Any) -> types.ElicitResult:
        raise AssertionError("the test answers by itself")

    async def begin(server: Server) -> types.InputRequiredResult:
        async with Client(f"{server.url}/mcp", mode="2026-07-28", elicitation_callback=show) as client:
            result = await client.session.call_tool("asks", {"text": "it"}, allow_input_required=True)
            assert isinstance(result, types.InputRequiredResult)
            return result

    async def go_on(server: Server, required: types.InputRequiredResult) -> Any:
        (question,) = required.input_requests or {}
        answers: Any = {question: types.ElicitResult(action="accept", content={"answer": True})}
        async with Client(f"{server.url}/mcp", mode="2026-07-28", elicitation_callback=show) as client:
            state = required.request_state
            result = await client.call_tool("asks", {"text": "it"}, input_responses=answers, request_state=state)
            return [part.model_dump(exclude_none=True) for part in result.content]

    write_flows(tmp_path, "asks")
    words = (*paths("asks"), "--durable", "--journal", "journal.sqlite")
    with serving(tmp_path, *words) as server:
        required = asyncio.run(begin(server))
        server.kill()
    with serving(tmp_path, *words) as again:
        assert asyncio.run(go_on(again, required)) == [{"type": "text", "text": "sent"}]


def test_a_run_in_an_idempotent_call_goes_on_by_itself(tmp_path: Path) -> None:
    write_flows(tmp_path, "rests")
    words = (*paths("rests"), "--durable", "--journal", "journal.sqlite")
    with ThreadPoolExecutor() as threads, serving(tmp_path, *words) as server, client_of(server) as client:
        asked = threads.submit(client.chat.completions.create, model="rests", messages=user("1.5"))
        wait_until(tmp_path / "calls.txt")
        server.kill()
        with pytest.raises(openai.APIConnectionError):
            asked.result()
    (row,) = open_history(tmp_path / "journal.sqlite").runs()
    with serving(tmp_path, *words) as again:
        wait_for(lambda: record(again, row.id)["status"] == "succeeded")
        assert record(again, row.id)["output"] == "rested"
    assert (tmp_path / "calls.txt").read_text().splitlines() == ["begin 1.5", "begin 1.5", "end 1.5"]


# --- a server that is told to stop --------------------------------------------------------------------------------


def test_sigterm_lets_streams_end_whole(tmp_path: Path, model: ModelServer) -> None:
    write_flows(tmp_path, "parrot")

    async def follow(client: openai.AsyncOpenAI, begun: asyncio.Semaphore) -> str:
        stream = await client.chat.completions.create(model="parrot", messages=user("hold"), stream=True)
        texts: list[str] = []
        async for chunk in stream:
            if not texts:
                begun.release()
            texts.append(chunk.choices[0].delta.content or "")
        return "".join(texts)

    async def follow_all(server: Server) -> list[str]:
        begun = asyncio.Semaphore(0)
        async with openai.AsyncOpenAI(base_url=server.api, api_key="none", max_retries=0) as client:
            async with asyncio.TaskGroup() as group:
                streams = [group.create_task(follow(client, begun)) for _ in range(20)]
                for _ in streams:
                    await begun.acquire()
                server.terminate()
                error = await refused(client)
                assert (error.status_code, error.code) == (503, "server_draining")
                assert error.response.headers["retry-after"] == "1"
                assert error.response.headers["x-should-retry"] == "true"
                model.released.set()
            return [stream.result() for stream in streams]

    async def refused(client: openai.AsyncOpenAI) -> openai.InternalServerError:
        """Return the error of a new request, once the server has seen the signal."""
        while True:
            try:
                await client.chat.completions.create(model="parrot", messages=user("hi"))
            except openai.InternalServerError as exc:
                return exc

    with serving(tmp_path, *paths("parrot"), "--drain", "20s", MODEL_URL=model.url) as server:
        assert asyncio.run(follow_all(server)) == ["You said hold"] * 20
        assert server.wait() == 0


@pytest.mark.parametrize("durable", [False, True], ids=["forgotten", "durable"])
def test_a_run_that_does_not_end_in_time_is_made_once(tmp_path: Path, model: ModelServer, durable: bool) -> None:
    write_flows(tmp_path, "parrot")
    words = [*paths("parrot"), "--drain", "1s", *(["--durable", "--journal", "j.sqlite"] if durable else [])]
    with (
        ThreadPoolExecutor() as threads,
        serving(tmp_path, *words, MODEL_URL=model.url) as server,
        client_of(server) as client,
    ):
        whole = threads.submit(client.chat.completions.create, model="parrot", messages=user("hold"))
        stream = client.chat.completions.create(model="parrot", messages=user("hold"), stream=True)
        run = next(stream).id.removeprefix("chatcmpl-")
        wait_for(lambda: len(model.asked) == 2)
        began = time.monotonic()
        server.terminate()
        with pytest.raises(openai.APIError, match=f"the server stops before run {run} has ended"):
            list(stream)
        with pytest.raises(openai.InternalServerError) as caught:
            whole.result()
        assert (caught.value.status_code, caught.value.code) == (503, "server_stopped")
        assert caught.value.response.headers["x-should-retry"] == "false"
        assert server.wait() == 0
        assert time.monotonic() - began > 1.0
    assert len(model.asked) == 2
    model.released.set()
    if durable:
        with serving(tmp_path, *words, MODEL_URL=model.url) as again:
            wait_for(lambda: record(again, run)["status"] == "succeeded")
            assert record(again, run)["output"] == "You said hold"


def test_a_function_that_does_not_return_does_not_hold_the_server(tmp_path: Path) -> None:
    write_flows(tmp_path, "rests")
    words = [*paths("rests"), "--drain", "1s"]
    with ThreadPoolExecutor() as threads, serving(tmp_path, *words) as server, client_of(server) as client:
        resting = threads.submit(client.chat.completions.create, model="rests", messages=user("60"))
        wait_until(tmp_path / "calls.txt")
        server.terminate()
        with pytest.raises(openai.InternalServerError, match="the server stops before run"):
            resting.result()
        assert server.wait() == 0  # long before the function returns
    assert (tmp_path / "calls.txt").read_text().splitlines() == ["begin 60.0"]


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
def test_a_client_of_mcp_does_not_hold_the_server(tmp_path: Path, mode: str) -> None:
    """In the protocol of the handshake it keeps a stream of events open all the time."""
    pytest.importorskip("mcp", reason="the MCP SDK is not installed")
    from mcp.client import Client

    async def stop_beside_a_client(server: Server) -> None:
        async with Client(f"{server.url}/mcp", mode=mode) as client:
            await client.call_tool("repeats", {"text": "hi"})
            await asyncio.sleep(0.3)  # the stream is opened behind the handshake
            server.terminate()
            assert await asyncio.to_thread(server.wait) == 0

    write_flows(tmp_path, "repeats")
    with serving(tmp_path, *paths("repeats")) as server:
        asyncio.run(stop_beside_a_client(server))
        assert "shutdown exceeded" not in server.log.read_text()  # nothing had to be cut off


def test_a_second_signal_ends_the_server_at_once(tmp_path: Path, model: ModelServer) -> None:
    write_flows(tmp_path, "parrot")
    with (
        serving(tmp_path, *paths("parrot"), "--drain", "60s", MODEL_URL=model.url) as server,
        client_of(server) as client,
    ):
        stream = client.chat.completions.create(model="parrot", messages=user("hold"), stream=True)
        next(stream)
        server.terminate()
        wait_for(lambda: httpx2.get(f"{server.url}/health").json()["status"] == "draining")
        server.terminate()
        with pytest.raises(openai.APIError):
            list(stream)
        assert server.wait() == 0
