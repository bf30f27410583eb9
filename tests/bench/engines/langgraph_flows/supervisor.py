"""A supervisor chooses who works next. The workers read the conversation, and report to it."""

from pathlib import Path
from typing import Literal

from jinja2 import Template
from langchain_core.messages import HumanMessage, SystemMessage, trim_messages
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command
from pydantic import BaseModel, Field

PROMPTS = Path(__file__).parents[4] / "specs" / "prompts"
LEAD = SystemMessage((PROMPTS / "supervisor.md").read_text().strip())
TOPICS = {"topics": ["keyboards", "switches", "prices"]}
RESEARCHER = SystemMessage(Template((PROMPTS / "researcher.md").read_text()).render(inputs=TOPICS))
WORK = {"researcher": "research", "writer": "write", "done": END}
trim = trim_messages(max_tokens=8, token_counter=len, start_on="human")


class State(MessagesState):
    answer: str


class Choice(BaseModel):
    """Who works next?"""

    choice: Literal["researcher", "writer", "done"] = Field(
        description="researcher: finds facts; writer: writes the answer; done: the customer is answered"
    )


def build(model, checkpointer):
    def lead(state: State) -> Command[Literal["research", "write", "__end__"]]:
        chosen = model.with_structured_output(Choice).invoke([LEAD, *trim.invoke(state["messages"])])
        return Command(goto=WORK[chosen.choice], update={"answer": state.get("answer", "")})

    def research(state: State):
        facts = model.invoke([RESEARCHER, *state["messages"], HumanMessage("List the facts.")]).content
        return {"messages": HumanMessage(f"The researcher reports: {facts}", name="researcher")}

    def write(state: State):
        task = HumanMessage("Answer the customer in one sentence.")
        reply = model.invoke([*trim.invoke(state["messages"]), task])
        return {"messages": [task, reply], "answer": reply.content}

    graph = StateGraph(State)
    graph.add_node(lead)
    graph.add_node(research)
    graph.add_node(write)
    graph.add_edge(START, "lead")
    graph.add_edge("research", "lead")
    graph.add_edge("write", "lead")
    return graph.compile(checkpointer=checkpointer).with_config(recursion_limit=12)
