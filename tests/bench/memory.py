"""The memory of a live run that waits for a reply: the growth of the process, divided by the number of runs."""

import asyncio
import gc
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import msgspec

from flowrun.collector import calm_collector
from flowrun.core.events import AskModel
from flowrun.core.graph import Graph
from flowrun.core.messages import Message, Reply, ToolCall
from flowrun.core.ports import OnText
from flowrun.functions.python import PythonFunctions
from flowrun.runtime.runner import Runner
from tests.flows import ADD, AGENT, graph_of

_LIVE = (10_000, 100_000)
_ROUNDS = (0, 10)


def main() -> None:
    """Print the table; every figure is of a process of its own."""
    print("\nMemory of a live run that waits for a reply, bytes\n")
    print(f"{'':32} {'in all':>8} {'its messages':>13} {'besides':>8}")
    for rounds in _ROUNDS:
        for live in _LIVE:
            command = [sys.executable, "-m", "tests.bench.memory", str(rounds), str(live)]
            printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            whole, messages = map(int, printed.split())
            label = f"{live:,} runs, after {rounds} rounds"
            print(f"{label:32} {whole:8,} {messages:13,} {whole - messages:8,}")


@cache
def _graph() -> Graph:
    return graph_of(ADD, AGENT.replace("limits: {max_rounds: 3, max_steps: 20}", "limits: {timeout: 1h}"))


async def _add(a: int, b: int) -> int:
    return a + b


class _Gate:
    """A model that calls a tool in the first rounds, then makes every run wait until the gate is opened."""

    def __init__(self, rounds: int, live: int) -> None:
        self.open = asyncio.Event()
        self.full = asyncio.Event()
        self.concurrency: int | None = None
        self.seen: list[Sequence[Message]] = []
        self._rounds = rounds
        self._live = live
        self._waiting = 0

    async def start(self) -> None:
        """Do nothing."""

    async def stop(self) -> None:
        """Do nothing."""

    async def reply(self, request: AskModel, *, on_text: OnText | None = None) -> Reply:
        number = len(request.messages) // 2
        if number < self._rounds:
            call = ToolCall(id="", name="add", arguments=f'{{"a": {number}, "b": {hash(request.run) % 1000}}}')
            return Reply(tool_calls=(call,), finish_reason="tool_calls")
        self._waiting += 1
        if self._waiting <= 2:
            self.seen.append(request.messages)
        if self._waiting == self._live:
            self.full.set()
        await self.open.wait()
        return Reply(content="done")


async def _measure(rounds: int, live: int) -> tuple[int, int]:
    await _hold(rounds, 20)
    calm_collector()
    return await _hold(rounds, live)


async def _hold(rounds: int, live: int) -> tuple[int, int]:
    """Hold so many runs at the gate, and return the bytes that each of them takes, and those of its messages."""
    gate = _Gate(rounds, live)
    runner = Runner(backends={"default": gate}, functions=PythonFunctions({"tools.numbers:add": _add}))
    before = _resident()
    runs = [
        asyncio.create_task(runner.run(_graph(), {"question": f"{number}?"}, run_id=f"r{number}"))
        for number in range(live)
    ]
    await gate.full.wait()
    grown = _resident() - before
    messages = _size_of_own(*gate.seen)
    gate.open.set()
    for result in await asyncio.gather(*runs):
        assert result.run.status == "succeeded", result.run.outcome
        assert len(result.run.threads["main"]) == 2 * rounds + 2
    return grown // live, messages


def _resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _size_of_own(messages: Sequence[Message], others: Sequence[Message]) -> int:
    """Return the size of the objects of messages, without those shared with another run."""
    shared = {id(part) for message in others for part in _parts(message)}
    own = {id(part): part for message in messages for part in _parts(message) if id(part) not in shared}
    return sum(map(sys.getsizeof, own.values()))


def _parts(value: object) -> Iterator[object]:
    yield value
    members = msgspec.structs.astuple(value) if isinstance(value, msgspec.Struct) else value
    if isinstance(members, tuple):
        for member in members:
            yield from _parts(member)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        print(*asyncio.run(_measure(int(sys.argv[1]), int(sys.argv[2]))))
