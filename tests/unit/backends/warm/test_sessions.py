"""A session whose engine ends fails the runs that ask it, and starts another one for the next run."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import flowrun
from flowrun.backends.kept_tokens import KeptTokensBackend
from flowrun.backends.vllm.backend import VllmBackend
from flowrun.backends.warm.records import HeldModel
from flowrun.backends.wrapper import failure_of
from flowrun.core.events import AskModel
from flowrun.core.messages import Reply
from flowrun.runtime.engines import BackendSettings, engine_model, held_model_of
from flowrun.runtime.project import CompiledFlow, Project
from flowrun.spec.model import Model
from tests.unit.backends.warm.warm_pair import FakeHeld, host, record_of_host

SPEC = """\
flowrun: v1
name: greet
version: 1.0.0
model: {backend: vllm, name: ./model}
messages: [{role: user, content: Hello}]
states:
  hello: {type: chat, next: e}
  e: {type: end, output: "{{ reply.content }}"}
"""


@pytest.fixture
def flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CompiledFlow:
    """Return a flow with a model of vLLM, in a folder of its own for warm engines."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "model").mkdir()
    (tmp_path / "greet.yaml").write_text(SPEC)
    return Project(folder=tmp_path).compile(tmp_path / "greet.yaml")


def held_by(flow: CompiledFlow) -> HeldModel:
    return held_model_of(engine_model(flow, "default"))


def saying(text: str) -> Callable[[AskModel], Reply]:
    return lambda request: Reply(content=text)


def run(work: Callable[[flowrun.Session], Coroutine[Any, Any, Any]], notes: list[str]) -> Any:
    async def go() -> Any:
        async with asyncio.timeout(20), flowrun.Session(settings=BackendSettings(note=notes.append)) as session:
            return await work(session)

    return asyncio.run(go())


def test_a_session_finds_the_next_warm_engine(flow: CompiledFlow) -> None:
    async def work(session: flowrun.Session) -> list[Any]:
        outputs = []
        for text in ("one", "two"):
            held = FakeHeld(saying(text))
            hosting = asyncio.create_task(host(held, model=held_by(flow)))
            await record_of_host()
            outputs += [(await session.run(flow)).output, (await session.run(flow)).output]
            held.failure = "killed"
            await hosting
        return outputs

    notes: list[str] = []
    assert run(work, notes) == ["one", "one", "two", "two"]
    assert f"{flow.models['default'].model.name} starts anew: the warm engine has ended" in notes


def test_a_session_starts_an_engine_of_its_own_for_one_that_ended(
    flow: CompiledFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = [FakeHeld(saying("own")), FakeHeld(saying("anew"))]
    unstarted = iter(own)
    monkeypatch.setattr("flowrun.runtime.engines.make_backend", lambda *_: next(unstarted))

    async def work(session: flowrun.Session) -> list[Any]:
        held = FakeHeld(saying("warm"))
        hosting = asyncio.create_task(host(held, model=held_by(flow)))
        await record_of_host()
        outputs = [(await session.run(flow)).output]
        held.failure = "killed"
        await hosting
        outputs += [(await session.run(flow)).output, (await session.run(flow)).output]
        own[0].failure = "killed by SIGKILL"
        outputs.append((await session.run(flow)).output)
        assert [one.stops for one in own] == [1, 0]
        return outputs

    notes: list[str] = []
    assert run(work, notes) == ["warm", "own", "own", "anew"]
    assert notes[-1].endswith("starts anew: killed by SIGKILL")
    assert [one.stops for one in own] == [1, 1]


def test_flows_that_share_an_engine_all_get_the_next_one(
    flow: CompiledFlow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = [FakeHeld(saying("own")), FakeHeld(saying("anew"))]
    unstarted = iter(own)
    monkeypatch.setattr("flowrun.runtime.engines.make_backend", lambda *_: next(unstarted))
    other = Project(folder=tmp_path).compile(tmp_path / "greet.yaml")

    async def work(session: flowrun.Session) -> list[Any]:
        outputs = [(await session.run(one)).output for one in (flow, other)]
        own[0].failure = "killed by SIGKILL"
        return outputs + [(await session.run(one)).output for one in (flow, other)]

    assert run(work, []) == ["own", "own", "anew", "anew"]


WAITS = """\
flowrun: v1
name: greet
version: 1.0.0
model: {backend: vllm, name: ./model}
messages: [{role: user, content: Hello}]
states:
  well: {type: wait, prompt: Well?, schema: {type: string}, next: hello}
  hello: {type: chat, next: e}
  e: {type: end, output: "{{ outputs.well }} {{ reply.content }}"}
"""


@pytest.mark.parametrize("durable", [True, False])
def test_a_run_that_waited_goes_on_with_the_next_engine(
    flow: CompiledFlow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, durable: bool
) -> None:
    own = [FakeHeld(saying("own")), FakeHeld(saying("anew"))]
    unstarted = iter(own)
    monkeypatch.setattr("flowrun.runtime.engines.make_backend", lambda *_: next(unstarted))
    (tmp_path / "waits.yaml").write_text(WAITS)
    waits = Project(folder=tmp_path).compile(tmp_path / "waits.yaml")

    async def work() -> Any:
        journal = tmp_path / "j.sqlite" if durable else None
        async with asyncio.timeout(20), flowrun.Session(journal=journal) as session:
            begun = await session.run(waits)
            own[0].failure = "killed by SIGKILL"
            await session.answer(begun.pending[0].id, "Well,")
            return (await session.resume(begun.run_id)).output

    assert asyncio.run(work()) == "Well, anew"


def test_an_engine_of_vllm_that_died_has_failed_after_its_stop_too(tmp_path: Path) -> None:
    class Dead:
        dead = "vLLM's engine died: killed by SIGKILL"

        def shutdown(self) -> None:
            """Do nothing."""

        close = release = shutdown

    backend: Any = VllmBackend(Model(name="m"), base_dir=tmp_path)
    assert failure_of(backend) is None
    backend._engine = backend._chat = Dead()
    asyncio.run(backend.stop())
    assert failure_of(KeptTokensBackend(backend, {})) == Dead.dead
