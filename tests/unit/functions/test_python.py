"""Whatever a function does, its call ends properly, and other calls are not affected."""

import asyncio
import contextvars
import functools
import gc
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, NoReturn

import msgspec
import pytest

from flowrun.core.events import CallFunction
from flowrun.errors import Bug, ToolError
from flowrun.functions.outcomes import MAX_MESSAGE
from flowrun.functions.python import CallPool, PythonFunctions
from flowrun.spec.model import JSON

Function = Callable[..., Any]


def effect(
    *, arguments: Mapping[str, JSON] | None = None, timeout: float | None = 60.0, tool: str | None = None
) -> CallFunction:
    return CallFunction(
        step=1, state="s", run="r1", entrypoint="m:f", arguments=arguments or {}, timeout=timeout, tool=tool
    )


def call(function: Function, **arguments: JSON) -> JSON:
    return asyncio.run(PythonFunctions({"m:f": function}).call(effect(arguments=arguments)))


def failure_of(function: Function, **arguments: JSON) -> tuple[str, str]:
    with pytest.raises(ToolError) as caught:
        call(function, **arguments)
    return caught.value.name, caught.value.message


def sync_and_async(function: Function) -> list[Function]:
    """Return a function itself, and an async one that waits before it calls it."""

    async def waiting(**arguments: JSON) -> Any:
        await asyncio.sleep(0)
        return function(**arguments)

    return [function, waiting]


def raising(exc: BaseException) -> Function:
    def function() -> NoReturn:
        raise exc

    return function


# --- calling ------------------------------------------------------------------------------------------------------


def greet(name: str, *, loudly: bool = False) -> str:
    return f"Hello {name}{'!' if loudly else '.'}"


async def greet_at_once(name: str, *, loudly: bool = False) -> str:
    return greet(name, loudly=loudly)


class Greeter:
    async def __call__(self, name: str, *, loudly: bool = False) -> str:
        return greet(name, loudly=loudly)


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(greet, id="def"),
        pytest.param(greet_at_once, id="async def"),
        pytest.param(functools.partial(greet_at_once), id="partial of async def"),
        pytest.param(Greeter(), id="object with async __call__"),
    ],
)
def test_calls_by_keyword(function: Function) -> None:
    assert call(function, name="Ada", loudly=True) == "Hello Ada!"


@pytest.mark.parametrize("function", [greet, greet_at_once], ids=["def", "async def"])
def test_arguments_that_a_function_does_not_take_are_invalid(function: Function) -> None:
    assert failure_of(function, name="Ada", age=36) == (
        "tool.invalid_arguments",
        "there is no parameter 'age'; there are: name, loudly",
    )


def test_an_unbound_entrypoint_is_a_bug() -> None:
    with pytest.raises(Bug, match=r"no function is bound to m:f"):
        asyncio.run(PythonFunctions({}).call(effect()))


def test_context_variables_reach_the_function_and_its_changes_stay_there() -> None:
    variable = contextvars.ContextVar("variable", default="unset")

    def read_and_set() -> str:
        seen = variable.get()
        variable.set("changed")
        return seen

    async def go() -> list[str]:
        variable.set("outer")
        functions = [PythonFunctions({"m:f": function}) for function in sync_and_async(read_and_set)]
        return [*[await each.call(effect()) for each in functions], variable.get()]

    assert asyncio.run(go()) == ["outer", "outer", "outer"]


def spoil(places: list[str], options: dict[str, Any]) -> str:
    places.append("Boston")
    options["deep"]["unit"] = "kelvin"
    return "done"


@pytest.mark.parametrize("function", sync_and_async(spoil), ids=["def", "async def"])
def test_a_function_changes_only_its_own_copy_of_the_arguments(function: Function) -> None:
    arguments: dict[str, JSON] = {"places": ["Dallas"], "options": {"deep": {"unit": "celsius"}}}
    call(function, **arguments)
    assert arguments == {"places": ["Dallas"], "options": {"deep": {"unit": "celsius"}}}


def test_works_in_one_event_loop_after_another() -> None:
    functions = PythonFunctions({"m:f": greet}, CallPool(max_threads=1))

    async def contend() -> list[JSON]:
        return await asyncio.gather(*(functions.call(effect(arguments={"name": "Ada"})) for _ in range(3)))

    assert [asyncio.run(contend()) for _ in range(2)] == [["Hello Ada."] * 3] * 2


# --- failing ------------------------------------------------------------------------------------------------------


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("is_async", [False, True], ids=["def", "async def"])
@pytest.mark.parametrize(
    ("exc", "message"),
    [
        pytest.param(ValueError("no such city"), "ValueError: no such city", id="error"),
        pytest.param(KeyError("TX"), "KeyError: 'TX'", id="key error"),
        pytest.param(ValueError(), "ValueError", id="no message"),
        pytest.param(TimeoutError("too slow"), "TimeoutError: too slow", id="its own timeout"),
        pytest.param(SystemExit(3), "SystemExit: 3", id="exit"),
        pytest.param(KeyboardInterrupt(), "KeyboardInterrupt", id="interrupt"),
        pytest.param(GeneratorExit(), "GeneratorExit", id="generator exit"),
        pytest.param(asyncio.CancelledError("mine"), "CancelledError: mine", id="its own cancellation"),
        pytest.param(ExceptionGroup("two", [ValueError("a")]), "ExceptionGroup: two (1 sub-exception)", id="group"),
        pytest.param(ValueError("half \ud83d"), "ValueError: half ?", id="no Unicode"),
        pytest.param(ValueError("x" * 5000), f"ValueError: {'x' * MAX_MESSAGE} ...", id="long"),
        pytest.param(Mute(), "Mute: its message cannot be shown", id="no message to be had"),
    ],
)
def test_an_exception_of_a_function_is_its_failure(exc: BaseException, message: str, is_async: bool) -> None:
    assert failure_of(sync_and_async(raising(exc))[is_async]) == ("tool.failed", message)


@pytest.mark.parametrize(
    ("is_async", "message"),
    [(False, "StopIteration: end"), (True, "RuntimeError: coroutine raised StopIteration")],
    ids=["def", "async def"],
)
def test_stop_iteration_is_a_failure_too(is_async: bool, message: str) -> None:
    assert failure_of(sync_and_async(raising(StopIteration("end")))[is_async]) == ("tool.failed", message)


def test_a_failure_keeps_its_cause_for_the_traceback() -> None:
    cause = ValueError("no such city")
    with pytest.raises(ToolError) as caught:
        call(raising(cause))
    assert caught.value.__cause__ is cause


def test_a_function_that_cancels_its_own_task_cancels_nothing_else() -> None:
    async def suicidal() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    async def go() -> tuple[str, int]:
        with pytest.raises(ToolError) as caught:
            await PythonFunctions({"m:f": suicidal}).call(effect())
        caller = asyncio.current_task()
        assert caller is not None
        return caught.value.message, caller.cancelling()

    assert asyncio.run(go()) == ("CancelledError", 0)


def test_endless_recursion_is_a_failure() -> None:
    def endless() -> Any:
        return endless()

    assert failure_of(endless) == ("tool.failed", "RecursionError: maximum recursion depth exceeded")


async def _coroutine() -> str:
    return "never awaited"


async def _async_generator() -> AsyncIterator[int]:
    yield 1


def _generator() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("function", "message"),
    [
        pytest.param(
            lambda: {"rows": [{"rest": iter([1])}]},
            "returned an iterator, which is no JSON value, at path rows[0].rest: return a list of what it yields",
            id="iterator",
        ),
        pytest.param(
            lambda: _coroutine(),
            "returned a coroutine, which is no JSON value: declare the function with async def, "
            "and await what it calls",
            id="coroutine",
        ),
        pytest.param(
            _generator,
            "returned a generator, which is no JSON value: return a list of what it yields",
            id="generator",
        ),
        pytest.param(
            _async_generator,
            "returned an async generator, which is no JSON value: return a list of what it yields",
            id="async generator",
        ),
    ],
)
def test_a_value_without_json_form_is_a_failure(function: Function, message: str) -> None:
    assert failure_of(function) == ("tool.failed", message)


# --- taking too long ----------------------------------------------------------------------------------------------


class Hanging:
    """Functions that hang until they are released, each in another manner."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.notes: list[str] = []

    def blocking(self) -> str:
        self.released.wait(60)
        return "too late"

    async def polite(self) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            self.notes.append("cleaned up")

    async def deaf(self) -> None:
        while not self.released.is_set():
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                self.notes.append("ignored a cancellation")

    async def stone_deaf(self) -> None:
        while not self.released.is_set():
            try:
                await asyncio.sleep(3600)
            except BaseException as exc:
                self.notes.append(f"ignored {type(exc).__name__}")


async def other_tasks_ended() -> None:
    """Wait until all tasks but this one have ended."""
    this = asyncio.current_task()
    while others := {task for task in asyncio.all_tasks() if task is not this}:
        await asyncio.wait(others)


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    functions = Hanging()
    yield functions
    functions.released.set()
    gc.collect()


@pytest.mark.parametrize("kind", ["blocking", "polite", "deaf", "stone_deaf"])
@pytest.mark.parametrize(("tool", "shown"), [("look_up", "look_up"), (None, "m:f")], ids=["tool", "call state"])
def test_a_call_ends_at_its_timeout(hanging: Hanging, kind: str, tool: str | None, shown: str) -> None:
    functions = PythonFunctions({"m:f": getattr(hanging, kind)}, grace=0.0)
    with pytest.raises(ToolError) as caught:
        asyncio.run(functions.call(effect(timeout=0.02, tool=tool)))
    assert (caught.value.name, caught.value.message) == ("tool.timeout", f"{shown} took longer than 0.02 s")


@pytest.mark.parametrize(
    ("kind", "notes"),
    [
        ("polite", ["cleaned up"]),
        ("deaf", ["ignored a cancellation"]),
        ("stone_deaf", ["ignored CancelledError", "ignored GeneratorExit"]),
    ],
)
def test_a_function_is_cancelled_with_the_call_then_closed_by_force(
    hanging: Hanging, kind: str, notes: list[str]
) -> None:
    async def go() -> bool:
        functions = PythonFunctions({"m:f": getattr(hanging, kind)}, grace=0.0)
        task = asyncio.create_task(functions.call(effect(timeout=None)))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait((task,))
        await other_tasks_ended()  # asyncio.run would wait for them at its end
        return task.cancelled()

    assert asyncio.run(go())
    assert hanging.notes == notes


def test_a_cancelled_function_may_clean_up_with_awaits() -> None:
    done: list[str] = []

    async def thorough() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            done.append("closed")

    async def go() -> None:
        with pytest.raises(ToolError, match=r"tool.timeout"):
            await PythonFunctions({"m:f": thorough}).call(effect(timeout=0.01))
        await other_tasks_ended()

    asyncio.run(go())
    assert done == ["closed"]


def test_a_hung_thread_frees_its_slot(hanging: Hanging) -> None:
    async def go() -> list[JSON]:
        functions = PythonFunctions({"m:f": hanging.blocking}, CallPool(max_threads=2))
        hung = await asyncio.gather(*(functions.call(effect(timeout=0.02)) for _ in range(6)), return_exceptions=True)
        hanging.released.set()
        return [str(each) for each in hung] + [await functions.call(effect())]

    assert asyncio.run(go()) == ["tool.timeout: m:f took longer than 0.02 s"] * 6 + ["too late"]


def test_max_threads_limits_the_functions_that_run_at_once() -> None:
    running, most, lock = 0, 0, threading.Lock()
    together = threading.Barrier(3)

    def count() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait(10)
        with lock:
            running -= 1

    async def go() -> None:
        functions = PythonFunctions({"m:f": count}, CallPool(max_threads=3))
        await asyncio.gather(*(functions.call(effect()) for _ in range(9)))

    asyncio.run(go())
    assert most == 3


class Turns:
    """Functions, def and async, that wait until they are released, and count how many run at once."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self.lock = threading.Lock()
        self.released = threading.Event()
        self.entered = threading.Semaphore(0)

    def __enter__(self) -> None:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.entered.release()

    def __exit__(self, *exc: object) -> None:
        with self.lock:
            self.running -= 1

    def blocking(self) -> None:
        with self:
            assert self.released.wait(10)

    async def waiting(self) -> None:
        with self:
            await asyncio.to_thread(self.released.wait, 10)


def test_max_calls_limits_the_calls_of_both_kinds() -> None:
    turns = Turns()

    async def go() -> list[JSON]:
        functions = PythonFunctions({"m:f": turns.blocking, "m:g": turns.waiting}, CallPool(3))
        kinds = [msgspec.structs.replace(effect(timeout=None), entrypoint=name) for name in ("m:f", "m:g") * 4]
        calls = asyncio.gather(*map(functions.call, kinds))
        for _ in range(3):
            assert await asyncio.to_thread(turns.entered.acquire, timeout=10)
        turns.released.set()
        return await calls

    assert asyncio.run(go()) == [None] * 8
    assert turns.most == 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["blocking", "waiting"])
def test_a_tools_limit_holds_for_all_flows_of_a_pool_and_for_no_other_tool(kind: str) -> None:
    turns, others = Turns(), Turns()

    async def go() -> list[JSON]:
        pool = CallPool()
        bound = {"m:f": getattr(turns, kind), "m:g": getattr(others, kind)}
        flows = [PythonFunctions(bound, pool), PythonFunctions(bound, pool)]
        limited = [msgspec.structs.replace(effect(timeout=None), max_concurrency=most) for most in (2, 3)]
        free = msgspec.structs.replace(effect(timeout=None), entrypoint="m:g")
        calls = [flow.call(each) for flow, each in zip(flows, limited, strict=True) for _ in range(4)]
        calls += [flows[0].call(free) for _ in range(4)]
        running = asyncio.gather(*calls)
        for known, count in ((turns, 2), (others, 4)):
            for _ in range(count):
                assert await asyncio.to_thread(known.entered.acquire, timeout=10)
        turns.released.set()
        others.released.set()
        return await running

    assert asyncio.run(go()) == [None] * 12
    assert (turns.most, others.most) == (2, 4)


@pytest.mark.parametrize("kind", ["blocking", "waiting"])
def test_waiting_for_a_turn_does_not_count_against_the_timeout(kind: str) -> None:
    turns = Turns()

    async def go() -> list[JSON]:
        functions = PythonFunctions({"m:f": getattr(turns, kind), "m:g": greet_at_once}, CallPool(1))
        first = asyncio.create_task(functions.call(effect(timeout=None)))
        assert await asyncio.to_thread(turns.entered.acquire, timeout=10)
        hurried = msgspec.structs.replace(effect(arguments={"name": "Ada"}, timeout=0.001), entrypoint="m:g")
        second = asyncio.create_task(functions.call(hurried))
        await asyncio.wait((second,), timeout=0.05)
        turns.released.set()
        return [await first, await second]

    assert asyncio.run(go()) == [None, "Hello Ada."]


def test_a_call_that_timed_out_frees_its_turn(hanging: Hanging) -> None:
    async def go() -> list[str]:
        functions = PythonFunctions({"m:f": hanging.stone_deaf}, CallPool(1), grace=0.0)
        hung = await asyncio.gather(*(functions.call(effect(timeout=0.02)) for _ in range(3)), return_exceptions=True)
        return [str(each) for each in hung]

    assert asyncio.run(go()) == ["tool.timeout: m:f took longer than 0.02 s"] * 3


def test_waiting_for_a_thread_does_not_count_against_the_timeout() -> None:
    first = threading.Event()

    def slow_once() -> str:
        if not first.is_set():
            first.set()
            threading.Event().wait(0.6)
        return "done"

    async def go() -> list[JSON]:
        functions = PythonFunctions({"m:f": slow_once}, CallPool(max_threads=1))
        slow = asyncio.create_task(functions.call(effect(timeout=None)))
        await asyncio.to_thread(first.wait, 10)
        return [await functions.call(effect(timeout=0.5)), await slow]

    assert asyncio.run(go()) == ["done", "done"]


HANGS_AT_EXIT = """
import asyncio, sys, time
from flowrun.functions.python import CallPool, PythonFunctions
from flowrun.errors import ToolError
from flowrun.core.events import CallFunction

def blocking():
    time.sleep(3600)

async def deaf():
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

async def go():
    functions = PythonFunctions({"blocking": blocking, "deaf": deaf}, grace=0.1)
    for name in ("blocking", "deaf"):
        call = CallFunction(step=1, state="s", run="r", entrypoint=name, arguments={}, timeout=0.05)
        try:
            await functions.call(call)
        except ToolError as exc:
            print(exc)

asyncio.run(go())
"""


def test_functions_that_hang_do_not_block_the_exit() -> None:
    done = subprocess.run([sys.executable, "-c", HANGS_AT_EXIT], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "tool.timeout: blocking took longer than 0.05 s\ntool.timeout: deaf took longer than 0.05 s\n",
        "",
    )


def test_other_calls_continue_beside_a_bad_one() -> None:
    async def exit_soon() -> None:
        await asyncio.sleep(0)
        sys.exit(1)

    async def go() -> list[str]:
        functions = PythonFunctions({"m:f": exit_soon, "m:g": greet, "m:h": greet_at_once})
        good = effect(arguments={"name": "Ada"})
        calls = [effect(), *(msgspec.structs.replace(good, entrypoint=name) for name in ("m:g", "m:h"))]
        done = await asyncio.gather(*(functions.call(each) for each in calls), return_exceptions=True)
        return [str(each) for each in done]

    assert asyncio.run(go()) == ["tool.failed: SystemExit: 1", "Hello Ada.", "Hello Ada."]


def test_an_idle_thread_ends_after_a_while() -> None:
    from flowrun.functions.daemon_threads import DaemonThreads

    async def go() -> threading.Thread:
        threads = DaemonThreads(1, idle_seconds=0.01)
        used = await threads.run(threading.current_thread, timeout=None)
        await asyncio.to_thread(used.join, 10)
        assert await threads.run(threading.current_thread, timeout=None) is not used
        return used

    assert not asyncio.run(go()).is_alive()


def test_a_system_without_threads_left_is_a_failure_of_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    assert failure_of(greet, name="Ada") == (
        "tool.failed",
        "the system gives no thread to run it in: can't start new thread",
    )
