"""Holds a conversation with one of these programs, by the replies and answers of a spec's test."""

import asyncio
from importlib import import_module
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, convert_to_openai_messages
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, Interrupt
from pydantic import Field


class ScriptedModel(BaseChatModel):
    """A chat model that replies from a list, and keeps what it read: the tools by name, and the messages."""

    replies: list[dict[str, Any]]
    requests: list[tuple[dict[str, str], list[dict[str, Any]]]] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        functions = [convert_to_openai_tool(tool)["function"] for tool in tools]
        return self.bind(tools={function["name"]: function["description"] for function in functions})

    def _generate(self, messages: list[BaseMessage], *_: Any, tools: Any = None, **__: Any) -> ChatResult:
        self.requests.append((tools or {}, convert_to_openai_messages(messages)))
        reply = self.replies[0] if self.replies[0].get("repeat") else self.replies.pop(0)
        message = _as_message(reply, len(self.requests))
        return ChatResult(generations=[ChatGeneration(message=message)])


def _as_message(reply: dict[str, Any], number: int) -> AIMessage:
    """Return a reply in the form of a spec's test as LangChain has it; a decision is a call of the form ``Choice``."""
    calls = reply.get("tool_calls", ())
    if probabilities := reply.get("probabilities"):
        calls = [{"name": "Choice", "arguments": {"choice": max(probabilities, key=probabilities.get)}}]
    return AIMessage(
        reply.get("content", ""),
        tool_calls=[
            {"id": f"call_{number}_{index}", "name": call["name"], "args": call.get("arguments", {})}
            for index, call in enumerate(calls)
        ],
    )


def converse(
    name: str, inputs: dict[str, Any], replies: list[Any], answers: list[Any]
) -> tuple[dict[str, Any], list[Any]]:
    """Return the state in which a conversation ends or waits, and the requests that the model got."""
    model = ScriptedModel(replies=list(replies))
    graph = import_module(f"tests.bench.engines.langgraph_flows.{name}").build(model, InMemorySaver())
    return asyncio.run(_invoke(graph, inputs, list(answers))), model.requests


async def _invoke(graph: Any, inputs: Any, answers: list[Any]) -> dict[str, Any]:
    config = {"configurable": {"thread_id": "1"}}
    state = await graph.ainvoke(inputs, config)
    while (asked := state.get("__interrupt__")) and answers:
        resume = {each.id: _as_answer(each, answers.pop(0)) for each in asked}
        state = await graph.ainvoke(Command(resume=resume), config)
    return state


def _as_answer(asked: Interrupt, answer: Any) -> Any:
    """Return an answer in the form of a spec's test as LangGraph has it: that to an approval is a decision."""
    match asked.value, answer:
        case {"type": "tool_approval", "name": name}, {"ok": True, "arguments": arguments}:
            return {"type": "edit", "edited_action": {"name": name, "args": arguments}}
        case {"type": "tool_approval"}, {"ok": True}:
            return {"type": "approve"}
        case {"type": "tool_approval"}, {"ok": False}:
            return {"type": "reject", "message": answer.get("reason", "")}
    return answer
