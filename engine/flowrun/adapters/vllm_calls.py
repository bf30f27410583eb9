"""Tells a tool call that a parser could not read from an answer.

vLLM's parsers log what they cannot read and report no call, or only the others; taken at their word, a run would take
a broken call for an answer, or lose one of two.
"""

import re
from typing import Any, Final

from flowrun.messages import ToolCall

_MARKER_NAME: Final = re.compile(
    r"_*((tools?|tool_calls?|tool_section|tc)_(start|begin|open)(_token|_tag)?|tool_calls|bot_(token|string))",
    re.IGNORECASE,
)
_EXCERPT: Final = 200  # characters


def read_call(call: Any, text: str) -> ToolCall:
    """Give a parsed call; its id only if the model wrote it (Kimi's), for parsers make others up at random."""
    written = bool(call.id) and not call.id.isdigit() and call.id in text
    return ToolCall(id=call.id if written else "", name=call.name, arguments=call.arguments)


def unread_call(tool_parser: Any, request: Any, spoken: str, *, read: int, name: str) -> str | None:
    """Say which call in ``spoken``, a reply without its reasoning, was not ``read``; None if all were.

    ``name`` is the parser's. Begun calls are counted by the family's marker; a few families have none.
    """
    if not request.tools or request.tool_choice in (None, "none"):
        return None
    marker = max(call_markers(tool_parser, request), key=spoken.count, default="")
    begun = spoken.count(marker) if marker else 0
    if begun > read:
        excerpt = spoken[spoken.index(marker) :][:_EXCERPT]
        return f"the {name} parser could read {read} of {begun} tool calls in {excerpt!r}"
    if request.tool_choice != "auto" and not read:
        choice = request.tool_choice
        wish = choice if isinstance(choice, str) else choice.function.name
        return f"tool_choice is {wish}, but the {name} parser found no call in {spoken[:_EXCERPT]!r}"
    return None


def call_markers(tool_parser: Any, request: Any) -> set[str]:
    """Give the texts with which a family's calls begin, wherever its parser keeps them.

    Those that end like a word are left out (phi-4's ``functools``): an answer may hold them.
    """
    engine = getattr(tool_parser, "_parser_engine", None)
    terminals = getattr(getattr(engine, "parser_engine_config", None), "terminals", {})
    found = [getattr(tool_parser, name, None) for name in dir(tool_parser) if _MARKER_NAME.fullmatch(name)]
    found += [text for name, text in terminals.items() if _MARKER_NAME.fullmatch(name)]
    texts = {text for one in found for text in (one if isinstance(one, tuple) else (one,)) if isinstance(text, str)}
    return {text for text in texts | _triggers(tool_parser, request) if text and not text[-1].isalnum()}


def _triggers(tool_parser: Any, request: Any) -> set[str]:
    """Give the texts at which a family's grammar of calls sets in."""
    from vllm.tool_parsers.tool_strict_level import ToolStrictLevel

    auto = request.model_copy(update={"tool_choice": "auto"})
    tag = tool_parser.get_structural_tag(auto, strict_level=ToolStrictLevel.FUNCTION)
    return set() if tag is None else set(getattr(tag.format, "triggers", None) or ())
