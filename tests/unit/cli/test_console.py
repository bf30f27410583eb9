"""What one sees while a run is in progress: lines by event, each with its place and time, and what is awaited."""

import io
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from flowrun.cli.awaited import Awaited, covered
from flowrun.cli.console import Console, RunView
from flowrun.cli.live import LiveLine, Stages
from flowrun.cli.terminal import rich_console
from flowrun.core.events import (
    Cancelled,
    ChildEnded,
    Event,
    Failed,
    Notice,
    Outcome,
    Replied,
    Returned,
    Slept,
    Started,
    TimedOut,
    Written,
)
from flowrun.core.graph import Graph
from flowrun.core.machine import Run, advance
from flowrun.core.messages import Reply, ToolCall, Usage
from flowrun.core.ports import TextObserver
from flowrun.core.state_node import Graph as CompiledGraph
from flowrun.errors import Failure
from flowrun.runtime.run_result import RunResult
from tests.flows import ADD, AGENT, graph_of

SECRET = "sesame-open-sesame"
SECRETS = {SECRET: "${TOKEN}"}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Watched:
    """Runs that are fed with events, each some seconds after the one before, under the eyes of a console."""

    def __init__(self, graph: Graph, *, quiet: bool = False) -> None:
        self.clock = Clock()
        self.console = Console(graph, SECRETS, quiet=quiet, clock=self.clock)
        self.awaited = Awaited(graph, self.clock)
        self.runs: dict[str, Run] = {}
        self._graphs = {"r": graph}

    def feed(self, seconds: float, event: Event, *, run: str = "r", graph: CompiledGraph | None = None) -> None:
        self.clock.now += seconds
        graph = self._graphs.setdefault(run, graph or self._graphs["r"])
        before = self.runs.get(run, Run())
        self.runs[run], effects, moves = advance(graph, before, event)
        after = self.runs[run]
        notice = Notice(run=run, state=after.state, step=after.step, event=event, effects=effects, moves=moves)
        self.console.notify(notice)
        self.awaited.take(notice)

    def start(self, run: str = "r", graph: CompiledGraph | None = None, **inputs: Any) -> None:
        self.feed(0, Started(run=run, inputs=inputs), run=run, graph=graph)

    def conclude(self, seconds: float = 0.0) -> None:
        self.clock.now += seconds
        self.console.conclude(RunResult(run=self.runs["r"]))

    def live(self) -> tuple[str, float] | None:
        return self.awaited.describe()


Lines = Callable[[], list[str]]


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Lines:
    return lambda: capsys.readouterr().err.splitlines()


def usage(read: int, written: int, cached: int = 0) -> Usage:
    return Usage(prompt_tokens=read, completion_tokens=written, cached_tokens=cached)


def calls(*sums: tuple[int, int]) -> tuple[ToolCall, ...]:
    return tuple(ToolCall(id=f"c{a}", name="add", arguments=f'{{"a": {a}, "b": {b}}}') for a, b in sums)


def test_an_agent(lines: Lines) -> None:
    run = Watched(graph_of(ADD, AGENT))
    run.start(question="2 + 3, and 4 + 5?")
    assert run.live() == ("ask: the model is writing", 100.0)
    run.feed(2, Replied(step=1, reply=Reply(tool_calls=calls((2, 3), (4, 5)), usage=usage(1040, 40))))
    assert run.live() == ("act: add is running, 0 of 2 calls done", 102.0)
    run.feed(1, Returned(step=2, index=1, value=9))
    assert run.live() == ("act: add is running, 1 of 2 calls done", 102.0)
    run.feed(0.5, Returned(step=2, value=5))
    assert run.live() == ("ask: the model is writing", 103.5)
    run.feed(0.2504, Replied(step=3, reply=Reply(content="5 and 9", usage=usage(1100, 9, 1024))))
    assert run.live() is None
    run.conclude(seconds=2)  # the engine stops, which is no time of the run
    assert lines() == [
        "    input  question: 2 + 3, and 4 + 5?",
        '    reply  [ask] add({"a": 2, "b": 3}), add({"a": 4, "b": 5})  '
        "(2.00 s, 1,040 tokens read, 40 written, 20.0 tokens/s)",
        '   result  [act] add({"a": 4, "b": 5}): 9  (1.00 s)',
        '   result  [act] add({"a": 2, "b": 3}): 5  (1.50 s)',
        "    reply  [ask] 5 and 9  (250 ms, 1,100 tokens read (1,024 cached), 9 written)",
        "succeeded  ask > act > ask > done  "
        "(2 rounds, 2,140 tokens read (1,024 cached), 49 written; 3.75 s: model 2.25 s, tools 1.50 s)",
    ]


THREADS = """\
threads: {notes: [{role: user, content: Note.}]}
states:
  note: {type: chat, thread: notes, routes: [{when: reply.tool_calls, to: act}, {to: done}]}
  act: {type: tools, thread: notes, next: done}
  done: {type: end}
"""


def test_a_thread_other_than_main_is_named(lines: Lines) -> None:
    run = Watched(graph_of(ADD, THREADS))
    run.start()
    assert run.live() == ("note, thread notes: the model is writing", 100.0)
    run.feed(1, Replied(step=1, reply=Reply(tool_calls=calls((1, 1)))))
    run.feed(1, Returned(step=2, value=2))
    assert lines() == [
        '    reply  [note, thread notes] add({"a": 1, "b": 1})  (1.00 s)',
        '   result  [act, thread notes] add({"a": 1, "b": 1}): 2  (1.00 s)',
    ]


RETRY = """\
states:
  go:
    type: call
    entrypoint: tools.a:f
    timeout: 30s
    with: {key: "k"}
    retry: {max_attempts: 3, delay: 2s, backoff: 2}
    catch: [{errors: [state.timeout], to: done}]
    next: done
  done: {type: end}
"""


def test_attempts_and_pauses(lines: Lines) -> None:
    run = Watched(graph_of(RETRY))
    run.start()
    assert run.live() == ("go: tools.a:f is running", 100.0)
    run.feed(1, Failed(step=1, failure=Failure(name="tool.failed", message="no line")))
    assert run.live() == ("go: 2.00 s until attempt 2", 101.0)
    run.feed(2, Slept(step=2))
    assert run.live() == ("go: tools.a:f is running", 103.0)
    run.feed(1, Failed(step=2, failure=Failure(name="tool.failed", message="still no line")))
    run.feed(4, Slept(step=3))
    run.feed(30, TimedOut(step=3))
    run.conclude()
    assert lines() == [
        '   failed  [go] tools.a:f({"key": "k"}): tool.failed: no line  (1.00 s)',
        "    pause  [go] 2.00 s until attempt 2",
        '   failed  [go] tools.a:f({"key": "k"}): tool.failed: still no line  (1.00 s)',
        "    pause  [go] 4.00 s until attempt 3",
        "   failed  [go] state.timeout: state 'go' took longer than its timeout, 30 s",
        "succeeded  go > done  (0 rounds; 38.00 s: tools 32.00 s, waiting 6.00 s)",
    ]


MAP = """\
inputs: {items: {type: array}}
states:
  each: {type: map, for_each: inputs.items, as: item, flow: "#one", max_concurrency: 2, next: done}
  done: {type: end}
flows:
  one:
    messages: [{role: user, content: Hello.}]
    states: {ask: {type: chat, next: said}, said: {type: end}}
"""


def test_sub_runs_are_counted(lines: Lines) -> None:
    graph = graph_of(MAP)
    run, one = Watched(graph), graph.flows["#one"]
    run.start(items=[1, 2, 3])
    run.start("r.1.0", one)
    run.start("r.1.1", one)
    assert run.live() == ("each: the model is writing 2 replies, sub-runs: 2 under way", 100.0)
    run.feed(2, Replied(step=1, reply=Reply(content="Hi.", usage=usage(10, 2))), run="r.1.1")
    outcome = Outcome(status="succeeded")
    run.feed(0, ChildEnded(step=1, index=1, outcome=outcome, rounds=1, usage=usage(10, 2)))
    assert run.live() == ("each: the model is writing, sub-runs: 2 under way, 1 ended", 100.0)
    assert lines() == [
        "    input  items: [1, 2, 3]",
        "    reply  [run 1.1, ask] Hi.  (2.00 s, 10 tokens read, 2 written)",
        "  sub-run  [each] run 1.1 succeeded, 1 ended, 2 under way  (2.00 s, 1 round, 10 tokens read, 2 written)",
    ]


def test_what_a_cancelled_run_awaited_is_over(lines: Lines) -> None:
    graph = graph_of(MAP)
    run = Watched(graph)
    run.start(items=[1])
    run.start("r.1.0", graph.flows["#one"])
    run.feed(3, Cancelled(reason="enough"))
    assert run.live() is None
    run.conclude()
    assert lines()[1:] == [
        "cancelled  run.cancelled in state each: enough",
        "     path  each  (0 rounds; 3.00 s: model 3.00 s)",
    ]


def test_quiet_shows_nothing_but_the_reason_of_a_failure(lines: Lines) -> None:
    run = Watched(graph_of(ADD, AGENT), quiet=True)
    run.console.progress("loading")
    run.start(question="?")
    run.feed(1, Failed(step=1, failure=Failure(name="backend.unavailable", message="gone")))
    run.conclude()
    assert lines() == ["   failed  backend.unavailable in state ask: gone"]


def test_the_time_of_an_effect_that_began_before_a_resumption_counts_from_there(lines: Lines) -> None:
    graph = graph_of(ADD, AGENT)
    run = Watched(graph)
    started = Started(run="r", inputs={"question": "?"})
    run.runs["r"] = advance(graph, Run(), started).run
    run.clock.now += 5
    run.console.note("model", "ready after 5.00 s")
    run.feed(2, Replied(step=1, reply=Reply(content="Yes.")))
    run.conclude()
    assert lines() == [
        "    model  ready after 5.00 s",
        "    reply  [ask] Yes.  (2.00 s)",
        "succeeded  ask > done  (1 round; 2.00 s: model 2.00 s)",
    ]


def test_secrets_are_masked_before_texts_are_cut(lines: Lines) -> None:
    run = Watched(graph_of(ADD, AGENT))
    run.start(question="?")
    arguments = f'{{"a": 1, "b": 2, "{"x" * 30}": "{SECRET}"}}'
    call = ToolCall(id="c", name="add", arguments=arguments)
    run.feed(1, Replied(step=1, reply=Reply(content="y" * 90 + SECRET, tool_calls=(call,))))
    run.console.progress(f"reading {SECRET}")
    described = run.console.awaited_now()
    run.console.finish()
    shown = "\n".join(lines())
    assert "sesame" not in shown
    assert described == ("reading ${TOKEN}", 101.0)


# --- the live line and the stages -----------------------------------------------------------------------------------


def test_the_live_line_counts_the_seconds() -> None:
    clock = Clock()
    live = LiveLine(rich_console(file=io.StringIO(), width=60), lambda: ("ask: the model is\nwriting", 98.0), clock)
    assert str(live.__rich__()) == "ask: the model is writing, 2 s"
    clock.now += 123.9
    assert str(live.__rich__()) == "ask: the model is writing, 2 min 5 s"


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        pytest.param({"force_terminal": True}, True, id="a terminal"),
        pytest.param({"force_terminal": True, "quiet": True}, False, id="quiet"),
        pytest.param({}, False, id="a pipe"),
    ],
)
def test_the_live_line_is_for_terminals(options: Mapping[str, Any], shown: bool) -> None:
    stream = io.StringIO()
    live = LiveLine(rich_console(file=stream, width=60, **options), lambda: ("ask: \x1b[2Kmodel", 98.0), Clock())
    live.show()
    live.hide()
    assert ("ask: �[2Kmodel, 2 s" in stream.getvalue()) is shown
    assert bool(stream.getvalue()) is shown


def test_a_long_text_leaves_room_for_the_seconds() -> None:
    live = LiveLine(rich_console(file=io.StringIO(), width=60), lambda: ("x" * 80, 98.0), Clock())
    assert str(live.__rich__()) == "x" * 39 + "…, 2 s"


def test_what_is_written_stands_below_the_line() -> None:
    text = "[ask] It is fair.\n\x1b[2K" + "word " * 100
    console = rich_console(file=io.StringIO(), width=24, height=8, force_terminal=True)
    live = LiveLine(console, lambda: ("ask", 98.0), Clock(), below=lambda: text)
    shown = [line.rstrip() for line in str(live.__rich__()).splitlines()]
    assert shown == ["ask, 2 s", *["word word word word"] * 3, "word"]
    text = "[ask] It\tf\x07air.\n"
    assert str(live.__rich__()) == "ask, 2 s\n[ask] It    f\N{REPLACEMENT CHARACTER}air."
    text = ""
    assert str(live.__rich__()) == "ask, 2 s"


def written(text: str | None, run: str = "r", step: int = 1) -> Written:
    return Written(run=run, state="ask", step=step, text=text)


def test_what_is_written_is_shown_as_long_as_its_reply_is_awaited() -> None:
    run = Watched(graph_of(ADD, AGENT))
    run.start(question="?")
    seen = []
    for piece in (written("It"), written(" is"), written(None), written("Let me"), written("x", run="r.9.9")):
        run.awaited.write(piece)
        seen.append(run.awaited.text())
    assert seen == ["[ask] It", "[ask] It is", "", "[ask] Let me", "[ask] Let me"]
    run.feed(1, Replied(step=1, reply=Reply(content="Let me look.", tool_calls=calls((2, 3)))))
    assert run.awaited.text() == ""
    run.feed(1, Returned(step=2, value=5))
    run.awaited.write(written("too late", step=1))
    assert run.awaited.text() == ""
    run.awaited.write(written("a" * 5000 + "z", step=3))
    assert run.awaited.text() == "[ask] " + "a" * 3999 + "z"


@pytest.mark.parametrize(
    ("quiet", "full", "terminal", "watches"),
    [
        pytest.param(False, False, True, True, id="a terminal"),
        pytest.param(True, False, True, False, id="quiet"),
        pytest.param(False, True, True, False, id="json"),
        pytest.param(False, False, False, False, id="a pipe"),
    ],
)
def test_text_is_watched_on_terminals_only(
    quiet: bool, full: bool, terminal: bool, watches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1" if terminal else "")
    console = Console(graph_of(ADD, AGENT), SECRETS, quiet=quiet)
    view = RunView(io.StringIO(), console, full=full, verbose=False)
    assert [isinstance(observer, TextObserver) for observer in view.observers] == [False, *[True] * watches]


def test_stages_are_shown_with_their_times() -> None:
    shown: list[str] = []
    clock = Clock()
    stages = Stages(shown.append, clock, least=1.0)
    for stage, seconds in (("reading", 0.9), ("loading", 61.4), ("warming up", 1.0)):
        stages.begin(stage)
        assert stages.current == (stage, clock.now)
        clock.now += seconds
    stages.end()
    stages.end()
    assert (shown, stages.current) == (["loading  (1 min 1 s)", "warming up  (1.00 s)"], None)


@pytest.mark.parametrize(
    ("spans", "length"),
    [
        pytest.param([], 0, id="none"),
        pytest.param([(1, 2), (4, 6)], 3, id="apart"),
        pytest.param([(4, 6), (1, 5)], 5, id="overlapping, in any order"),
        pytest.param([(1, 9), (2, 3), (8, 10)], 9, id="one within another"),
    ],
)
def test_parallel_time_counts_once(spans: list[tuple[float, float]], length: float) -> None:
    assert covered(spans) == length
