"""LangGraph with the openai client against a server, as its users write it; run in LangGraph's own Python.

Reads ``{base_url, model, numbers}`` from stdin. Prints the seconds from the first request to the last result, and the
tokens read and written, as a line of JSON.
"""

import asyncio
import json
import operator
import sys
import time
from typing import Annotated, Any, TypedDict

import conversations as work
from langgraph.graph import START, StateGraph
from openai import AsyncOpenAI, DefaultAioHttpClient


class State(TypedDict):
    """The state of a conversation."""

    conversation: int
    turn: int
    messages: Annotated[list[Any], operator.add]


class Conversations:
    """One graph, one client, and the tokens that all conversations took."""

    def __init__(self, client: AsyncOpenAI, model: str) -> None:
        self.client = client
        self.model = model
        self.read = self.written = 0
        graph = StateGraph(State)
        graph.add_node("ask", self._ask)
        graph.add_node("look_up", _look_up)
        graph.add_edge(START, "ask")
        graph.add_conditional_edges("ask", lambda state: "look_up" if state["turn"] < work.ROUNDS else "__end__")
        graph.add_edge("look_up", "ask")
        self.app = graph.compile()

    async def hold(self, number: int) -> None:
        """Hold one conversation."""
        await self.app.ainvoke({"conversation": number, "turn": 0, "messages": work.first_messages(number)})

    async def _ask(self, state: State) -> dict[str, Any]:
        completion = await self.client.chat.completions.create(
            model=self.model,
            messages=state["messages"],
            temperature=work.SAMPLING["temperature"],
            max_tokens=work.SAMPLING["max_tokens"],
            logit_bias={str(token): bias for token, bias in work.BIAS.items()},
            extra_body={"min_tokens": work.SAMPLING["min_tokens"]},
        )
        self.read += completion.usage.prompt_tokens
        self.written += completion.usage.completion_tokens
        said = {"role": "assistant", "content": completion.choices[0].message.content}
        return {"turn": state["turn"] + 1, "messages": [said]}


async def _look_up(state: State) -> dict[str, Any]:
    return {"messages": [work.next_message(await work.look_up(state["conversation"], state["turn"]))]}


async def main(given: dict[str, Any]) -> None:
    """Hold all conversations at once, each at its own pace."""
    async with AsyncOpenAI(
        base_url=given["base_url"], api_key="none", timeout=3600, max_retries=0, http_client=DefaultAioHttpClient()
    ) as client:
        conversations = Conversations(client, given["model"])
        await conversations.hold(0)  # what is made at the first request is start-up
        conversations.read = conversations.written = 0
        begun = time.perf_counter()
        await asyncio.gather(*(conversations.hold(number) for number in given["numbers"]))
        seconds = time.perf_counter() - begun
    print(json.dumps({"seconds": seconds, "read": conversations.read, "written": conversations.written}))


if __name__ == "__main__":
    asyncio.run(main(json.load(sys.stdin)))
