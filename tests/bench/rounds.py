"""``python -m tests.bench.rounds``: the CPU time that a round on vLLM costs in our process, milliseconds.

The engine has a process of its own; what ours does for a round counts where the engine is quick, or processors are
few. The conversations are those of ``engines/rounds.yaml``, all at once, with the tiny model. The parts are measured in
other passes than the whole, as measuring them costs too.
"""

import asyncio
import os
import sys
import time
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import zmq.asyncio
from vllm.v1.engine.async_llm import AsyncLLM

from flowrun.backends.vllm.chat import VllmChat
from flowrun.collector import calm_collector
from flowrun.runtime.project import CompiledFlow, Project
from flowrun.runtime.session import Session
from tests.bench.batch_modes import ENGINES, ENVIRON
from tests.bench.engines import conversations as work
from tests.bench.tiny_llama import write_tiny_llama

_CONVERSATIONS = 64
_PASSES = 8
_OUTPUTS = "taking the engine's outputs"
_TAKING = ("process_outputs_socket", "output_handler")
"""vLLM's two tasks that take what the engine sends: a message for each of its steps."""


def main() -> None:
    """Print the table."""
    os.environ |= ENVIRON
    sys.path.insert(0, str(ENGINES))
    with TemporaryDirectory() as folder:
        os.environ["FLOWRUN_BENCH_MODEL"] = str(write_tiny_llama(Path(folder) / "tiny"))
        flow = Project(environ=os.environ).compile(ENGINES / "rounds.yaml")
        asyncio.run(_measure(flow))


async def _measure(flow: CompiledFlow) -> None:
    calm_collector()
    parts = _Parts()
    asyncio.get_running_loop().set_task_factory(parts.make_task)
    async with Session() as session:
        await _hold(session, flow, first=0)  # what is made at the first request
        whole = [await _hold(session, flow, first=_CONVERSATIONS * number) for number in range(1, _PASSES + 1)]
        parts.begin()
        with_parts = []
        for number in range(_PASSES + 1, 2 * _PASSES + 1):
            parts.clear()
            seconds = await _hold(session, flow, first=_CONVERSATIONS * number)
            with_parts.append((seconds, dict(parts.seconds)))
    rounds = _CONVERSATIONS * work.ROUNDS
    print(f"\nCPU time of a round in our process, milliseconds (least of {_PASSES} passes of {rounds} rounds)\n")
    print(f"{'the whole':50} {min(whole) / rounds * 1e3:6.2f}")
    for name in parts.seconds:
        print(f"  {name:48} {min(one[name] for _, one in with_parts) / rounds * 1e3:6.2f}")
    rest = min(seconds - sum(one.values()) for seconds, one in with_parts)
    print(f"  {'the rest: event loop, driver, batch':48} {rest / rounds * 1e3:6.2f}")
    print(f"\nThe engine sent {parts.messages / rounds / _PASSES:.1f} messages a round.")


async def _hold(session: Session, flow: CompiledFlow, *, first: int) -> float:
    """Hold conversations at once; return the CPU seconds of this process."""
    rows = [{"conversation": first + number} for number in range(_CONVERSATIONS)]
    begun = time.process_time()
    async for result in session.batch(flow, rows):
        result.raise_for_status()
    return time.process_time() - begun


class _Parts:
    """The CPU seconds of parts of a round, by wrapping their functions: what they await is not counted."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.messages = 0
        self._begun = False

    def begin(self) -> None:
        """Wrap the functions."""
        self._begun = True
        self._wrap(VllmChat, "render", "rendering the prompt")
        self._wrap(AsyncLLM, "add_request", "handing the request to the engine")
        self._wrap(zmq.asyncio.Socket, "_handle_events", _OUTPUTS)
        self._wrap(VllmChat, "read", "reading the reply")

    def make_task(self, loop: asyncio.AbstractEventLoop, work: Any, **kwargs: Any) -> "asyncio.Task[Any]":
        """Make a task; those of vLLM that take what the engine sends are counted from ``begin`` on."""
        name = work.__qualname__.rpartition(".")[2]
        if name in _TAKING:
            work = _drive(_Counted(work, partial(self._count_output, messages=int(name == _TAKING[0]))))
        return asyncio.Task(work, loop=loop, **kwargs)

    def _count_output(self, seconds: float, *, messages: int) -> None:
        if self._begun:
            self.seconds[_OUTPUTS] += seconds
            self.messages += messages

    def clear(self) -> None:
        """Begin to count anew."""
        self.seconds = dict.fromkeys(self.seconds, 0.0)

    def _wrap(self, owner: type, name: str, part: str) -> None:
        self.seconds.setdefault(part, 0.0)
        original: Callable[..., Any] = getattr(owner, name)

        def count(seconds: float) -> None:
            self.seconds[part] += seconds

        @wraps(original)
        def counted(*args: Any, **kwargs: Any) -> Any:
            begun = time.thread_time()
            try:
                made = original(*args, **kwargs)
            finally:
                count(time.thread_time() - begun)
            return _Counted(made, count) if asyncio.iscoroutine(made) else made

        setattr(owner, name, counted)


async def _drive(counted: "_Counted") -> Any:
    return await counted


class _Counted:
    """An awaitable whose steps are counted."""

    def __init__(self, work: Any, count: Callable[[float], None]) -> None:
        self._work = work
        self._count = count

    def __await__(self) -> Any:
        steps = self._work.__await__()
        value = None
        while True:
            begun = time.thread_time()
            try:
                waited = steps.send(value)
            except StopIteration as end:
                return end.value
            finally:
                self._count(time.thread_time() - begun)
            value = yield waited


if __name__ == "__main__":
    main()
