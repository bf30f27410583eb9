"""DBOS as its users write it: a workflow whose rounds and tool calls are steps, on SQLite.

Modes: ``shipped`` leaves the database as DBOS makes it (a rollback journal, ``synchronous=FULL``); ``normal`` has WAL
and ``synchronous=NORMAL``, which DBOS does not offer and which may lose the last steps with the power.
"""

import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy
import work
from dbos import DBOS


@DBOS.step()
async def ask(messages: list[dict[str, Any]], rounds: int) -> dict[str, Any]:
    """Request a reply of the null model."""
    if await work.wants_tool(len(messages), rounds):
        call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": work.ARGUMENTS}}
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    return {"role": "assistant", "content": "done"}


@DBOS.step()
async def call_tool(arguments: dict[str, Any]) -> int:
    """Call the tool."""
    return await work.add(**arguments)


@DBOS.workflow()
async def conversation(rounds: int) -> tuple[int, str]:
    """Hold one conversation."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
    while True:
        message = await ask(messages, rounds)
        messages.append(message)
        if "tool_calls" not in message:
            return len(messages), message["content"]
        for call in message["tool_calls"]:
            value = await call_tool(call["function"]["arguments"])
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": str(value)})


class Engine:
    """Holds conversations in one system database."""

    def __init__(self, mode: str, rounds: int, path: Path) -> None:
        self._rounds = rounds
        self.commits = self.events = 0
        if mode == "normal":
            sqlite3.connect(path).execute("PRAGMA journal_mode = WAL").connection.close()
            sqlalchemy.event.listen(sqlalchemy.engine.Engine, "connect", _make_normal)
        database = {"system_database_url": f"sqlite:///{path}"}
        DBOS(config={"name": "bench", "run_admin_server": False, "log_level": "ERROR", **database})
        DBOS.launch()

    async def converse(self, number: int) -> tuple[int, str]:
        """Hold one conversation, and return the number of its messages and the answer."""
        count, answer = await conversation(self._rounds)
        return count, answer

    async def close(self) -> None:
        """End DBOS."""
        DBOS.destroy()


def _make_normal(connection: Any, record: object) -> None:
    connection.execute("PRAGMA synchronous = NORMAL")
