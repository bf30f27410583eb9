"""Records of results: each says what made it, by ``schemas/result.v1.schema.json``."""

import asyncio
import json
import pickle
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import flowrun
from flowrun.core.messages import Message, ToolCall
from flowrun.runtime.run_result import RunResult
from flowrun.runtime.stored_flow import store_flow
from flowrun.testing import ScriptedModel
from tests.records import require_record
from tests.unit.api.api_flows import AGENT, ASK_TO_ADD, add, asks, write


def agent(folder: Path, text: str = AGENT) -> flowrun.Flow:
    flow = flowrun.load(write(folder, text), functions={"api_tools:add": add})
    return flow.with_model("default", ScriptedModel([ASK_TO_ADD, {"content": "3"}]))


def run(work: Callable[[flowrun.Session], Awaitable[Any]], **options: Any) -> Any:
    async def go() -> Any:
        async with flowrun.Session(**options) as session:
            return await work(session)

    return asyncio.run(go())


def test_a_record_says_what_made_it(tmp_path: Path) -> None:
    flow = agent(tmp_path)
    record = flow.run(question="?").to_dict()
    require_record(record)
    assert record["inputs"] == {"question": "?"}
    assert record["flow"] == {"name": "agent", "version": "1.0.0", "digest": store_flow(flow).snapshot.digest}
    assert record["models"] == {"default": {"backend": "scripted", "name": "replies.yaml"}}
    assert [tool["function"]["name"] for tool in record["tools"]] == ["add"]
    assert record["tools"][0]["function"]["parameters"]["required"] == ["a", "b"]
    assert record["began"] <= record["ended"]


def test_comments_do_not_change_the_digest_and_words_do(tmp_path: Path) -> None:
    def digest(text: str) -> Any:
        return agent(tmp_path, text).run(question="?").to_dict()["flow"]["digest"]

    assert digest(f"# seen\n{AGENT}") == digest(AGENT) != digest(AGENT.replace("reply.content", "reply.content | trim"))


@pytest.mark.parametrize(
    ("written", "recorded"),
    [
        ('{"a": 1}', {"a": 1}),
        ("", {}),
        ('{"a": ', '{"a": '),
        ("[1]", "[1]"),
        ('{"a": 1, "a": 2}', '{"a": 1, "a": 2}'),
    ],
)
def test_arguments_are_mappings_or_what_the_model_wrote(written: str, recorded: object, tmp_path: Path) -> None:
    result = agent(tmp_path).run(question="?")
    thread = result.run.threads["main"].appended(
        Message(role="assistant", tool_calls=(ToolCall(id="c1", name="add", arguments=written),))
    )
    changed = flowrun.RunResult(
        run=type(result.run)(id="r", inputs={}, threads={"main": thread}, outcome=result.run.outcome),
        origin=result.origin,
    )
    record = changed.to_dict()
    require_record(record)
    assert record["messages"][-1]["tool_calls"][0]["function"]["arguments"] == recorded
    assert changed.messages[-1]["tool_calls"][0]["function"]["arguments"] == written


def test_runs_that_have_not_ended_and_their_ends_are_records(tmp_path: Path) -> None:
    async def work(session: flowrun.Session) -> list[RunResult]:
        waiting = await session.run(asks(tmp_path), run_id="r")
        await session.answer(waiting.pending[0].id, True)
        return [waiting, await session.resume("r")]

    waiting, ended = run(work, journal=tmp_path / "runs.db")
    for result in (waiting, ended):
        require_record(result.to_dict())
    assert waiting.ended is None
    assert waiting.began == pytest.approx(ended.began, abs=0.5)
    assert ended.ended >= ended.began > 0
    assert waiting.origin == ended.origin


def test_results_that_never_began_are_records(tmp_path: Path) -> None:
    async def work(session: flowrun.Session) -> list[RunResult]:
        return [result async for result in session.batch(agent(tmp_path), [{"question": object()}, {"question": 5}])]

    for result in run(work):
        record = result.to_dict()
        require_record(record)
        assert record["error"]["name"] == "input.invalid"


def test_an_origin_can_be_sent_to_another_process(tmp_path: Path) -> None:
    result = agent(tmp_path).run(question="?")
    assert result.origin is not None
    assert pickle.loads(pickle.dumps(result.origin)) == result.origin


def test_secrets_stand_in_no_part_of_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "shop-0123456789")
    text = AGENT.replace("name: agent\n", "name: agent\nsecrets: [SHOP_TOKEN]\nsampling: {stop: ['${SHOP_TOKEN}']}\n")
    record = agent(tmp_path, text).run(question="?").to_dict(messages=False)
    assert record["sampling"] == {"stop": ["${SHOP_TOKEN}"]}
    assert "0123456789" not in json.dumps(record)
