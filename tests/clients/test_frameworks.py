"""Flows as models of LangChain and of LiteLLM, each in an environment of its own."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.environments import make_environment
from tests.model_server import model_server
from tests.served_flows import paths, write_flows
from tests.serving import Server, serving

pytestmark = pytest.mark.readers


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve all flows."""
    folder = write_flows(tmp_path_factory.mktemp("served"))
    with model_server() as model, serving(folder, *paths(), MODEL_URL=model.url) as server:
        yield server


def test_langchain(server: Server, tmp_path: Path) -> None:
    python = make_environment(tmp_path / "environment", "langchain-openai==1.7.4", "langchain-core==1.8.3")
    before = len(calls(server))
    printed = python(
        """
        import asyncio, json, sys
        import openai
        from langchain_core.messages import HumanMessage, SystemMessage
        from langchain_core.output_parsers import StrOutputParser
        from langchain_core.prompts import ChatPromptTemplate
        from langchain_openai import ChatOpenAI

        def model(name, **more):
            return ChatOpenAI(model=name, base_url=sys.argv[1], api_key="none", **more)

        found = {}
        reply = model("parrot").invoke("hi")
        def about(message):
            usage = message.usage_metadata["total_tokens"]
            return [message.content, usage, message.response_metadata["finish_reason"]]

        found["invoke"] = about(reply)
        chunks = list(model("parrot", stream_usage=True).stream("hi"))
        whole = chunks[0]
        for chunk in chunks[1:]:
            whole += chunk
        found["stream"] = about(whole)

        async def follow():
            return "".join([chunk.content async for chunk in model("weather").astream("Is it warm?")])

        found["astream"] = asyncio.run(follow())
        messages = [SystemMessage("Be kind.")]
        for turn in ("one", "two"):
            messages.append(HumanMessage(turn))
            messages.append(model("history").invoke(messages))
        found["turns"] = [message.content for message in messages]
        chain = ChatPromptTemplate.from_messages([("user", "say {word}")]) | model("parrot") | StrOutputParser()
        found["batch"] = chain.batch([{"word": "a"}, {"word": "b"}])
        waiting = model("asks").invoke("it")
        found["waiting"] = [waiting.content.partition("?")[0], waiting.response_metadata["finish_reason"]]
        for name, asked in (
            ("temperature", lambda: model("parrot", temperature=0).invoke("hi")),
            ("fails", lambda: model("fails").invoke("bake")),
            ("nothing", lambda: model("nothing").invoke("hi")),
        ):
            try:
                asked()
            except openai.APIStatusError as exc:
                found[name] = [exc.status_code, exc.code, exc.param]
        print(json.dumps(found))
        """,
        server.api,
    )
    assert last_line(printed) == {
        "invoke": ["You said hi", 12, "stop"],
        "stream": ["You said hi", 12, "stop"],
        "astream": "I look it up.\n\nIt is 21 degrees.",
        "turns": ["Be kind.", "one", "You said one", "two", "You said two"],
        "batch": ["You said say a", "You said say b"],
        "waiting": ["Send it", "waiting"],
        "temperature": [400, "unsupported_parameter", "temperature"],
        "fails": [500, "tool.failed", None],
        "nothing": [404, "model_not_found", "model"],
    }
    assert calls(server)[before:].count("fail bread") == 1


def test_litellm(server: Server, tmp_path: Path) -> None:
    python = make_environment(tmp_path / "environment", "litellm==1.110.2")
    before = len(calls(server))
    printed = python(
        """
        import asyncio, json, os, sys
        os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
        import litellm

        def ask(name, text, **more):
            messages = [{"role": "user", "content": text}]
            return litellm.completion(
                model=f"openai/{name}", api_base=sys.argv[1], api_key="none", messages=messages, **more
            )

        found = {}
        whole = ask("parrot", "hi")
        def about(completion):
            (choice,) = completion.choices
            return [choice.message.content, completion.usage.total_tokens, choice.finish_reason]

        found["whole"] = about(whole)
        chunks = list(ask("parrot", "hi", stream=True, stream_options={"include_usage": True}))
        built = litellm.stream_chunk_builder(chunks)
        found["stream"] = about(built)

        async def follow():
            stream = await litellm.acompletion(
                model="openai/weather", api_base=sys.argv[1], api_key="none", stream=True,
                messages=[{"role": "user", "content": "Is it warm?"}],
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        found["astream"] = asyncio.run(follow())
        waiting = ask("asks", "it")
        found["waiting"] = [waiting.choices[0].message.content.partition("?")[0], waiting.choices[0].finish_reason]
        for name, asked in (
            ("temperature", lambda: ask("parrot", "hi", temperature=0)),
            ("fails", lambda: ask("fails", "bake")),
            ("nothing", lambda: ask("nothing", "hi")),
            ("in a stream", lambda: list(ask("fails", "bake", stream=True))),
        ):
            try:
                asked()
            except Exception as exc:
                found[name] = [type(exc).__name__, getattr(exc, "status_code", None)]
        print(json.dumps(found))
        """,
        server.api,
    )
    assert last_line(printed) == {
        "whole": ["You said hi", 12, "stop"],
        "stream": ["You said hi", 12, "stop"],
        "astream": "I look it up.\n\nIt is 21 degrees.",
        "waiting": ["Send it", "stop"],  # LiteLLM knows the finish reasons of providers only, and calls others so
        "temperature": ["BadRequestError", 400],
        "fails": ["InternalServerError", 500],
        "nothing": ["NotFoundError", 404],
        "in a stream": ["MidStreamFallbackError", 500],
    }
    assert calls(server)[before:].count("fail bread") == 2


def calls(server: Server) -> list[str]:
    """Return the calls of tools so far."""
    file = server.log.with_name("calls.txt")
    return file.read_text().splitlines() if file.exists() else []


def last_line(printed: str) -> Any:
    return json.loads(printed.splitlines()[-1])
