"""LangGraph as its users make it durable: ``langgraph_agent`` with the SQLite checkpointer.

Modes are the checkpointer's: ``sync`` has a checkpoint written before the next step begins, ``async`` (which is its
default) while it runs. A checkpoint's commit is in WAL mode with ``synchronous=FULL``, SQLite's own default.
"""

from pathlib import Path
from typing import Any

import aiosqlite
import langgraph_agent
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver


class Engine:
    """Holds conversations with one checkpointer."""

    def __init__(self, mode: str, rounds: int, path: Path) -> None:
        self._mode = mode
        self._path = path
        self._app: Any = None
        self.commits = self.events = 0
        langgraph_agent._rounds = rounds

    async def converse(self, number: int) -> tuple[int, str]:
        """Hold one conversation, and return the number of its messages and the answer."""
        if self._app is None:
            self._app = langgraph_agent._graph().compile(checkpointer=self._saver)
        config = {"recursion_limit": 10**6, "configurable": {"thread_id": str(number)}}
        out = await self._app.ainvoke({"messages": [HumanMessage("hi")]}, config, durability=self._mode)
        return len(out["messages"]), str(out["messages"][-1].content)

    async def open(self) -> None:
        """Open the database."""
        self._connection = await aiosqlite.connect(self._path)
        self._saver = AsyncSqliteSaver(self._connection)
        await self._saver.setup()

    async def close(self) -> None:
        """Close the database."""
        await self._connection.close()
