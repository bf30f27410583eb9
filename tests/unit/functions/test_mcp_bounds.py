"""What bounds the calls of tools of an MCP server: a person's consent, and how many run at once. The server counts."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

pytest.importorskip("mcp", reason="the MCP SDK is not installed")

import flowrun
from flowrun.testing import ScriptedModel
from tests.mcp.projects import COMMAND, lock, write_project

NOTES: Final = (("note", {"text": "one"}), ("note", {"text": "all"}))
"""The server answers with all the notes that it was given."""
ASKS: Final = {
    "note": {"approve": {"when": "call.arguments.text == 'one'", "prompt": "Note {{ call.arguments.text }}?"}}
}

MakeFlow = Callable[..., flowrun.Flow]


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the lock of the server, which is asked once."""
    folder = tmp_path_factory.mktemp("locked")
    write_project(folder, {"command": COMMAND}, [])
    lock(folder)
    return (folder / "tools.lock.json").read_text()


@pytest.fixture
def make_flow(tmp_path: Path, locked: str) -> MakeFlow:
    """Return what makes a flow, of the settings of tools, and of the calls that its model makes one after the other."""

    def make(tools: Mapping[str, Any], *calls: tuple[str, Mapping[str, Any]]) -> flowrun.Flow:
        spec = write_project(tmp_path, {"command": COMMAND, "tools": tools}, calls)
        (tmp_path / "tools.lock.json").write_text(locked)
        return flowrun.load(spec)

    return make


def run(work: Callable[[flowrun.Session], Awaitable[Any]], **options: Any) -> Any:
    async def go() -> Any:
        async with flowrun.Session(**options) as session:
            return await work(session)

    return asyncio.run(go())


# --- consent ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        pytest.param({"ok": True}, ["one", "one, all"], id="approved"),
        pytest.param(
            {"ok": True, "arguments": {"text": "uno"}},
            ['arguments used: {"text": "uno"}\nuno', "uno, all"],
            id="edited",
        ),
        pytest.param({"ok": False, "reason": "not now"}, ["error: tool.refused: not now", "all"], id="refused"),
    ],
)
def test_a_person_is_asked_before_the_server(make_flow: MakeFlow, answer: dict[str, Any], said: list[str]) -> None:
    flow = make_flow(ASKS, *NOTES)

    async def work(session: flowrun.Session) -> Any:
        waiting = await session.run(flow)
        (request,) = waiting.pending
        assert request.prompt == "Note one?"
        assert request.call == {"id": "call00001", "name": "note", "arguments": {"text": "one"}, "hidden": {}}
        await session.answer(request.id, answer)
        return (await session.resume(waiting.run_id)).output

    assert run(work) == said


def test_an_edit_that_the_tool_does_not_take_is_refused(make_flow: MakeFlow) -> None:
    flow = make_flow(ASKS, *NOTES)

    async def work(session: flowrun.Session) -> Any:
        waiting = await session.run(flow)
        (request,) = waiting.pending
        for wrong in ({"text": 1}, {"txt": "uno"}):
            with pytest.raises(flowrun.UsageError, match=r"is not what state call asks for: arguments"):
                await session.answer(request.id, {"ok": True, "arguments": wrong})
        await session.answer(request.id, {"ok": True})
        return (await session.resume(waiting.run_id)).output

    assert run(work) == ["one", "one, all"]


def test_a_person_sees_what_the_model_does_not(make_flow: MakeFlow) -> None:
    flow = make_flow({"add": {"with": {"b": 40}, "approve": True}}, ("add", {"a": 2}))

    async def work(session: flowrun.Session) -> Any:
        waiting = await session.run(flow)
        (request,) = waiting.pending
        assert request.call == {"id": "call00001", "name": "add", "arguments": {"a": 2}, "hidden": {"b": 40}}
        await session.answer(request.id, {"ok": True, "arguments": {"a": 3}})
        return (await session.resume(waiting.run_id)).output

    assert run(work) == ['arguments used: {"a": 3}\n43']


def test_another_session_makes_the_call_that_was_approved(make_flow: MakeFlow, tmp_path: Path) -> None:
    flow = make_flow(ASKS, *NOTES)
    journal = tmp_path / "runs.sqlite"
    waiting = run(lambda session: session.run(flow), journal=journal)

    async def work(session: flowrun.Session) -> Any:
        await session.answer(waiting.pending[0].id, {"ok": True})
        return (await session.resume(waiting.run_id)).output

    assert run(work, journal=journal) == ["one", "one, all"]


# --- how many at once -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "at_once"),
    [
        pytest.param({}, 6, id="no limit"),
        pytest.param({"max_concurrency": 2}, 2, id="two"),
        pytest.param({"max_concurrency": 1}, 1, id="one"),
    ],
)
@pytest.mark.parametrize("runs", [1, 6])
def test_so_many_calls_at_once(make_flow: MakeFlow, limits: dict[str, int], at_once: int, runs: int) -> None:
    """Six calls, of one run or of six, wait until so many are there, and then whether there come more."""
    calls = [{"name": "meet", "arguments": {"calls": at_once}}] * (6 // runs)
    replies = [
        {"when": "request.messages[-1].role == 'tool'", "content": "done", "repeat": True},
        {"tool_calls": calls, "repeat": True},
    ]
    flow = make_flow({"meet": limits}).with_model("default", ScriptedModel(replies))

    async def work(session: flowrun.Session) -> list[str]:
        results = await asyncio.gather(*(session.run(flow) for _ in range(runs)))
        return [answer for result in results for answer in result.output]

    assert run(work) == [str(at_once)] * 6
