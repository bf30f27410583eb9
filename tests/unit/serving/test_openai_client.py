"""Flows as models, asked by OpenAI's own client for Python."""

import asyncio
import re
from collections.abc import Mapping
from typing import Any

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from flowrun.cli.serve import command
from tests.serving import wait_for
from tests.unit.serving.conftest import KEY, Served

RUN_ID = re.compile(r"[0-9a-f]{12}")


def user(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


def test_the_flows_are_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [
        "parrot",
        "history",
        "weather",
        "fails",
        "asks",
        "rests",
        "pays",
        "repeats",
    ]
    model = client.models.retrieve("parrot")
    assert (model.id, model.object, model.owned_by) == ("parrot", "model", "flowrun")


def test_a_completion(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="parrot", messages=user("hi"))
    completion = raw.parse()
    run = raw.headers["x-request-id"]
    assert RUN_ID.fullmatch(run)
    assert (completion.id, completion.object, completion.model) == (f"chatcmpl-{run}", "chat.completion", "parrot")
    (choice,) = completion.choices
    assert (choice.index, choice.finish_reason) == (0, "stop")
    assert (choice.message.role, choice.message.content, choice.message.tool_calls) == (
        "assistant",
        "You said hi",
        None,
    )
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens, completion.usage.total_tokens) == (
        7,
        5,
        12,
    )
    assert completion.model_extra == {"flowrun": {"run": run, "status": "succeeded", "output": "You said hi"}}
    assert completion._request_id == run


def test_a_stream(client: openai.OpenAI) -> None:
    with client.chat.completions.create(model="parrot", messages=user("hi"), stream=True) as stream:
        chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "You said hi"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert {chunk.usage for chunk in chunks} == {None}


def test_text_comes_as_it_is_written(served: Served, client: openai.OpenAI) -> None:
    served.model.released.clear()
    with client.chat.completions.create(model="parrot", messages=user("hold"), stream=True) as stream:
        texts = (chunk.choices[0].delta.content or "" for chunk in stream)
        assert next(text for text in texts if text) == "You"
        served.model.released.set()
        assert "".join(texts) == " said hold"


def test_streams_side_by_side(served: Served) -> None:
    async def ask(client: openai.AsyncOpenAI, number: int) -> str:
        stream = await client.chat.completions.create(model="parrot", messages=user(f"number {number}"), stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def ask_all() -> list[str]:
        async with openai.AsyncOpenAI(base_url=served.server.api, api_key=KEY) as client:
            return await asyncio.gather(*(ask(client, number) for number in range(8)))

    assert asyncio.run(ask_all()) == [f"You said number {number}" for number in range(8)]


def test_the_last_chunk_has_the_tokens(client: openai.OpenAI) -> None:
    *others, last = client.chat.completions.create(
        model="parrot", messages=user("hi"), stream=True, stream_options={"include_usage": True}
    )
    assert {chunk.usage for chunk in others} == {None}
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens, last.usage.total_tokens) == (7, 5, 12)


def test_the_helper_for_streams(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="weather", messages=user("Is it warm?")) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        completion = stream.get_final_completion()
    # What was written before the tool was called is no part of the answer, but it was sent.
    assert "".join(deltas) == "I look it up.\n\nIt is 21 degrees."
    assert completion.choices[0].message.content == "I look it up.\n\nIt is 21 degrees."
    assert completion.choices[0].finish_reason == "stop"


def test_what_is_no_text_comes_as_json(client: openai.OpenAI) -> None:
    text = '{\n  "text": "ab",\n  "length": 2\n}'
    completion = client.chat.completions.create(model="repeats", messages=user("ab"))
    assert completion.choices[0].message.content == text
    assert completion.model_extra is not None
    assert completion.model_extra["flowrun"]["output"] == {"text": "ab", "length": 2}
    stream = client.chat.completions.create(model="repeats", messages=user("ab"), stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == text


def test_metadata_gives_other_inputs(client: openai.OpenAI) -> None:
    create = client.chat.completions.create
    assert create(model="parrot", messages=user("hi"), metadata={"shout": "true"}).choices[0].finish_reason == "stop"
    for wrong, param in (("maybe", "metadata"), ('"yes"', None)):
        with pytest.raises(openai.BadRequestError) as caught:
            create(model="parrot", messages=user("hi"), metadata={"shout": wrong})
        assert caught.value.param == param


def test_a_conversation(served: Served, client: openai.OpenAI) -> None:
    messages: list[ChatCompletionMessageParam] = [{"role": "system", "content": "Be kind."}]
    for turn in ("one", "two", "three"):
        messages.append({"role": "user", "content": turn})
        reply = client.chat.completions.create(model="history", messages=messages).choices[0].message
        assert reply.content == f"You said {turn}"
        messages.append(reply)  # type: ignore[arg-type]  # as the client's own documentation does it
    assert [(message["role"], message["content"]) for message in served.model.asked[-1]] == [
        ("system", "Be kind."),
        ("user", "one"),
        ("assistant", "You said one"),
        ("user", "two"),
        ("assistant", "You said two"),
        ("user", "three"),
    ]


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        pytest.param({"temperature": 0.5}, "temperature", id="temperature"),
        pytest.param({"max_completion_tokens": 5}, "max_completion_tokens", id="max_completion_tokens"),
        pytest.param({"response_format": {"type": "json_object"}}, "response_format", id="response_format"),
        pytest.param({"n": 2}, "n", id="n"),
        pytest.param(
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}, "tools", id="tools"
        ),
        pytest.param({"messages": []}, "messages", id="no messages"),
        pytest.param({"messages": [{"role": "assistant", "content": "I"}]}, "messages", id="the model's message last"),
        pytest.param({"messages": user("one") + user("two")}, "messages", id="a history that nothing reads"),
        pytest.param({"extra_body": {"top_k": 3}}, "top_k", id="what is no parameter"),
    ],
)
def test_what_a_flow_cannot_honour_is_refused_by_name(
    client: openai.OpenAI, asked: Mapping[str, Any], param: str
) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(**{"model": "parrot", "messages": user("hi"), "stream": stream, **asked})
        assert (caught.value.param, caught.value.type) == (param, "invalid_request_error")


def test_what_changes_nothing_is_taken(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(
        model="parrot",
        messages=user("hi"),
        n=1,
        tools=[],
        tool_choice="none",
        response_format={"type": "text"},
        user="ada",
        store=False,
    )
    assert completion.choices[0].message.content == "You said hi"


def test_a_model_that_is_not_there(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="parot", messages=user("hi"))
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("parot")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_wrong_key(served: Served, stream: bool) -> None:
    with (
        openai.OpenAI(base_url=served.server.api, api_key="sk-wrong") as client,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        client.chat.completions.create(model="parrot", messages=user("hi"), stream=stream)
    assert caught.value.code == "invalid_api_key"


def test_a_run_that_fails_is_made_once(served: Served, client: openai.OpenAI) -> None:
    before = len(served.calls())
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="fails", messages=user("bake"))
    assert (caught.value.status_code, caught.value.code, caught.value.type) == (500, "tool.failed", "run_error")
    assert str(caught.value).endswith("tool.failed: ValueError: the oven is cold (state call)")
    assert served.calls()[before:] == ["fail bread"]


def test_an_error_in_the_midst_of_a_stream(served: Served, client: openai.OpenAI) -> None:
    before = len(served.calls())
    stream = client.chat.completions.create(model="fails", messages=user("bake"), stream=True)
    assert [next(stream).choices[0].delta.content for _ in range(2)] == ["", "I try."]
    with pytest.raises(openai.APIError, match="the oven is cold") as caught:
        next(stream)
    assert caught.value.code == "tool.failed"
    assert served.calls()[before:] == ["fail bread"]


def test_a_run_whose_client_leaves_is_cancelled(served: Served, client: openai.OpenAI) -> None:
    served.model.released.clear()
    gone = served.model.gone
    with client.chat.completions.create(model="parrot", messages=user("hold"), stream=True) as stream:
        run = next(iter(stream)).id.removeprefix("chatcmpl-")
    wait_for(lambda: served.model.gone == gone + 1)
    served.model.released.set()
    wait_for(lambda: record(client, run)["status"] == "cancelled")


def record(client: openai.OpenAI, run: str) -> Any:
    return client.get(f"/runs/{run}", cast_to=object)


def test_a_run_that_waits_is_answered(served: Served, client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(model="asks", messages=user("the letter"))
    (choice,) = completion.choices
    assert completion.model_extra is not None
    about = completion.model_extra["flowrun"]
    run, (question,) = about["run"], about["waiting"]
    body = f'{{"id":"{question["id"]}","value":"..."}}'
    assert str(choice.finish_reason) == "waiting"  # none of OpenAI's own
    assert choice.message.content == (
        f"Send the letter?\n\n(Run {run} waits for an answer: at {served.server.url}/runs/{run}, or by "
        f'POST {served.server.api}/runs/{run}/answers with {body}, whose value matches {{"type":"boolean"}})'
    )
    assert record(client, run)["status"] == "waiting"
    with pytest.raises(openai.BadRequestError, match="boolean"):
        answer(client, run, {"id": question["id"], "value": "perhaps"})
    answer(client, run, {"id": question["id"], "value": True})
    wait_for(lambda: record(client, run)["status"] == "succeeded")
    assert record(client, run)["output"] == "sent"
    with pytest.raises(openai.BadRequestError):
        answer(client, run, {"id": question["id"], "value": True})


def answer(client: openai.OpenAI, run: str, body: object) -> Any:
    return client.post(f"/runs/{run}/answers", cast_to=object, body=body)


@pytest.mark.parametrize("place", ["x", "1/x", f"1/{'9' * 5000}"], ids=["one part", "a word", "a long number"])
def test_an_answer_to_no_question(client: openai.OpenAI, place: str) -> None:
    run = client.chat.completions.create(model="asks", messages=user("it")).id.removeprefix("chatcmpl-")
    with pytest.raises((openai.BadRequestError, openai.NotFoundError)):
        answer(client, run, {"id": f"{run}/{place}", "value": True})


def test_a_run_is_named_by_its_whole_id(client: openai.OpenAI) -> None:
    run = client.chat.completions.create(model="asks", messages=user("it")).id.removeprefix("chatcmpl-")
    for name in (run[:6], "nothing"):
        question = {"id": f"{name}/1/0", "value": True}
        for ask in (record, cancel, lambda client, name, question=question: answer(client, name, question)):
            with pytest.raises(openai.NotFoundError, match=f"there is no run '{name}'$") as caught:
                ask(client, name)
            assert caught.value.code == "run_not_found"
    assert record(client, run)["status"] == "waiting"
    cancel(client, run)
    wait_for(lambda: record(client, run)["status"] == "cancelled")
    with pytest.raises(openai.BadRequestError):
        cancel(client, run)


def cancel(client: openai.OpenAI, run: str) -> Any:
    return client.post(f"/runs/{run}/cancel", cast_to=object)


def test_a_question_links_to_where_the_client_asked(served: Served, client: openai.OpenAI) -> None:
    headers = {"X-Forwarded-Proto": "https"}
    asked = client.chat.completions.create(model="asks", messages=user("it"), extra_headers=headers)
    assert f"at https://{served.server.url.partition('//')[2]}/runs/" in str(asked.choices[0].message.content)


def test_a_stream_of_a_run_that_waits(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="asks", messages=user("it"), stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks).startswith("Send it?\n\n(Run ")
    assert str(chunks[-1].choices[0].finish_reason) == "waiting"
    assert chunks[-1].model_extra is not None
    assert chunks[-1].model_extra["flowrun"]["status"] == "waiting"


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        pytest.param(b"{", {}, 400, id="no JSON"),
        pytest.param(b"\xff", {}, 400, id="no UTF-8"),
        pytest.param(b"[]", {}, 400, id="no object"),
        pytest.param(b"{}", {"content-type": "text/plain"}, 415, id="no Content-Type of JSON"),
        pytest.param(b"{}", {"host": "evil.example"}, 421, id="another host"),
        pytest.param(b"{}", {"origin": "https://evil.example"}, 403, id="another site"),
        pytest.param(b" " * 4_000_001, {}, 413, id="too large"),
    ],
)
def test_errors_have_the_form_of_openai(served: Served, body: bytes, headers: Mapping[str, str], status: int) -> None:
    given = {"authorization": f"Bearer {KEY}", "content-type": "application/json", **headers}
    response = httpx2.post(f"{served.server.api}/chat/completions", content=body, headers=given)
    assert response.status_code == status
    assert response.json()["error"].keys() == {"message", "type", "param", "code"}
    assert response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/runs/some/answers", "/mcp"])
def test_a_body_of_unknown_length_that_is_too_large(served: Served, path: str) -> None:
    headers = {
        "authorization": f"Bearer {KEY}",
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
    }
    response = httpx2.post(f"{served.server.url}{path}", content=iter([b" " * 1_000_000] * 5), headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (413, "request_too_large")


def test_ways_that_are_not_there(served: Served) -> None:
    with httpx2.Client(base_url=served.server.api, headers={"authorization": f"Bearer {KEY}"}) as client:
        found = [client.get("/nothing"), client.get("/chat/completions"), client.get("/runs/nothing")]
    assert [response.status_code for response in found] == [404, 405, 404]
    assert all("message" in response.json()["error"] for response in found)
    assert httpx2.get(f"{served.server.url}/health").json()["status"] == "ok"


def test_the_client_waits_longer_than_the_server() -> None:
    """Else it sends its request again, and the flow runs twice."""
    limit = command.make_context("serve", ["desk.yaml"]).params["timeout"]
    assert isinstance(openai.DEFAULT_TIMEOUT.read, float | int)
    assert limit < openai.DEFAULT_TIMEOUT.read
