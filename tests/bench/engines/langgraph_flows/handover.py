"""Two agents for support on one conversation. Each hands the customer over to the other by a tool."""

from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware, ToolErrorMiddleware, before_model
from langgraph.errors import GraphRecursionError
from langgraph_swarm import create_handoff_tool, create_swarm

from tools.payments import look_up_order, pay_back

to_billing = create_handoff_tool(
    agent_name="billing", name="to_billing", description="Hand the customer over to the colleague who pays money back."
)
to_sales = create_handoff_tool(
    agent_name="sales", name="to_sales", description="Hand the customer over to the colleague who knows the products."
)


@before_model
def limit(state, runtime):
    if sum(message.type == "ai" for message in state["messages"]) >= 20:
        raise GraphRecursionError("the run reached 20 rounds")


def build(model, checkpointer):
    sales = create_agent(
        model,
        [to_billing],
        name="sales",
        system_prompt="You sell keyboards, and answer questions about them. A colleague pays money back.",
        middleware=[limit],
    )
    much = {
        "allowed_decisions": ["approve", "edit", "reject"],
        "when": lambda request: request.tool_call["args"].get("amount", 0) > 100,
    }
    approval = HumanInTheLoopMiddleware({"pay_back": much}, interrupt_mode="per_call")
    errors = ToolErrorMiddleware(lambda error, request: f"error: {error}")
    billing = create_agent(
        model,
        [look_up_order, pay_back, to_sales],
        name="billing",
        system_prompt="You look orders up and pay money back. A colleague answers questions about products.",
        middleware=[limit, approval, errors],
    )
    return create_swarm([sales, billing], default_active_agent="sales").compile(checkpointer=checkpointer)
