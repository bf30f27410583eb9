"""An agent that asks the user back, by a tool, when a question cannot be answered without more."""

from typing import Annotated

from langchain.agents import create_agent
from langchain.agents.middleware import ModelCallLimitMiddleware
from langchain.tools import ToolRuntime, tool
from langchain_core.messages import HumanMessage, ToolMessage
from langgraph.types import Command, interrupt
from pydantic import Field

PROMPT = (
    "You answer questions about parcels: up to 2 kg cost 5 euros, up to 10 kg cost 9 euros. Ask the user for what you "
    "need to know, one question at a time, then answer in one sentence."
)


@tool
def ask_user(question: Annotated[str, "One short question"], runtime: ToolRuntime) -> Command:
    """Ask the user for what is missing. The answer comes as the user's next message."""
    answer = interrupt(question, response_schema=Annotated[str, Field(min_length=1)])
    asked = ToolMessage(f"The user is asked: {question}", tool_call_id=runtime.tool_call_id)
    return Command(update={"messages": [asked, HumanMessage(answer)]})


def build(model, checkpointer):
    limit = ModelCallLimitMiddleware(run_limit=8, exit_behavior="error")
    return create_agent(model, [ask_user], system_prompt=PROMPT, middleware=[limit], checkpointer=checkpointer)
