"""Flows for the tests of the Python API: an agent with a tool, and a flow that asks a person."""

import textwrap
from pathlib import Path
from typing import Any

import flowrun

HEADER = "flowrun: v1\nversion: 1.0.0\n"

AGENT = """\
name: agent
inputs: {question: {type: string}}
model: {backend: scripted, name: replies.yaml}
tools: {add: {entrypoint: "api_tools:add"}}
messages: [{role: user, content: "{{ inputs.question }}"}]
states:
  ask: {type: chat, routes: [{when: reply.tool_calls, to: act}, {to: done}]}
  act: {type: tools, next: ask}
  done: {type: end, output: {answer: "{{ reply.content }}"}}
"""

ASKS = """\
name: asks
inputs: {amount: {type: integer, default: 5}}
states:
  approve:
    type: wait
    prompt: "Pay {{ inputs.amount }}?"
    schema: {type: boolean}
    routes: [{when: outputs.approve, to: paid}, {to: refused}]
  paid: {type: end, output: "{{ inputs.amount }}"}
  refused: {type: end, status: failed, output: no}
"""

CALLS = """\
name: calls
inputs: {seconds: {type: number, default: 0}}
states:
  work: {type: call, entrypoint: "api_tools:work", with: {seconds: "{{ inputs.seconds }}"}, next: done}
  done: {type: end, output: "{{ outputs.work }}"}
"""

ASK_TO_ADD: Any = {"tool_calls": [{"name": "add", "arguments": {"a": 1, "b": 2}}]}


def add(a: int, b: int) -> int:
    """Add two integers."""
    return a + b


def write(folder: Path, text: str, name: str = "spec.yaml") -> Path:
    file = folder / name
    file.write_text(HEADER + textwrap.dedent(text))
    return file


def agent(folder: Path, **functions: Any) -> flowrun.Flow:
    return flowrun.load(write(folder, AGENT), functions={"api_tools:add": functions.get("add", add)})


def asks(folder: Path) -> flowrun.Flow:
    return flowrun.load(write(folder, ASKS, "asks.yaml"))


def calls(folder: Path, work: Any) -> flowrun.Flow:
    return flowrun.load(write(folder, CALLS, "calls.yaml"), functions={"api_tools:work": work})
