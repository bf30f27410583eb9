"""Tells a tool call that a parser could not read from an answer.

vLLM's parsers log what they cannot read and report no call, or only the others; taken at their word, a run would take
a broken call for an answer, or lose one of two.
"""

import re
from collections.abc import Collection
from typing import Any, Final

from flowrun.core.messages import ToolCall

_MARKER_NAME: Final = re.compile(
    r"_*((tools?|tool_calls?|tool_section|tc)_(start|begin|open)(_token|_tag)?|tool_calls|bot_(token|string))",
    re.IGNORECASE,
)
_DISTINCT: Final = re.compile(r"[<\[].*\W", re.DOTALL)
_EXCERPT: Final = 200  # characters


def read_call(call: Any, text: str) -> ToolCall:
    """Give a parsed call; its id only if the model wrote it (Kimi's), for parsers make others up at random."""
    written = bool(call.id) and not call.id.isdigit() and call.id in text
    return ToolCall(id=call.id if written else "", name=call.name, arguments=call.arguments)


def unread_call(spoken: str, *, markers: Collection[str], choice: str, read: int, parser: str) -> str | None:
    """Say which call in ``spoken``, a reply without its reasoning, was not ``read``; None if all were.

    ``choice`` is the tool choice, ``parser`` the parser's name. A call is begun by one of the family's ``markers``; a
    few families have none.
    """
    if choice == "none":
        return None
    marker = max(markers, key=spoken.count, default="")
    begun = spoken.count(marker) if marker else 0
    if begun > read:
        excerpt = spoken[spoken.index(marker) :][:_EXCERPT]
        return f"the {parser} parser could read {read} of {begun} tool calls in {excerpt!r}"
    if choice != "auto" and not read:
        return f"tool_choice is {choice}, but the {parser} parser found no call in {spoken[:_EXCERPT]!r}"
    return None


def call_markers(tool_parser: Any, request: Any) -> frozenset[str]:
    """Give the texts with which a family's calls begin, wherever its parser keeps them.

    What an answer or an argument may hold as well is left out: words (phi-4's ``functools``) and plain JSON.
    """
    engine = getattr(tool_parser, "_parser_engine", None)
    terminals = getattr(getattr(engine, "parser_engine_config", None), "terminals", {})
    found = [getattr(tool_parser, name, None) for name in dir(tool_parser) if _MARKER_NAME.fullmatch(name)]
    found += [text for name, text in terminals.items() if _MARKER_NAME.fullmatch(name)]
    texts = {text for one in found for text in (one if isinstance(one, tuple) else (one,)) if isinstance(text, str)}
    return frozenset(text for text in texts | _triggers(tool_parser, request) if _DISTINCT.fullmatch(text))


def _triggers(tool_parser: Any, request: Any) -> set[str]:
    """Give the texts at which a family's grammar of calls sets in."""
    from vllm.tool_parsers.tool_strict_level import ToolStrictLevel

    auto = request.model_copy(update={"tool_choice": "auto"})
    tag = tool_parser.get_structural_tag(auto, strict_level=ToolStrictLevel.FUNCTION)
    return set() if tag is None else set(getattr(tag.format, "triggers", None) or ())
