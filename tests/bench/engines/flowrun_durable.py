"""flowrun with a journal, as ``flowrun run --durable`` has it: each event is synced before the run continues.

Modes: ``memory`` has no journal; in ``idempotent`` the tool is declared so, in ``once`` it is not, so that the intent
to call it is written first: a commit more for each call.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import work
from flowrun_spec import SPEC

from flowrun.backends.scripted import ScriptedBackend
from flowrun.collector import calm_collector
from flowrun.core.events import AskModel, ToolDeclaration
from flowrun.core.graph import compile_graph
from flowrun.core.messages import Reply, ToolCall
from flowrun.functions.python import PythonFunctions
from flowrun.journal import SqliteJournal
from flowrun.runtime.runner import Runner
from flowrun.spec import parse_text


class Engine:
    """Holds conversations in one journal."""

    def __init__(self, mode: str, rounds: int, path: Path) -> None:
        calm_collector()  # as the command does before it runs a flow
        idempotent = f"entrypoint: work:add\n    idempotent: {str(mode != 'once').lower()}"
        spec = parse_text(SPEC.replace("entrypoint: work:add", idempotent), "bench.yaml").spec
        add = ToolDeclaration(name="add", description="Add two integers.", parameters=work.PARAMETERS)
        self._graph = compile_graph(spec, declarations={"add": add})
        self._rounds = rounds
        self._journal = None if mode == "memory" else SqliteJournal(path)
        self._runner = Runner(
            backends={"default": ScriptedBackend.from_function(self._reply, record=False)},
            functions=PythonFunctions({"work:add": work.add}),
            journal=self._journal,
        )
        self.commits = self.events = 0
        if self._journal is not None:
            self._write = self._journal._thread._write
            self._journal._thread._write = self._counted

    def _counted(self, entries: Sequence[Any]) -> Any:
        self.commits += 1
        self.events += len(entries)
        return self._write(entries)

    async def _reply(self, request: AskModel) -> Reply:
        if await work.wants_tool(len(request.messages), self._rounds):
            call = ToolCall(id="c1", name="add", arguments=work.ARGUMENTS_TEXT)
            return Reply(tool_calls=(call,), finish_reason="tool_calls")
        return Reply(content="done")

    async def converse(self, number: int) -> tuple[int, str]:
        """Hold one conversation, and return the number of its messages and the answer."""
        run = (await self._runner.run(self._graph, {"rounds": self._rounds}, run_id=f"{number:012x}")).run
        assert run.outcome is not None
        return len(run.threads["main"]), str(run.outcome.output["answer"])

    async def close(self) -> None:
        """Close the journal."""
        if self._journal is not None:
            await self._journal.close()
