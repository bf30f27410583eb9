"""LangGraph as its users write it: a StateGraph with add_messages, ToolNode and tools_condition, nothing durable."""

from functools import cache
from typing import Annotated, Any, TypedDict

import work
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langgraph.graph import START, StateGraph, add_messages
from langgraph.prebuilt import ToolNode, tools_condition

_rounds = 0


class State(TypedDict):
    """The state of a conversation."""

    messages: Annotated[list[Any], add_messages]


async def _ask(state: State) -> dict[str, Any]:
    if await work.wants_tool(len(state["messages"]), _rounds):
        return {"messages": [AIMessage("", tool_calls=[{"name": "add", "args": work.ARGUMENTS, "id": "c1"}])]}
    return {"messages": [AIMessage("done")]}


def _graph() -> Any:
    graph = StateGraph(State)
    graph.add_node("ask", _ask)
    graph.add_node("tools", ToolNode([tool(work.add)]))
    graph.add_conditional_edges("ask", tools_condition)
    graph.add_edge(START, "ask")
    graph.add_edge("tools", "ask")
    return graph


@cache
def _app() -> Any:
    return _graph().compile()


async def converse(rounds: int) -> str:
    """Hold one conversation and return the answer."""
    global _rounds
    _rounds = rounds
    out = await _app().ainvoke({"messages": [HumanMessage("hi")]}, {"recursion_limit": 10**6})
    assert len(out["messages"]) == 2 * rounds + 2
    return str(out["messages"][-1].content)
