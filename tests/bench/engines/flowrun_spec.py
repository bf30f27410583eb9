"""flowrun: the machine and the runner that ``flowrun run`` uses, with the scripted backend and a real Python tool."""

from functools import cache

import work

from flowrun.backends.scripted import ScriptedBackend
from flowrun.collector import calm_collector
from flowrun.core.events import AskModel, ToolDeclaration
from flowrun.core.graph import Graph, compile_graph
from flowrun.core.messages import Reply, ToolCall
from flowrun.functions.python import PythonFunctions
from flowrun.runtime.runner import Runner
from flowrun.spec import parse_text

SPEC = """\
flowrun: v1
name: bench
version: 1.0.0
model: {backend: scripted, name: none}
inputs: {rounds: {type: integer}}
tools:
  add:
    entrypoint: work:add
    description: Add two integers.
    parameters:
      type: object
      properties: {a: {type: integer}, b: {type: integer}}
      required: [a, b]
      additionalProperties: false
messages:
  - {role: user, content: hi}
states:
  ask:
    type: chat
    routes:
      - {when: reply.tool_calls, to: act}
      - {to: done}
  act: {type: tools, next: ask}
  done: {type: end, output: {answer: "{{ reply.content }}"}}
limits: {max_rounds: 1000000, max_steps: 1000000, timeout: 10m}
"""


@cache
def _graph() -> Graph:
    calm_collector()  # as the command does before it runs a flow
    spec = parse_text(SPEC, "bench.yaml").spec
    add = ToolDeclaration(name="add", description="Add two integers.", parameters=work.PARAMETERS)
    return compile_graph(spec, declarations={"add": add})


@cache
def _functions() -> PythonFunctions:
    """Bind the function once, as a session does."""
    return PythonFunctions({"work:add": work.add})


async def converse(rounds: int) -> str:
    """Hold one conversation and return the answer."""

    async def reply(request: AskModel) -> Reply:
        if await work.wants_tool(len(request.messages), rounds):
            call = ToolCall(id="c1", name="add", arguments=work.ARGUMENTS_TEXT)
            return Reply(tool_calls=(call,), finish_reason="tool_calls")
        return Reply(content="done")

    backend = ScriptedBackend.from_function(reply, record=False)
    runner = Runner(backends={"default": backend}, functions=_functions())
    run = (await runner.run(_graph(), {"rounds": rounds}, run_id="bench")).run
    assert run.outcome is not None
    assert len(run.threads["main"]) == 2 * rounds + 2
    return str(run.outcome.output["answer"])
