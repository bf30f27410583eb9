"""What an item of a wide state costs, and what a wide or long spec costs to check: both should not depend on the width.

The machine alone: no runner, no functions; the events are ready.
"""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from flowrun.core.events import ChildEnded, Event, Outcome, Replied, Returned, Started, ToolDeclaration
from flowrun.core.graph import Graph, compile_graph
from flowrun.core.machine import fold
from flowrun.core.messages import Reply, ToolCall
from flowrun.runtime.project import Project
from flowrun.spec import parse_text

_WIDTHS = (100, 1000, 16_000)
_PASSES = 3
_MODEL = "model: {backend: scripted, name: none}\n"
_HEAD = f"flowrun: v1\nname: wide\nversion: 1.0.0\n{_MODEL}"
_LIMITS = "limits: {max_rounds: 100000, max_steps: 100000}\n"
_CHILD = """\
flows: {child: {inputs: {item: {}}, states: {only: {type: end, output: "{{ inputs.item }}"}}}}
"""
_MAP = """\
inputs: {items: {}}
states:
  wide: {type: map, flow: "#child", for_each: inputs.items, next: done}
  done: {type: end, output: "{{ outputs.wide | length }}"}
"""
_AGENT = """\
inputs: {rounds: {}}
tools: {add: {entrypoint: "work:add", parameters: {type: object, properties: {a: {type: integer}}}}}
messages: [{role: user, content: hi}]
states:
  ask: {type: chat, routes: [{when: reply.tool_calls, to: act}, {to: done}]}
  act: {type: tools, next: ask}
  done: {type: end, output: "{{ results | length }}"}
"""


def main() -> None:
    """Print the tables."""
    print(f"\nThe machine alone, microseconds (least of {_PASSES} passes)\n")
    print(f"{'':34}" + "".join(f"{width:>10,}" for width in _WIDTHS))
    for label, measure in {
        "an item of a map": _map,
        "a branch of a parallel state": _parallel,
        "a call of one reply": _calls,
        "a transition of so many rounds": _rounds,
    }.items():
        print(f"{label:34}" + "".join(f"{measure(width):10.1f}" for width in _WIDTHS))
    print("\nChecking a spec, CPU seconds\n")
    for label, text in {
        "5,000 routes of one state": _routes(5000),
        "5,000 states in a line": _line(5000),
        "1,000 chats before 4,000 states": _chats(1000, 4000),
    }.items():
        print(f"{label:34}{_check(text):10.2f}")


def _map(width: int) -> float:
    ends = (ChildEnded(step=1, index=index, outcome=_SUCCEEDED) for index in range(width))
    return _least(_graph(_CHILD + _MAP), [Started(run="r", inputs={"items": list(range(width))}), *ends], width)


def _parallel(width: int) -> float:
    branches = ", ".join(f'b{index}: {{flow: "#child", with: {{item: 1}}}}' for index in range(width))
    states = (
        f"states:\n  wide: {{type: parallel, branches: {{{branches}}}, next: done}}\n"
        '  done: {type: end, output: "{{ outputs.wide | length }}"}\n'
    )
    ends = (ChildEnded(step=1, index=index, outcome=_SUCCEEDED) for index in range(width))
    return _least(_graph(_CHILD + states), [Started(run="r", inputs={}), *ends], width)


def _calls(width: int) -> float:
    calls = tuple(ToolCall(id=f"c{index}", name="add", arguments='{"a": 1}') for index in range(width))
    values = (Returned(step=2, index=index, value=1) for index in range(width))
    reply = Replied(step=1, reply=Reply(tool_calls=calls, finish_reason="tool_calls"))
    answer = Replied(step=3, reply=Reply(content="done"))
    return _least(_graph(_AGENT), [Started(run="r", inputs={"rounds": 1}), reply, *values, answer], width)


def _rounds(count: int) -> float:
    events: list[Event] = [Started(run="r", inputs={"rounds": count})]
    for round_ in range(count):
        call = ToolCall(id="c", name="add", arguments='{"a": 1}')
        events.append(Replied(step=2 * round_ + 1, reply=Reply(tool_calls=(call,), finish_reason="tool_calls")))
        events.append(Returned(step=2 * round_ + 2, index=0, value=1))
    events.append(Replied(step=2 * count + 1, reply=Reply(content="done")))
    return _least(_graph(_AGENT), events, len(events))


_SUCCEEDED = Outcome(status="succeeded", output=1)


def _graph(text: str) -> Graph:
    spec = parse_text(_HEAD + _LIMITS + text, "wide.yaml").spec
    declarations = {
        name: ToolDeclaration(name=name, description="", parameters=tool.parameters or {})
        for name, tool in spec.tools.items()
    }
    children = {f"#{name}": compile_graph(child, declarations={}) for name, child in spec.flows.items()}
    return compile_graph(spec, declarations=declarations, flows=children)


def _least(graph: Graph, events: Iterable[Event], count: int) -> float:
    """Return microseconds for each of ``count`` items."""
    events = list(events)

    def run() -> None:
        outcome = fold(graph, events).run.outcome
        assert outcome is not None, "the events end before the run"
        assert outcome.status == "succeeded", outcome

    return min(_seconds(run) for _ in range(_PASSES)) / count * 1e6


def _seconds(action: Callable[[], object]) -> float:
    begun = time.process_time()
    action()
    return time.process_time() - begun


def _routes(count: int) -> str:
    routes = "".join(f"      - {{when: inputs.n == {index}, to: done}}\n" for index in range(count))
    head = "inputs: {n: {type: integer}}\nstates:\n  go:\n    type: route\n    routes:\n"
    return f"{head}{routes}      - {{to: done}}\n  done: {{type: end}}\n"


def _line(count: int) -> str:
    states = "".join(f"  s{index}: {{type: route, next: s{index + 1}}}\n" for index in range(count))
    return f"states:\n{states}  s{count}: {{type: end}}\n"


def _chats(count: int, after: int) -> str:
    chats = "".join(
        f"  c{n}: {{type: chat, routes: [{{when: inputs.n == {n}, to: s0}}, {{to: c{n + 1}}}]}}\n" for n in range(count)
    )
    head = f"inputs: {{n: {{type: integer}}}}\nlimits: {{max_rounds: {count}}}\n"
    return f"{head}states:\n{chats}  c{count}: {{type: chat, next: s0}}\n{_line(after).removeprefix('states:')}"


def _check(text: str) -> float:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "wide.yaml"
        file.write_text((_HEAD if "chat" in text else _HEAD.replace(_MODEL, "")) + text)
        return _seconds(lambda: Project(require_environment=False).check(file, imports=False))


if __name__ == "__main__":
    main()
