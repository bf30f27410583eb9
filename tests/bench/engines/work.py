"""The work that every engine does, with the standard library alone: K rounds of a tool call, then an answer.

A conversation is one user message, K times (assistant with one call, tool result), and an answer: 2K + 1 states are
left, and that is what a transition is here, whatever an engine does inside.
"""

ARGUMENTS = {"a": 1, "b": 2}
ARGUMENTS_TEXT = '{"a": 1, "b": 2}'
PARAMETERS = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}


async def wants_tool(message_count: int, rounds: int) -> bool:
    """The null model: call the tool for ``rounds`` rounds, then answer."""
    return (message_count - 1) // 2 < rounds


async def add(a: int, b: int) -> int:
    """Add two integers."""
    return a + b
