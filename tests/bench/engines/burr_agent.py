"""Apache Burr as its users write it: actions over an immutable State, transitions with a condition, nothing durable."""

from functools import cache
from typing import Any

import work
from burr.core import ApplicationBuilder, State, action, default, when
from burr.core.graph import Graph, GraphBuilder

_rounds = 0


@action(reads=["messages"], writes=["messages", "wants_tool"])
async def _ask(state: State) -> State:
    if await work.wants_tool(len(state["messages"]), _rounds):
        call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": work.ARGUMENTS}}
        return state.append(messages={"role": "assistant", "tool_calls": [call]}).update(wants_tool=True)
    return state.append(messages={"role": "assistant", "content": "done"}).update(wants_tool=False)


@action(reads=["messages"], writes=["messages"])
async def _act(state: State) -> State:
    for call in state["messages"][-1]["tool_calls"]:
        content = str(await work.add(**call["function"]["arguments"]))
        state = state.append(messages={"role": "tool", "tool_call_id": call["id"], "content": content})
    return state


@action(reads=[], writes=[])
async def _end(state: State) -> State:
    return state


@cache
def _graph() -> Graph:
    actions: dict[str, Any] = {"ask": _ask, "act": _act, "end": _end}
    transitions = [("ask", "act", when(wants_tool=True)), ("ask", "end", default), ("act", "ask")]
    return GraphBuilder().with_actions(**actions).with_transitions(*transitions).build()


async def converse(rounds: int) -> str:
    """Hold one conversation and return the answer."""
    global _rounds
    _rounds = rounds
    begun = {"messages": [{"role": "user", "content": "hi"}], "wants_tool": False}
    app = ApplicationBuilder().with_graph(_graph()).with_entrypoint("ask").with_state(**begun).build()
    _, _, state = await app.arun(halt_after=["end"])
    assert len(state["messages"]) == 2 * rounds + 2
    return str(state["messages"][-1]["content"])
