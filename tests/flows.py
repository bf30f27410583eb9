"""Small flows for tests, written as specs are."""

from textwrap import dedent

from msgspec import structs

from flowrun.core.events import ToolDeclaration
from flowrun.core.graph import Graph, compile_graph
from flowrun.spec import parse_text
from flowrun.spec.model import Spec

HEADER = """\
flowrun: v1
name: test
version: 1.0.0
model: {backend: scripted, name: replies.yaml}
"""

ADD = """\
tools:
  add:
    entrypoint: tools.numbers:add
    description: Add two integers.
    parameters:
      type: object
      properties: {a: {type: integer}, b: {type: integer}}
      required: [a, b]
      additionalProperties: false
    timeout: 5s
"""

AGENT = """\
inputs: {question: {type: string}}
messages:
  - {role: user, content: "{{ inputs.question }}"}
states:
  ask:
    type: chat
    routes:
      - {when: reply.tool_calls, to: act}
      - {to: done}
  act: {type: tools, next: ask}
  done: {type: end, output: {answer: "{{ reply.content }}"}}
limits: {max_rounds: 3, max_steps: 20}
"""


def spec_of(*parts: str) -> Spec:
    """Load a spec from parts of its text; what every spec begins with is put before them."""
    return parse_text(HEADER + "".join(map(dedent, parts)), "spec.yaml").spec


def graph_of(*parts: str) -> Graph:
    """Compile a spec's text and its local flows; a tool is declared as the spec writes it."""
    return compile_spec(spec_of(*parts))


def compile_spec(spec: Spec) -> Graph:
    """Compile a spec and its local flows, which have its models and tools where they have none."""
    declarations = {
        name: ToolDeclaration(name=name, description=tool.description or "", parameters=tool.parameters or {})
        for name, tool in spec.tools.items()
    }
    flows = {f"#{name}": compile_spec(structs.replace(flow, models=spec.models)) for name, flow in spec.flows.items()}
    return compile_graph(spec, declarations=declarations, flows=flows)
