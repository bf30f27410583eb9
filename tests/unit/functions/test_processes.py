"""``isolation: process``: whatever a function does to its process, its call ends properly and no other is affected."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from flowrun.core.events import CallFunction
from flowrun.core.states.call import CallNode
from flowrun.errors import ToolError
from flowrun.functions.processes import Unreachable, find_target
from flowrun.functions.python import CallPool, PythonFunctions
from flowrun.runtime.project import Project
from flowrun.spec.model import JSON
from tests import harmful
from tests.processes import alive, wait_for_end

FUNCTIONS: dict[str, Callable[..., Any]] = {
    f"tests.harmful:{name}": value for name, value in vars(harmful).items() if callable(value)
}


def effect(function: str, timeout: float | None = 60.0, **arguments: JSON) -> CallFunction:
    entrypoint = f"tests.harmful:{function}"
    return CallFunction(
        step=2, state="s", run="r", entrypoint=entrypoint, arguments=arguments, timeout=timeout, isolation="process"
    )


class World:
    """Worker processes in one event loop."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.pool = CallPool(grace=5.0)
        self.functions = PythonFunctions(FUNCTIONS, self.pool)

    def call(self, function: str, timeout: float | None = 60.0, **arguments: JSON) -> JSON:
        return self.runner.run(self.functions.call(effect(function, timeout, **arguments)))

    def failure(self, function: str, timeout: float | None = 60.0, **arguments: JSON) -> tuple[str, str]:
        with pytest.raises(ToolError) as caught:
            self.call(function, timeout, **arguments)
        return caught.value.name, caught.value.message


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.pool.close()
    world.runner.close()


def test_a_worker_is_used_again_and_is_another_process(world: World) -> None:
    first = world.call("pid")
    assert first != os.getpid()
    assert world.call("pid") == first
    assert world.call("add", a=1, b=2) == 3


VALUES: list[JSON] = [
    None,
    True,
    1,
    2**64 - 1,
    -(2**63),
    1.5,
    "ä\u2028\0",
    [],
    {},
    [{"a": [1, {"b": None}]}],
    "x" * 3_000_000,
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:20])
def test_values_come_and_go_unchanged(world: World, value: JSON) -> None:
    assert world.call("echo", value=value) == value


def test_large_numbers_arrive_as_in_threads(world: World) -> None:
    assert world.failure("echo", value=10**30)[1].startswith("returned a whole number of more than 64 bits")


def test_what_a_call_may_know_of_itself(world: World) -> None:
    assert world.call("key") == world.call("key_later") == "r/2/0"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("fail", "ValueError: no"),
        ("exit_", "SystemExit: 3"),
        ("memory", "MemoryError"),
        (
            "no_json",
            "returned an object of type object, which is no JSON value: return text, numbers, lists or dicts "
            "in its place",
        ),
        ("leave", "it ended its worker process, with exit code 0"),
        ("leave_in_c", "it ended its worker process, with exit code 0"),
        ("replace", "it ended its worker process, with exit code 0"),
        ("crash", "its worker process was ended by SIGSEGV"),
        ("die", "its worker process was ended by SIGKILL; the system does so when memory runs out"),
        ("close_all", "it ended its worker process, with exit code 0"),
    ],
)
def test_a_call_that_ends_its_process_fails_alone(world: World, function: str, message: str) -> None:
    assert world.failure(function) == ("tool.failed", message)
    assert world.call("add", a=1, b=2) == 3


def test_others_continue_beside_a_call_that_ends_its_process(world: World) -> None:
    async def go() -> list[Any]:
        calls = [effect("nap", seconds=0.5), effect("crash"), effect("hold", 0.3), effect("nap", seconds=0.5)]
        return await asyncio.gather(*map(world.functions.call, calls), return_exceptions=True)

    first, crashed, held, last = world.runner.run(go())
    assert first != last
    assert (str(crashed), str(held)) == (
        "tool.failed: its worker process was ended by SIGSEGV",
        "tool.timeout: tests.harmful:hold took longer than 0.3 s",
    )


@pytest.mark.parametrize("function", ["hold", "block"])
def test_time_is_up_for_what_holds_python(world: World, function: str) -> None:
    world.call("add", a=1, b=2)
    started = time.monotonic()
    assert world.failure(function, 0.2) == ("tool.timeout", f"tests.harmful:{function} took longer than 0.2 s")
    assert time.monotonic() - started < 5
    assert world.call("add", a=1, b=2) == 3


def test_an_async_function_cleans_up(world: World, tmp_path: Path) -> None:
    file = tmp_path / "done"
    assert world.failure("clean_up", 0.2, file=str(file))[0] == "tool.timeout"
    while not file.exists():
        world.runner.run(asyncio.sleep(0.01))
    assert file.read_text() == "cleaned up"


@pytest.mark.parametrize("then", ["hang", "leave", "return"])
def test_children_end_with_their_call(world: World, tmp_path: Path, then: str) -> None:
    file = tmp_path / "pids"
    world.call("add", a=1, b=2)
    if then == "return":
        assert world.call("start_children", file=str(file), then=then) == "left"
    else:
        name = {"hang": "tool.timeout", "leave": "tool.failed"}[then]
        assert world.failure("start_children", 3.0, file=str(file), then=then)[0] == name
    pids = [int(line) for line in file.read_text().split()]
    assert len(pids) == 4
    assert all(wait_for_end(pid, seconds=5) for pid in pids)


def test_a_cancelled_call_ends_with_its_children(world: World, tmp_path: Path) -> None:
    file = tmp_path / "pids"

    async def go() -> None:
        task = asyncio.ensure_future(world.functions.call(effect("start_children", file=str(file), then="hang")))
        while not file.exists() or len(file.read_text().split()) < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait((task,))

    world.runner.run(go())
    assert all(wait_for_end(int(line), seconds=5) for line in file.read_text().split())


def test_what_an_import_starts_is_for_all_calls(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARMFUL_STARTS_AT_IMPORT", "599.5")
    worker = world.call("pid")
    children = Path(f"/proc/{worker}/task/{worker}/children")
    (child,) = map(int, children.read_text().split())
    world.call("add", a=1, b=2)
    assert alive(child)
    world.pool.close()
    assert wait_for_end(child, seconds=5)


def test_a_fork_that_comes_back_is_no_second_answer(world: World) -> None:
    assert world.call("fork") == "parent"
    assert world.call("add", a=1, b=2) == 3


def test_what_a_call_does_to_the_streams_harms_no_later_call(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    for function in ("close_streams", "wrap_stdout", "replace_streams"):
        world.call(function)
    assert world.call("say", text="hello") == "said"
    out, err = capfd.readouterr()
    assert (out, err) == ("hello\nhello raw\n", "hello err\n")


def test_stdin_is_empty(world: World) -> None:
    assert world.call("read_stdin") == ""


def test_what_a_call_writes_to_its_connection_reaches_no_later_call(world: World) -> None:
    with pytest.raises(ToolError):
        world.call("write_everywhere", 2.0)
    assert world.call("add", a=1, b=2) == 3


def test_calls_wait_for_their_turn_without_losing_time(world: World) -> None:
    functions = PythonFunctions(FUNCTIONS, pool := CallPool(1))

    async def go() -> list[JSON]:
        return await asyncio.gather(*(functions.call(effect("nap", 1.0, seconds=0.4)) for _ in range(4)))

    try:
        assert len(set(world.runner.run(go()))) == 1
    finally:
        pool.close()


def test_workers_serve_one_loop_after_another() -> None:
    pool = CallPool()
    functions = PythonFunctions(FUNCTIONS, pool)
    try:
        assert [asyncio.run(functions.call(effect("add", a=1, b=n))) for n in range(3)] == [1, 2, 3]
    finally:
        pool.close()


def test_closing_ends_all_workers(world: World) -> None:
    pids = [world.call("pid")]
    world.pool.close()
    assert not any(alive(int(pid)) for pid in pids)
    assert world.call("pid") not in pids


ENDS = """
import asyncio, os, sys
from flowrun.functions.python import CallPool, PythonFunctions
from tests.unit.functions.test_processes import FUNCTIONS, effect

async def go():
    functions = PythonFunctions(FUNCTIONS, CallPool())
    print(await functions.call(effect("pid")), flush=True)
    file = sys.argv[1]
    children = asyncio.ensure_future(functions.call(effect("start_children", file=file, then="hang")))
    while not os.path.exists(file) or len(open(file).read().split()) < 4:
        await asyncio.sleep(0.01)
    busy = [asyncio.ensure_future(functions.call(effect(name, None))) for name in ("hold", "block")]
    print(await functions.call(effect("pid")), flush=True)
    {end}

asyncio.run(go())
"""


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "os._exit(0)", "sys.exit(0)", "os.abort()"])
def test_workers_end_with_the_process_that_started_them(tmp_path: Path, end: str) -> None:
    command = [sys.executable, "-c", ENDS.format(end=end), str(tmp_path / "pids")]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=60, check=False
    )
    pids = [int(line) for line in done.stdout.split() + (tmp_path / "pids").read_text().split()]
    assert len(pids) == 6
    assert all(wait_for_end(pid, seconds=10) for pid in pids)


@pytest.mark.parametrize(
    "function",
    [harmful.Shop.price, harmful.Shop("a").sell, partial(harmful.add, 1, 2), harmful.add],
    ids=["classmethod", "method", "partial", "function"],
)
def test_functions_given_from_python_are_found(world: World, function: Callable[..., Any]) -> None:
    functions = PythonFunctions({"some:name": function}, world.pool)
    arguments: dict[str, JSON] = {"a": 1, "b": 2} if function is harmful.add else {}
    call = CallFunction(step=1, state="s", run="r", entrypoint="some:name", arguments=arguments, isolation="process")
    assert world.runner.run(functions.call(call)) == function(**arguments)


def test_functions_that_no_other_process_can_find() -> None:
    with pytest.raises(Unreachable, match="a worker process cannot import it"):
        find_target("some:name", lambda: 1)


def test_the_signal_of_a_worker_is_named(world: World) -> None:
    pid = world.call("pid")
    assert isinstance(pid, int)

    async def go() -> JSON:
        call = asyncio.ensure_future(world.functions.call(effect("nap", seconds=60)))
        await asyncio.sleep(0.05)
        os.kill(pid, signal.SIGTERM)
        return await call

    with pytest.raises(ToolError, match="its worker process was ended by SIGTERM"):
        world.runner.run(go())


SPEC = """
flowrun: v1
name: f
version: 1.0.0
isolation: process
tools:
  a: {entrypoint: "m:a", parameters: {type: object}}
  b: {entrypoint: "m:b", parameters: {type: object}, isolation: thread}
flows:
  inner:
    states: {go: {type: call, entrypoint: "m:a", next: done}, done: {type: end}}
  other:
    isolation: thread
    states:
      go: {type: call, entrypoint: "m:a", isolation: process, next: also}
      also: {type: call, entrypoint: "m:b", next: done}
      done: {type: end}
states:
  go: {type: call, entrypoint: "m:a", next: in}
  in: {type: flow, flow: "#inner", next: out}
  out: {type: flow, flow: "#other", next: done}
  done: {type: end}
"""


def test_where_functions_run(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SPEC)
    graph = Project(functions={"m:a": harmful.key, "m:b": harmful.pid}).compile(tmp_path / "s.yaml").graph
    inner, other = graph.flows["#inner"], graph.flows["#other"]
    assert {name: tool.isolation for name, tool in graph.tools.items()} == {"a": "process", "b": "thread"}
    calls = [graph.nodes["go"], inner.nodes["go"], other.nodes["go"], other.nodes["also"]]
    assert [call.isolation for call in calls if isinstance(call, CallNode)] == [
        "process",
        "process",
        "process",
        "thread",
    ]
