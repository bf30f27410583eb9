"""A model may pay money back, but a person sees each call before it is made, and may edit it or refuse."""

import json
import operator
from typing import Annotated

from langchain.agents import AgentState, create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware, ToolErrorMiddleware, wrap_model_call
from langchain.tools import ToolRuntime, tool
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.types import Command
from pydantic import Field

from tools.payments import pay_back

EXAMPLES = [
    HumanMessage("The cup has a crack. Please pay 15 back."),
    AIMessage("", tool_calls=[{"id": "1", "name": "refund", "args": {"amount": 15}}]),
    ToolMessage('{"entry": 1, "order_id": 12, "amount": 15}', tool_call_id="1"),
    AIMessage("We have paid 15 back to you."),
    HumanMessage("I never got the books. Please pay 240 back."),
    AIMessage("", tool_calls=[{"id": "2", "name": "refund", "args": {"amount": 240}}]),
    ToolMessage('{"entry": 2, "order_id": 13, "amount": 240}', tool_call_id="2"),
    AIMessage("We have paid 240 back to you."),
]
Amount = Annotated[int, Field(ge=1, le=1000, description="How much is paid back")]


class State(AgentState):
    order_id: int
    paid: Annotated[int, operator.add]


@tool
def refund(amount: Amount, runtime: ToolRuntime) -> Command:
    """Pay money back to the customer"""
    entry = pay_back(runtime.state["order_id"], amount)
    result = ToolMessage(json.dumps(entry), tool_call_id=runtime.tool_call_id)
    return Command(update={"messages": [result], "paid": entry["amount"]})


@wrap_model_call
async def pay_then_answer(request, handler):
    choice = {"tools": []} if request.messages[-1].type == "tool" else {"tool_choice": "refund"}
    return await handler(request.override(messages=EXAMPLES + request.messages, **choice))


def describe(call, state, runtime):
    return f"Order {state['order_id']}. The customer wrote: {state['messages'][0].content}"


def build(model, checkpointer):
    asked = {"allowed_decisions": ["approve", "edit", "reject"], "description": describe}
    approval = HumanInTheLoopMiddleware({"refund": asked}, interrupt_mode="per_call")
    errors = ToolErrorMiddleware(lambda error, request: f"error: {error}")
    middleware = [pay_then_answer, approval, errors]
    return create_agent(model, [refund], state_schema=State, middleware=middleware, checkpointer=checkpointer)
