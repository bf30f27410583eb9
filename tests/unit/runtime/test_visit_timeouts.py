"""The timeout of an agent is for a full visit: for all its turns, and also after a resume. In virtual time."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from flowrun.backends.scripted import ScriptedBackend
from flowrun.core.events import AskModel, Recorded
from flowrun.core.messages import Reply, ToolCall
from flowrun.errors import ModelError
from flowrun.functions.python import PythonFunctions
from flowrun.journal import MemoryJournal
from flowrun.runtime.runner import Runner, RunResult
from flowrun.testing.clock import VirtualLoop
from tests.flows import ADD, graph_of

FLOW = """\
messages: [{role: user, content: hi}]
states:
  team: {type: TYPE, timeout: 7s, RETRY catch: [{errors: [state.timeout], to: late}], ROUTES}
  act: {type: tools, next: team}
  late: {type: end, output: "late, after {{ run.rounds }} rounds"}
  done: {type: end, output: "{{ reply.content }}"}
"""
AGENT = FLOW.replace("TYPE", "agent").replace("ROUTES", "next: done").replace("  act: {type: tools, next: team}\n", "")
CHAT = FLOW.replace("TYPE", "chat").replace("ROUTES", "routes: [{when: reply.tool_calls, to: act}, {to: done}]")
SECONDS = 2.0


def reply_after(turns: int) -> Callable[[AskModel], Any]:
    """Return a model that takes two seconds for a reply, and calls a tool in all of them but the last.

    Without turns, it fails at once.
    """

    async def reply(request: AskModel) -> Reply:
        if not turns:
            raise ModelError("backend.unavailable", "lost")
        await asyncio.sleep(SECONDS)
        if sum(message.role == "assistant" for message in request.messages) + 1 < turns:
            return Reply(tool_calls=(ToolCall(id="", name="add", arguments='{"a": 1, "b": 2}'),))
        return Reply(content="Done.")

    return reply


async def add(a: int, b: int) -> int:
    return a + b


def run(text: str, *, turns: int, recorded: list[Recorded] | None = None, pause: float = 0.0) -> tuple[Any, Any]:
    """Run a flow, or resume it ``pause`` seconds after the last recorded event; return its output and its records."""
    loop = VirtualLoop()
    start = recorded[-1].at + pause if recorded else 1000.0
    begun = loop.time()
    journal = MemoryJournal(now=lambda: start + loop.time() - begun)
    runner = Runner(
        backends={"default": ScriptedBackend.from_function(reply_after(turns))},
        functions=PythonFunctions({"tools.numbers:add": add}),
        journal=journal,
        now=lambda: start + loop.time() - begun,
        chance=lambda: 0.0,
    )
    if recorded:
        journal.records["r"], journal.parents["r"] = list(recorded), None

    async def go() -> RunResult:
        return await (runner.resume(graph, "r") if recorded else runner.run(graph, {}, run_id="r"))

    graph = graph_of(ADD, text.replace("RETRY", "retry: {max_attempts: 5, delay: 4s, jitter: 0},"))
    with asyncio.Runner(loop_factory=lambda: loop) as asyncio_runner:
        outcome = asyncio_runner.run(go()).run.outcome
    assert outcome is not None
    return outcome.output, journal.records["r"]


@pytest.mark.parametrize(
    ("text", "turns", "output"),
    [
        pytest.param(AGENT, 3, "Done.", id="an agent in time"),
        pytest.param(AGENT, 5, "late, after 4 rounds", id="an agent whose turns take too long together"),
        pytest.param(CHAT, 5, "Done.", id="a chat, each visit in time"),
    ],
)
def test_the_turns_of_an_agent_share_its_time(text: str, turns: int, output: str) -> None:
    assert run(text, turns=turns)[0] == output


@pytest.mark.parametrize(
    ("pause", "output"),
    [pytest.param(0.0, "late, after 4 rounds", id="at once"), pytest.param(3600.0, "late, after 4 rounds", id="later")],
)
def test_a_resumed_agent_has_the_time_that_was_left(pause: float, output: str) -> None:
    events = run(AGENT, turns=5)[1]
    third = next(index for index, one in enumerate(events) if one.at >= 1000 + 2 * SECONDS)
    assert run(AGENT, turns=5, recorded=events[: third + 1], pause=pause)[0] == output
    assert run(AGENT, turns=3, recorded=events[: third + 1], pause=pause)[0] == "Done."


def test_pauses_between_attempts_count_also_after_a_resume() -> None:
    output, events = run(AGENT, turns=0)
    assert (output, events[-1].at) == ("late, after 2 rounds", pytest.approx(1007.0, abs=0.5))
    paused = events[:-1]
    assert paused[-1].at == pytest.approx(1004.0, abs=0.5)
    output, resumed = run(AGENT, turns=0, recorded=paused, pause=2.0)
    assert (output, resumed[-1].at) == ("late, after 2 rounds", pytest.approx(1007.0, abs=0.5))
