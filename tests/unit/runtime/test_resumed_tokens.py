"""Runs that are resumed keep the tokens of their replies if they began so, or if whoever resumes them says so."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import flowrun
from flowrun.backends.token_ids import pack_tokens
from flowrun.core.events import AskModel
from flowrun.core.messages import Reply
from flowrun.core.ports import OnText
from flowrun.runtime.engines import BackendSettings
from flowrun.testing import ScriptedModel

TALK = """\
flowrun: v1
version: 1.0.0
name: talk
model: {backend: scripted, name: replies.yaml}
messages: [{role: user, content: Say something.}]
flows:
  aside: {states: {third: {type: chat, next: said}, said: {type: end}}}
states:
  before: {type: wait, prompt: "Now?", next: first}
  first: {type: chat, next: between}
  between: {type: wait, prompt: "More?", next: second}
  second: {type: chat, next: apart}
  apart: {type: flow, flow: "#aside", next: done}
  done: {type: end}
"""


class Speller(ScriptedModel):
    """A model whose tokens are the letters that it reads and writes."""

    def __init__(self) -> None:
        super().__init__([{"content": "one", "repeat": True}])

    def check_tokens(self) -> None:
        """Do nothing: it always can."""

    async def reply(self, request: AskModel, *, keeps_tokens: bool = False, on_text: OnText | None = None) -> Reply:
        reply = await super().reply(request)
        if not keeps_tokens:
            return reply
        read, wrote = ("".join(one.content or "" for one in request.messages), reply.content or "")
        tokens = pack_tokens(
            [*map(ord, wrote)],
            after=[*map(ord, read)],
            vocabulary=1,
            thread=request.last_thread,
            logprobs=[-1.0] * len(wrote),
        )
        return msgspec.structs.replace(reply, tokens=tokens)


def talk(folder: Path, model: ScriptedModel) -> flowrun.Flow:
    file = folder / "talk.yaml"
    file.write_text(TALK)
    return flowrun.load(file).with_model("default", model)


def session_with(folder: Path, flow: flowrun.Flow, keeps_tokens: bool, work: Callable[..., Awaitable[Any]]) -> Any:
    """Return what work gives in a session of its own, such as in another process."""

    async def go() -> Any:
        settings = BackendSettings(keeps_tokens=keeps_tokens)
        async with flowrun.Session(journal=folder / "runs.sqlite", settings=settings) as session:
            await session.runs_of(flow)
            return await work(session)

    return asyncio.run(go())


async def answer(session: flowrun.Session) -> flowrun.RunResult:
    step = len((await session.resume("mine")).path)
    await session.answer(f"mine/{step}/0", "yes")
    return await session.resume("mine")


def talked(folder: Path, *keeps: bool) -> list[str]:
    """Return the states whose replies have tokens, of a run for which three processes keep them or do not."""
    flow = talk(folder, Speller())
    session_with(folder, flow, keeps[0], lambda session: session.run(flow, run_id="mine"))
    session_with(folder, flow, keeps[1], answer)
    record = session_with(folder, flow, keeps[2], answer).to_dict()
    assert record["status"] == "succeeded"
    return [state for row in record.get("tokens", ()) for state in row["states"]]


@pytest.mark.parametrize(
    ("keeps", "states"),
    [
        pytest.param((True, False, False), ["first", "second", "third"], id="begun so, before any reply"),
        pytest.param((False, True, False), ["first"], id="for a while"),
        pytest.param((False, False, True), ["second", "third"], id="from then on"),
        pytest.param((False, False, False), [], id="never"),
    ],
)
def test_a_run_keeps_what_it_began_with_and_what_it_is_resumed_with(
    keeps: tuple[bool, ...], states: list[str], tmp_path: Path
) -> None:
    assert talked(tmp_path, *keeps) == states


def test_runs_with_and_without_tokens_share_a_session_and_its_model(tmp_path: Path) -> None:
    model = Speller()
    flow = talk(tmp_path, model)
    session_with(tmp_path, flow, True, lambda session: session.run(flow, run_id="mine"))

    async def both(session: flowrun.Session) -> list[bool]:
        await session.run(flow, run_id="other")
        for run in ("mine", "other"):
            await session.answer(f"{run}/1/0", "yes")
        results = await asyncio.gather(session.resume("mine"), session.resume("other"))
        return ["tokens" in result.to_dict() for result in results]

    assert session_with(tmp_path, flow, False, both) == [True, False]


def test_a_fork_keeps_what_its_run_began_with(tmp_path: Path) -> None:
    flow = talk(tmp_path, Speller())
    session_with(tmp_path, flow, True, lambda session: session.run(flow, run_id="mine"))
    session_with(tmp_path, flow, False, answer)
    session_with(tmp_path, flow, False, answer)
    fork = session_with(tmp_path, flow, False, lambda session: session.fork("mine", at=2, flow=flow))
    assert (fork.status, [row["states"] for row in fork.to_dict()["tokens"]]) == ("waiting", [["first"]])


def test_a_model_that_gives_none_is_refused_where_the_run_is_resumed(tmp_path: Path) -> None:
    flow = talk(tmp_path, Speller())
    session_with(tmp_path, flow, True, lambda session: session.run(flow, run_id="mine"))
    with pytest.raises(flowrun.BackendError, match=r"the model 'default' \(ScriptedModel\) gives no tokens: --tokens"):
        session_with(tmp_path, talk(tmp_path, ScriptedModel(["one"])), False, answer)
