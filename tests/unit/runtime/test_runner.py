"""The runner performs effects, meets deadlines, and records events before their effects."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from flowrun.backends.scripted import ScriptedBackend, ScriptedCall, ScriptedReply
from flowrun.core.events import CallStarted, Event, Notice, Outcome, Replied, RequestInput, Returned, Started
from flowrun.core.graph import Graph
from flowrun.core.machine import Run, fold
from flowrun.core.messages import Reply, ToolCall
from flowrun.core.ports import Journal, Observer
from flowrun.core.tool_context import ToolContext, current_call
from flowrun.errors import Failure
from flowrun.functions.python import PythonFunctions
from flowrun.runtime.runner import Runner
from flowrun.testing.truncatable_journal import TruncatableJournal
from tests.flows import ADD, AGENT, graph_of

QUESTION = {"question": "2 + 3?"}


def add_call(a: int, b: int) -> ScriptedCall:
    return ScriptedCall(name="add", arguments={"a": a, "b": b})


def run_flow(
    graph: Graph,
    replies: list[ScriptedReply],
    functions: Mapping[str, Callable[..., Any]],
    *,
    inputs: Mapping[str, Any] = QUESTION,
    journal: Journal | None = None,
    observers: tuple[Observer, ...] = (),
    sleep: Callable[[float], Any] = asyncio.sleep,
) -> Run:
    runner = Runner(
        backends={"default": ScriptedBackend(replies)},
        functions=PythonFunctions(functions),
        journal=journal,
        observers=observers,
        sleep=sleep,
        chance=lambda: 0.5,
    )
    return asyncio.run(runner.run(graph, inputs, run_id="r1")).run


async def add(a: int, b: int) -> int:
    return a + b


def add_in_thread(a: int, b: int) -> int:
    return a + b


@pytest.mark.parametrize("function", [pytest.param(add, id="async"), pytest.param(add_in_thread, id="in a thread")])
def test_an_agent(function: Callable[..., Any]) -> None:
    graph = graph_of(ADD, AGENT)
    replies = [ScriptedReply(tool_calls=(add_call(2, 3), add_call(4, 5))), ScriptedReply(content="5 and 9")]
    journal = TruncatableJournal()
    run = run_flow(graph, replies, {"tools.numbers:add": function}, journal=journal)
    assert run.outcome == Outcome(status="succeeded", output={"answer": "5 and 9"})
    assert [message.content for message in run.threads["main"]] == ["2 + 3?", None, "5", "9", "5 and 9"]
    events = journal.all_events("r1")
    assert Counter(map(type, events)) == Counter(
        [Started, Replied, CallStarted, Returned, CallStarted, Returned, Replied]
    )
    assert fold(graph, events).run == run


def test_an_event_is_stored_before_what_follows_from_it() -> None:
    journal = TruncatableJournal()
    seen: list[type] = []

    async def noting(a: int, b: int) -> int:
        seen.extend(map(type, journal.all_events("r1")))
        return a + b

    replies = [ScriptedReply(tool_calls=(add_call(2, 3),)), ScriptedReply(content="5")]
    run_flow(graph_of(ADD, AGENT), replies, {"tools.numbers:add": noting}, journal=journal)
    assert seen == [Started, Replied, CallStarted]


def test_observers_are_notified_of_everything() -> None:
    class Watching:
        def __init__(self) -> None:
            self.notices: list[Notice] = []

        def notify(self, notice: Notice) -> None:
            self.notices.append(notice)

    watching = Watching()
    replies = [ScriptedReply(tool_calls=(add_call(2, 3),)), ScriptedReply(content="5")]
    run_flow(graph_of(ADD, AGENT), replies, {"tools.numbers:add": add}, observers=(watching,))
    notified = [(n.state, type(n.event).__name__, [type(e).__name__ for e in n.effects]) for n in watching.notices]
    assert notified == [
        ("ask", "Started", ["AskModel"]),
        ("act", "Replied", ["CallFunction"]),
        ("ask", "Returned", ["AskModel"]),
        ("done", "Replied", ["Outcome"]),
    ]


def test_calls_run_at_the_same_time() -> None:
    together: list[int] = []
    both = asyncio.Event()

    async def meet(a: int, b: int) -> int:
        together.append(a)
        if len(together) == 2:
            both.set()
        await both.wait()
        return a + b

    replies = [ScriptedReply(tool_calls=(add_call(1, 1), add_call(2, 2))), ScriptedReply(content="done")]
    run = run_flow(graph_of(ADD, AGENT), replies, {"tools.numbers:add": meet})
    assert run.status == "succeeded"
    assert sorted(together) == [1, 2]


async def hang(**arguments: Any) -> None:
    await asyncio.sleep(3600)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(
            ("limits: {max_rounds: 3", "limits: {timeout: 50ms"),
            Failure(name="limit.timeout", message="the run took longer than limits.timeout, 0.05 s", state="act"),
            id="the run's",
        ),
        pytest.param(
            ("{type: tools,", "{type: tools, timeout: 50ms,"),
            Failure(name="state.timeout", message="state 'act' took longer than its timeout, 0.05 s", state="act"),
            id="the state's",
        ),
    ],
)
def test_deadlines(change: tuple[str, str], expected: Failure) -> None:
    graph = graph_of(ADD, AGENT.replace(*change))
    replies = [ScriptedReply(tool_calls=(add_call(2, 3), add_call(2, 3)))]
    run = run_flow(graph, replies, {"tools.numbers:add": hang})
    assert run.outcome == Outcome(status="failed", error=expected)


def test_a_deadline_that_passes_as_the_last_event_of_its_state_is_stored_is_no_failure() -> None:
    class Slow(TruncatableJournal):
        async def append(self, run: str, event: Event, *, seq: int, state: str, status: str) -> None:
            await super().append(run, event, seq=seq, state=state, status=status)
            if isinstance(event, Returned):
                await asyncio.sleep(0.1)

    graph = graph_of(ADD, AGENT.replace("{type: tools,", "{type: tools, timeout: 50ms,"))
    replies = [ScriptedReply(tool_calls=(add_call(2, 3),)), ScriptedReply(content="5")]
    run = run_flow(graph, replies, {"tools.numbers:add": add}, journal=Slow())
    assert run.outcome == Outcome(status="succeeded", output={"answer": "5"})


def test_effects_that_never_wait_keep_the_loop_from_nothing() -> None:
    graph = graph_of(ADD, AGENT.replace("max_rounds: 3, max_steps: 20", "max_rounds: 50000, max_steps: 100000"))
    heard: list[str] = []

    async def go() -> None:
        endless = ScriptedBackend.from_function(lambda request: Reply(tool_calls=(call,)), record=False)
        runner = Runner(backends={"default": endless}, functions=PythonFunctions({"tools.numbers:add": add}))
        running = asyncio.create_task(runner.run(graph, QUESTION, run_id="r"))
        asyncio.get_running_loop().call_later(0.01, running.cancel)
        try:
            await running
        except asyncio.CancelledError:
            heard.append("cancelled")

    call = ToolCall(id="", name="add", arguments='{"a": 1, "b": 2}')
    asyncio.run(go())
    assert heard == ["cancelled"]


def test_a_tools_own_timeout_goes_back_to_the_model() -> None:
    graph = graph_of(ADD.replace("timeout: 5s", "timeout: 20ms"), AGENT)
    replies = [ScriptedReply(tool_calls=(add_call(2, 3),)), ScriptedReply(content="sorry")]
    run = run_flow(graph, replies, {"tools.numbers:add": hang})
    assert run.threads["main"][2].content == "error: tool.timeout: add took longer than 0.02 s"
    assert run.status == "succeeded"


def test_a_state_is_tried_again() -> None:
    flow = AGENT.replace("type: chat\n", "type: chat\n    retry: {max_attempts: 3, delay: 2s, jitter: 1}\n")
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    unavailable = ScriptedReply(error="backend.unavailable")
    replies = [unavailable, unavailable, ScriptedReply(content="5")]
    run = run_flow(graph_of(ADD, flow), replies, {"tools.numbers:add": add}, sleep=sleep)
    assert run.status == "succeeded"
    assert slept == [3.0, 6.0]
    assert list(run.path) == ["ask", "done"]


def test_defaults_replace_inputs_left_out() -> None:
    flow = AGENT.replace("{question: {type: string}}", "{question: {type: string, default: who}}")
    run = run_flow(graph_of(ADD, flow), [ScriptedReply(content="me")], {"tools.numbers:add": add}, inputs={})
    assert run.threads["main"][0].content == "who"


def test_cancelling_ends_what_is_in_flight() -> None:
    ended: list[str] = []

    async def long(a: int, b: int) -> int:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(f"{a} + {b}")
        return a + b

    async def main() -> None:
        replies = [ScriptedReply(tool_calls=(add_call(1, 1), add_call(2, 2)))]
        functions = PythonFunctions({"tools.numbers:add": long})
        runner = Runner(backends={"default": ScriptedBackend(replies)}, functions=functions)
        task = asyncio.create_task(runner.run(graph_of(ADD, AGENT), QUESTION, run_id="r"))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.02)
        assert sorted(ended) == ["1 + 1", "2 + 2"]  # the end of the loop would cancel them too

    asyncio.run(main())


def test_calls_of_a_state_that_timed_out_are_cancelled_while_the_run_goes_on() -> None:
    cancelled: list[int] = []
    seen: list[int] = []

    async def long(a: int, b: int) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            cancelled.append(b)

    async def look() -> None:
        for _ in range(100):  # passes of the loop: how many a cancellation takes depends on Python's version
            await asyncio.sleep(0)
        seen.extend(sorted(cancelled))

    flow = AGENT.replace("{type: tools,", "{type: tools, timeout: 50ms, catch: [{to: look}],").replace(
        "states:\n", "states:\n  look: {type: call, entrypoint: 'tools.numbers:look', next: done}\n"
    )
    flow = flow.replace("states:\n", "start: ask\nstates:\n")
    replies = [ScriptedReply(tool_calls=(add_call(1, 1), add_call(2, 2)))]
    run = run_flow(graph_of(ADD, flow), replies, {"tools.numbers:add": long, "tools.numbers:look": look})
    assert (list(run.path), seen) == (["ask", "act", "look", "done"], [1, 2])


def test_what_is_no_failure_of_a_run_is_raised() -> None:
    def broken(request: Any) -> Any:
        raise ZeroDivisionError

    runner = Runner(backends={"default": ScriptedBackend.from_function(broken)}, functions=PythonFunctions({}))
    with pytest.raises(ZeroDivisionError):
        asyncio.run(runner.run(graph_of(ADD, AGENT), QUESTION, run_id="r"))


ASKING = """\
flows:
  ask:
    states:
      s: {type: wait, prompt: "Well?", schema: {type: boolean}, next: e}
      e: {type: end, output: "{{ outputs.s }}"}
  work:
    states: {s: {type: call, entrypoint: "tools.work:done", next: e}, e: {type: end, output: "{{ outputs.s }}"}}
states:
  both: {type: parallel, branches: {person: {flow: "#ask"}, program: {flow: "#work"}}, next: end}
  end: {type: end, output: "{{ outputs.both }}"}
"""


async def done() -> str:
    return "done"


class Saying:
    """Answers every question with True."""

    async def answer(self, effect: RequestInput) -> Any:
        return True


@pytest.mark.parametrize(
    ("human_input", "outcome", "asked"),
    [
        pytest.param(Saying(), Outcome(status="succeeded", output={"person": True, "program": "done"}), [], id="some"),
        pytest.param(None, None, [("r.1.0", "s", "Well?")], id="nobody"),
    ],
)
def test_human_input(human_input: Saying | None, outcome: Outcome | None, asked: list[tuple[str, str, str]]) -> None:
    functions = PythonFunctions({"tools.work:done": done})
    runner = Runner(backends={}, functions=functions, human_input=human_input)
    result = asyncio.run(runner.run(graph_of(ASKING), {}, run_id="r"))
    assert result.run.outcome == outcome
    assert [(ask.run, ask.state, ask.prompt) for ask in result.waiting] == asked


def test_a_function_knows_which_call_it_is() -> None:
    calls: list[ToolContext] = []

    async def note(a: int, b: int) -> int:
        calls.append(current_call())
        if len(calls) == 1:
            raise ValueError("try again")

        def add() -> int:
            calls.append(current_call())
            return a + b

        return await asyncio.to_thread(add)

    flow = AGENT.replace("{type: tools,", "{type: tools, on_error: raise, retry: {max_attempts: 2, delay: 0},")
    replies = [ScriptedReply(tool_calls=(add_call(2, 3),)), ScriptedReply(content="5")]
    run = run_flow(graph_of(ADD, flow), replies, {"tools.numbers:add": note})
    assert run.status == "succeeded"
    first = ToolContext(run="r1", state="act", tool="add", attempt=1, key="r1/2/0")
    assert calls == [first, *[ToolContext(run="r1", state="act", tool="add", attempt=2, key="r1/2/0")] * 2]
    with pytest.raises(LookupError, match="no tool of a flow"):
        current_call()
