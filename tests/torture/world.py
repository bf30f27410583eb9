"""The model and the tools of the torture test, which record their work in a file that survives each crash.

The flow has a decision, a map of child runs with an agent, parallel calls, calls in threads, an idempotent tool and
others, retries, a pause and a race. Its output depends only on its inputs, so that a disturbed run can be compared
with an undisturbed one.
"""

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from flowrun.backends.scripted import ScriptedBackend
from flowrun.core.events import AskModel, CallFunction
from flowrun.core.graph import Graph
from flowrun.core.messages import Message, Reply, ToolCall
from flowrun.core.ports import Journal
from flowrun.core.tool_context import current_call
from flowrun.errors import ToolError
from flowrun.functions.python import PythonFunctions
from flowrun.runtime.runner import AssumeDone, CallAgain, Resolve, Runner
from tests.flows import graph_of

COUNT: Final = 200
RUNS: Final = {f"run{number:03}": number for number in range(COUNT)}
"""The runs, and the input of each."""

_PARAMETERS = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
_FLOW = """
tools: TOOLS
inputs: {n: {type: integer}}
messages: [{role: user, content: "{{ inputs.n }}"}]
threads: {notes: []}
flows:
  part:
    inputs: {n: {type: integer}, notes: {type: array}}
    tools: TOOLS
    messages: [{role: user, content: "{{ inputs.n }}"}, {from: inputs.notes}]
    states:
      look:
        type: agent
        system: Look.
        history: {last: 4}
        max_rounds: 4
        timeout: 1h
        retry: {max_attempts: 2}
        next: e
      e: {type: end, output: "{{ reply.content }}"}
  swift:
    inputs: {swift: {type: boolean}}
    states: {nap: {type: pause, for: 2ms, next: e}, e: {type: end, output: "{{ inputs.swift }}"}}
  slow:
    inputs: {slow: {type: boolean}}
    states: {nap: {type: pause, for: 1h, next: e}, e: {type: end, output: "{{ inputs.slow }}"}}
states:
  ask: {type: chat, routes: [{when: reply.tool_calls, to: act}, {to: pick}]}
  act: {type: tools, next: ask}
  pick:
    type: decide
    prompt: Is it even?
    choices: {even: "{{ inputs.n }} is", odd: ""}
    retry:
      max_attempts: 2
      errors: [model.invalid_output]
      feedback: "No letter: {{ error.reply.content }}"
      delay: "{{ error.attempt }}ms"
      jitter: 0
    say:
      - thread: notes
        replace: true
        messages: [{for_each: "[1, 2]", as: k, messages: [{role: user, content: "{{ inputs.n }}.{{ k }}"}]}]
    routes: [{when: outputs.pick.probabilities.even > 0.5, to: many}, {to: many}]
  many:
    type: map
    flow: "#part"
    for_each: "[inputs.n + 1000, inputs.n + 2000]"
    as: n
    with: {n: "{{ n }}", notes: "{{ threads.notes }}"}
    next: settle
  settle:
    type: call
    entrypoint: "tools.world:settle"
    with: {n: "{{ inputs.n }}"}
    retry: {max_attempts: 3, delay: 1ms, jitter: 0}
    say: [{role: user, content: "{{ outputs.settle }}"}]
    next: rest
  rest: {type: pause, for: "{{ inputs.n % 3 }}ms", next: race}
  race:
    type: parallel
    until: first
    branches: {slow: {flow: "#slow", with: {slow: true}}, swift: {flow: "#swift", with: {swift: true}}}
    next: done
  done:
    type: end
    output:
      said: "{{ reply.content }}"
      picked: "{{ outputs.pick }}"
      parts: "{{ outputs.many }}"
      settled: "{{ outputs.settle }}"
      first: "{{ outputs.race }}"
      heard: ["{{ threads.main[-1].content }}", "{{ threads.main | length }}", "{{ threads.notes }}"]
"""
_CALLS = ((("pay", 0), ("note", 1)), (("stamp", 2), ("pay", 3)))
"""The tools that the model calls in a run's first rounds, each with the number added to that of the run."""


_PICK = 6
"""The step in which a run decides, at its first attempt."""


@cache
def graph(*, all_idempotent: bool = False) -> Graph:
    """Return the flow; ``note`` is idempotent, or all tools are."""
    always = {"pay": all_idempotent, "stamp": all_idempotent, "note": True}
    tools = {
        name: {"entrypoint": f"tools.world:{name}", "description": name, "parameters": _PARAMETERS, "idempotent": yes}
        for name, yes in always.items()
    }
    call = "    type: call\n"
    flow = _FLOW.replace(call, f"{call}    idempotent: true\n") if all_idempotent else _FLOW
    return graph_of(flow.replace("TOOLS", msgspec.json.encode(tools).decode()))


class Line(msgspec.Struct, frozen=True, array_like=True):
    """A record of work, in one life of one process.

    A round (``ask``) is identified by its run and step, a call (``begin`` before its work, ``end`` after it) by its
    run, idempotency key and attempt. ``done`` and ``again`` are the resolutions of an in-doubt call.
    """

    life: int
    pid: int
    what: Literal["ask", "begin", "end", "done", "again"]
    run: str
    step: int
    key: str
    attempt: int
    tool: str
    value: int | None = None

    @property
    def place(self) -> tuple[str, int, int]:
        """The run, step and index of a round or a call, as in its events."""
        return self.run, self.step, int(self.key.rpartition("/")[2] or 0)


class Ledger:
    """A file of records, each appended as one line by one write."""

    def __init__(self, path: Path, *, life: int) -> None:
        self._life = life
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._read = 0
        self._ends: dict[tuple[str, int], int] = {}

    def asked(self, request: AskModel) -> None:
        """Record a request to the model."""
        self._write("ask", request.run, request.step)

    def write(self, what: Literal["begin", "end"], call: CallFunction | Any, value: int | None = None) -> None:
        """Record the begin or end of a call; ``call`` is its tool context."""
        step = int(call.key.split("/")[1]) + call.attempt - 1
        self._write(what, call.run, step, call.key, call.attempt, call.tool or "settle", value)

    def resolve(self, call: CallFunction) -> AssumeDone | CallAgain:
        """Resolve an in-doubt call from the ledger, as a person who can look up its result."""
        for line in self._news():
            if line.what == "end" and line.value is not None:
                self._ends[line.key, line.attempt] = line.value
        value = self._ends.get((call.key, call.attempt))
        what: Literal["done", "again"] = "again" if value is None else "done"
        self._write(what, call.run, call.step, call.key, call.attempt, call.tool or "settle", value)
        return CallAgain() if value is None else AssumeDone(value)

    def _write(
        self, what: Any, run: str, step: int, key: str = "", attempt: int = 1, tool: str = "", value: int | None = None
    ) -> None:
        line = Line(self._life, os.getpid(), what, run, step, key, attempt, tool, value)
        os.write(self._file, msgspec.json.encode(line) + b"\n")

    def _news(self) -> Iterator[Line]:
        data = os.pread(self._file, os.fstat(self._file).st_size - self._read, self._read)
        self._read += len(data)
        return map(msgspec.json.Decoder(Line).decode, data.splitlines())


def read_ledger(path: Path) -> list[Line]:
    """Return the records so far, in order."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [msgspec.json.decode(line, type=Line) for line in lines]


class Fuse:
    """Kills this process after ``left`` calls of ``burn``; never if that is None."""

    def __init__(self, left: int | None) -> None:
        self._left = left

    def burn(self) -> None:
        """Count down, and kill this process at 0."""
        if self._left is not None:
            self._left -= 1
            if self._left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)


class World:
    """The model and the tools, which record their work in a ledger."""

    def __init__(self, ledger: Ledger | None, *, fuse: Fuse | None = None, pauses: random.Random | None = None) -> None:
        self._ledger = ledger
        self._fuse = fuse or Fuse(None)
        self._pauses = pauses

    def runner(self, journal: Journal | None, *, resolve: Resolve | None = None) -> Runner:
        """Return a runner that runs flows in this world."""
        tools = {"pay": self.pay, "note": self.note, "stamp": self.stamp, "settle": self.settle}
        return Runner(
            backends={"default": ScriptedBackend.from_function(self.reply, record=False)},
            functions=PythonFunctions({f"tools.world:{name}": tool for name, tool in tools.items()}),
            journal=journal,
            resolve=resolve,
        )

    async def pay(self, n: int) -> int:
        return await self._work(lambda: 3 * n + 1)

    async def note(self, n: int) -> int:
        return await self._work(lambda: 5 * n + 2)

    async def settle(self, n: int) -> int:
        """Fail at the first attempt for some inputs, so that the state is retried."""
        return await self._work(partial(_settled, n, current_call().attempt))

    def stamp(self, n: int) -> int:
        """Work in a thread."""
        value = 7 * n + 3
        self._begin()
        time.sleep(self._pause())
        self._end(value)
        return value

    async def _work(self, work: Callable[[], int]) -> int:
        self._begin()
        await asyncio.sleep(self._pause())
        value = work()
        self._end(value)
        return value

    def _begin(self) -> None:
        if self._ledger is not None:
            self._ledger.write("begin", current_call())
        self._fuse.burn()

    def _end(self, value: int) -> None:
        if self._ledger is not None:
            self._ledger.write("end", current_call(), value)
        self._fuse.burn()

    def _pause(self) -> float:
        return self._pauses.random() * 0.003 if self._pauses is not None else 0.0

    def reply(self, request: AskModel) -> Reply:
        """Call tools in the first rounds, then return the sum of their results."""
        if self._ledger is not None:
            self._ledger.asked(request)
        self._fuse.burn()
        number = int(_texts(request, "user")[0])
        if request.labels:
            return _picked(number, request)
        rounds = sum(1 for message in request.messages if message.role == "assistant")
        calls = _CALLS if number < 1000 else ((("pay", 0),),)
        if rounds < len(calls):
            return Reply(tool_calls=tuple(_call(name, number + more) for name, more in calls[rounds]))
        return Reply(content=str(sum(map(int, _texts(request, "tool")))))


def _picked(n: int, request: AskModel) -> Reply:
    """Decide whether a number is even; for some numbers the first attempt, in the run's sixth step, decides nothing.

    The mass of the decision shows whether the model was told what was wrong.
    """
    if n % 5 == 0 and request.step == _PICK:
        return Reply(content="Hm.")
    mass = 0.25 if _texts(request, "user")[-1] == "No letter: Hm." else 0.5
    return Reply(probabilities={"even": 0.75, "odd": 0.25} if n % 2 == 0 else {"even": 0.125, "odd": 0.875}, mass=mass)


def _settled(n: int, attempt: int) -> int:
    if n % 3 == 0 and attempt == 1:
        raise ToolError("tool.failed", "not yet")
    return 11 * n + attempt


def _texts(request: AskModel, role: str) -> list[str]:
    return [_text(message) for message in request.messages if message.role == role]


def _text(message: Message) -> str:
    assert message.content is not None
    return message.content


def _call(name: str, n: int) -> ToolCall:
    return ToolCall(id="", name=name, arguments=msgspec.json.encode({"n": n}).decode())
