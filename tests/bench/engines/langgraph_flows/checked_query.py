"""Answers questions about a SQLite database. A second look at each query finds common mistakes before it runs."""

import json
from datetime import timedelta
from typing import Annotated

from langchain.agents import create_agent
from langchain.agents.middleware import ToolErrorMiddleware, before_model
from langchain.tools import ToolRuntime, tool
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command

from tools.shop import describe_table, list_tables, query

EXPLORE = (
    "You answer questions about a shop's SQLite database. Look at the tables first, then propose a query. "
    "Answer in one sentence."
)
CHECK = (
    "You check queries of SQLite for common mistakes: NOT IN with NULL, UNION for UNION ALL, wrong columns in joins, "
    "wrong types, wrong quotes. Answer with the query, corrected or as it is, and nothing else."
)


@before_model(can_jump_to=["end"])
def give_up(state, runtime):
    rounds = sum(message.type == "ai" for message in state["messages"])
    if rounds >= 12:
        return {"jump_to": "end", "messages": [AIMessage(f"I found no answer in {rounds} rounds.")]}
    return None


def build(model, checkpointer):
    @tool
    def propose_query(sql: Annotated[str, "One SELECT of SQLite"], runtime: ToolRuntime) -> Command:
        """Propose the query that answers the question. It is checked, then run, and its rows come as the next message."""  # noqa: E501
        checked = model.invoke([SystemMessage(CHECK), HumanMessage(sql)]).content
        try:
            found = f"The rows of {checked}: {json.dumps(query(checked))}"
        except Exception as error:
            found = f"The query {checked} failed: {type(error).__name__}: {error}"
        said = ToolMessage("The query is checked.", tool_call_id=runtime.tool_call_id)
        return Command(update={"messages": [said, HumanMessage(found)]})

    errors = ToolErrorMiddleware(lambda error, request: f"error: {error}")
    tools = [list_tables, describe_table, propose_query]
    agent = create_agent(model, tools, system_prompt=EXPLORE, middleware=[give_up, errors])
    graph = StateGraph(MessagesState)
    graph.add_node("agent", agent, timeout=timedelta(minutes=2))
    graph.add_edge(START, "agent")
    return graph.compile(checkpointer=checkpointer)
