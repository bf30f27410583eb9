"""A call's first step runs at once in a task of its own; the function sees the same task in all its steps."""

import asyncio
import contextvars
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from flowrun.core.events import CallFunction
from flowrun.errors import ToolError
from flowrun.functions.python import PythonFunctions
from flowrun.spec.model import JSON

Function = Callable[[], Coroutine[Any, Any, Any]]


class Calls:
    """A caller of functions, one after another, from one task."""

    def __init__(self, **functions: Function) -> None:
        self._functions = PythonFunctions(functions)

    async def __call__(self, name: str, *, timeout: float | None = None) -> JSON:
        call = CallFunction(step=1, state="s", run="r1", entrypoint=name, arguments={}, timeout=timeout)
        try:
            return await self._functions.call(call)
        except ToolError as exc:
            return str(exc)


def this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


class Noting:
    """Functions that note their current task."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[Any]] = []

    async def at_once(self) -> None:
        self.tasks.append(this_task())

    async def waiting(self) -> None:
        self.tasks.append(this_task())
        for _ in range(3):
            await asyncio.sleep(0)
            self.tasks.append(this_task())


def test_a_function_that_does_not_wait_ends_before_the_loop_continues() -> None:
    async def go() -> list[str]:
        notes: list[str] = []

        async def note() -> None:
            notes.append("called")

        asyncio.get_running_loop().call_soon(notes.append, "loop")
        await Calls(f=note)("f")
        return list(notes)

    assert asyncio.run(go()) == ["called"]


def test_a_function_that_waits_has_one_task_from_its_first_step_to_its_last() -> None:
    noting = Noting()
    asyncio.run(Calls(f=noting.waiting)("f"))
    assert len(noting.tasks) == 4
    assert len(set(noting.tasks)) == 1


@pytest.mark.parametrize(
    ("names", "tasks"),
    [
        pytest.param("aaa", 1, id="none of them waits"),
        pytest.param("aawaa", 2, id="one waits in the task"),
        pytest.param("ww", 2, id="all wait"),
    ],
)
def test_the_caller_has_its_own_task_and_waiting_calls_share_none(names: str, tasks: int) -> None:
    noting = Noting()

    async def go() -> None:
        caller, calls = this_task(), Calls(a=noting.at_once, w=noting.waiting)
        for name in names:
            await calls(name)
            assert this_task() is caller
        assert caller not in noting.tasks

    asyncio.run(go())
    assert len(set(noting.tasks)) == (len(names) if sys.version_info >= (3, 12) else tasks)


def test_calls_of_many_callers_do_not_mix() -> None:
    variable = contextvars.ContextVar("variable", default=-1)

    async def read_wait_and_read() -> list[int]:
        seen = [variable.get()]
        variable.set(seen[0] * 10)
        await asyncio.sleep(0)
        return [*seen, variable.get()]

    async def go() -> list[JSON]:
        calls = Calls(f=read_wait_and_read)

        async def call(number: int) -> JSON:
            variable.set(number)
            value = await calls("f")
            return [value, variable.get()]

        return await asyncio.gather(*map(call, range(1, 4)))

    assert asyncio.run(go()) == [[[1, 10], 1], [[2, 20], 2], [[3, 30], 3]]


async def timed_out() -> str:
    try:
        async with asyncio.timeout(0):
            await asyncio.sleep(3600)
    except TimeoutError:
        return "timed out"
    return "slept"


async def group_failed() -> str:
    async def fail() -> None:
        raise ValueError("no")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            await asyncio.sleep(3600)
    except* ValueError:
        pass
    return "group failed"


async def cancelled_before_its_first_wait() -> str:
    this_task().cancel()
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        this_task().uncancel()
    return "went on"


async def cancelled_at_its_end() -> str:
    await asyncio.sleep(0)
    this_task().cancel()
    return "over"


@pytest.mark.parametrize(
    ("function", "value"),
    [
        (cancelled_at_its_end, "over"),
        (timed_out, "timed out"),
        (group_failed, "group failed"),
        (cancelled_before_its_first_wait, "went on"),
    ],
    ids=["cancelled at its end", "timeout", "task group", "its own cancellation"],
)
def test_features_that_need_the_current_task_work(function: Function, value: str) -> None:
    async def go() -> list[JSON]:
        calls = Calls(f=function)
        return [await calls("f"), await calls("f")]

    assert asyncio.run(go()) == [value, value]


async def cancels_itself() -> None:
    this_task().cancel()


async def names_itself() -> None:
    this_task().set_name("mine")


async def is_listened_to() -> None:
    this_task().add_done_callback(lambda task: None)


@pytest.mark.parametrize("function", [cancels_itself, names_itself, is_listened_to])
def test_a_task_that_was_changed_is_not_used_again(function: Function) -> None:
    noting = Noting()

    async def go() -> list[JSON]:
        calls = Calls(a=noting.at_once, f=function)
        values = [await calls("a"), await calls("f"), await calls("a")]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert all(task.done() for task in noting.tasks)
        return values

    assert asyncio.run(go()) == [None, None, None]
    assert len(set(noting.tasks)) == 2


def test_a_call_that_times_out_before_its_task_runs_is_cancelled() -> None:
    notes: list[str] = []

    async def long() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            notes.append("cancelled")
            raise

    async def go() -> JSON:
        value = await Calls(f=long)("f", timeout=0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return value

    assert asyncio.run(go()) == "tool.timeout: f took longer than 0 s"
    assert notes == ["cancelled"]


def test_a_function_may_call_others_in_its_first_step() -> None:
    noting = Noting()

    async def outer() -> JSON:
        await noting.at_once()
        return [await calls("a"), await calls("w"), await calls("a"), this_task() is noting.tasks[0]]

    async def go() -> JSON:
        return await calls("outer")

    calls = Calls(a=noting.at_once, w=noting.waiting, outer=outer)
    assert asyncio.run(go()) == [None, None, None, True]
    outers, *others = noting.tasks
    assert outers not in others


def test_no_task_is_left_behind() -> None:
    async def go() -> set[asyncio.Task[Any]]:
        await Calls(f=Noting().at_once)("f")
        await asyncio.sleep(0)
        return asyncio.all_tasks() - {this_task()}

    assert asyncio.run(go()) == set()
