"""A kind of state that only tests have: its output is a text, repeated. CONTRIBUTING says what a kind consists of."""

from collections.abc import Callable
from typing import Any, Final

from flowrun.core.state_node import StateNode, Turn
from flowrun.core.states import Compiler, Look, StateKind
from flowrun.spec.model import TextTemplate, WorkingState
from flowrun.templates import Scope, compile_text


class RepeatState(WorkingState, frozen=True, kw_only=True, tag="repeat"):
    """A state that repeats a text."""

    asks = "nobody"

    text: TextTemplate
    times: int = 2

    def details(self) -> tuple[str]:
        return (f"{self.times} times",)


class RepeatNode(StateNode, frozen=True, kw_only=True):
    """A repeat state."""

    text: Callable[[Scope], str]
    times: int

    def enter(self, turn: Turn) -> None:
        """Leave with the repeated text."""
        turn.leave(self, self.text(turn.scope) * self.times)


def compile_repeat(name: str, state: RepeatState, compiler: Compiler) -> RepeatNode:
    """Compile a repeat state."""
    return RepeatNode(text=compile_text(state.text), times=state.times, **compiler.common(name, state))


KIND: Final = StateKind(
    struct=RepeatState,
    compile=compile_repeat,
    output="the text, repeated",
    shape=lambda state, flows: {"type": "string"},
    looks={"repeat": Look(outline="hexagon", light=("#ffffee", "#aaaa00"), dark=("#111100", "#dddd00"))},
)

DEFINITION: Final[dict[str, Any]] = {
    "title": "repeat state",
    "type": "object",
    "required": ["text"],
    "oneOf": [{"required": ["next"]}, {"required": ["routes"]}],
    "additionalProperties": False,
    "properties": {
        "type": {"const": "repeat"},
        "text": {"description": "What is repeated, a template.", "$ref": "#/$defs/template", "examples": ["a"]},
        "times": {"description": "How often.", "type": "integer", "minimum": 1, "default": 2, "examples": [3]},
        **{name: {"$ref": f"#/$defs/{name}"} for name in ("set", "say", "next", "routes", "retry", "catch")},
        "timeout": {"$ref": "#/$defs/state_timeout"},
        "description": {"$ref": "#/$defs/state_description"},
    },
}
"""The definition ``repeat_state`` of the schema."""


def add_to_schema(schema: dict[str, Any]) -> None:
    """Add the kind to the schema of specs, in the three places that list kinds."""
    definitions = schema["$defs"]
    definitions["repeat_state"] = DEFINITION
    definitions["state"]["properties"]["type"]["enum"].append("repeat")
    definitions["state"]["allOf"].append(
        {
            "if": {"type": "object", "required": ["type"], "properties": {"type": {"const": "repeat"}}},
            "then": {"$ref": "#/$defs/repeat_state"},
        }
    )
