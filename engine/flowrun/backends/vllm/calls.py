"""Finds tool calls that a parser could not read.

vLLM's parsers log a call that they cannot read, and return no call or only the others. Without this check, a run would
treat a broken call as an answer, or lose one of two calls.
"""

import re
from collections.abc import Collection
from typing import Any, Final

from flowrun.core.messages import ToolCall
from flowrun.excerpts import cut

_MARKER_NAME: Final = re.compile(
    r"_*((tools?|tool_calls?|tool_section|tc)_(start|begin|open)(_token|_tag)?|tool_calls|bot_(token|string))",
    re.IGNORECASE,
)
_DISTINCT: Final = re.compile(r"[<\[].*\W", re.DOTALL)
_EXCERPT: Final = 200  # characters

_LIKE_A_CALL: Final = r"\s*(?:[\[{{]|<(?!/)|[\w.:-]+[\[({{<]|(?:[\w]+[.:])?(?:{names})\b|function\b)"
"""What follows the marker of a call: JSON, a tag, or a name, in most families at once before its arguments."""

_BARE: Final = (
    r"(?:\A|\n(?=[^\n]*\Z))\s*(?:```\w*\s*)?(?:functools\s*)?"
    r"""(?:\[\s*(?:{names})\(|\[?\s*{{\s*"name"\s*:\s*"(?:{names})")"""
)
"""A call of a known tool without a marker: it begins the text, or its last line."""


def read_call(call: Any, text: str) -> ToolCall:
    """Return a parsed call. Its id is kept only if the model wrote it (Kimi does); parsers invent other ids."""
    written = bool(call.id) and not call.id.isdigit() and call.id in text
    return ToolCall(id=call.id if written else "", name=call.name, arguments=call.arguments)


def unread_call(
    text: str, *, markers: Collection[str], tools: Collection[str], choice: str, read: int, parser: str
) -> str | None:
    """Return a message about a call that the parser did not read; None if it read all calls.

    Args:
        text: a reply without its reasoning.
        markers: the texts that begin a call; a few families have none.
        tools: the names of the tools that are offered.
        choice: the request's tool choice.
        read: the number of calls that the parser returned.
        parser: the parser's name.
    """
    if choice == "none":
        return None
    names = "|".join(map(re.escape, tools)) or "(?!)"
    begun = max((_begun(text, marker, names) for marker in markers), key=len, default=[])
    if not begun and not read:
        begun = [match.start() for match in re.finditer(_BARE.format(names=names), text)]
    if len(begun) > read:
        excerpt = cut(text[begun[0] :], _EXCERPT)
        return f"the {parser} parser could read {read} of {len(begun)} tool calls in {excerpt!r}"
    if choice != "auto" and not read:
        return f"tool_choice is {choice}, but the {parser} parser found no call in {cut(text, _EXCERPT)!r}"
    return None


def _begun(text: str, marker: str, names: str) -> list[int]:
    """Return where calls begin: at a marker before what is like a call. A marker in a sentence begins none."""
    like_a_call = re.compile(_LIKE_A_CALL.format(names=names))
    begun = []
    for match in re.finditer(re.escape(marker), text):
        at, end = match.span()
        is_last = not text[end:].strip() and text[:at].rstrip(" ")[-1:] in ("", "\n")
        if is_last or like_a_call.match(text, end):
            begun.append(at)
    return begun


def call_markers(tool_parser: Any, request: Any) -> frozenset[str]:
    """Return the texts that begin a family's calls, from the attributes, the terminals or the grammar of its parser.

    Words (phi-4's ``functools``) and plain JSON are left out, as an answer or an argument may contain them too.
    """
    engine = getattr(tool_parser, "_parser_engine", None)
    terminals = getattr(getattr(engine, "parser_engine_config", None), "terminals", {})
    found = [getattr(tool_parser, name, None) for name in dir(tool_parser) if _MARKER_NAME.fullmatch(name)]
    found += [text for name, text in terminals.items() if _MARKER_NAME.fullmatch(name)]
    texts = {text for one in found for text in (one if isinstance(one, tuple) else (one,)) if isinstance(text, str)}
    return frozenset(text for text in texts | _triggers(tool_parser, request) if _DISTINCT.fullmatch(text))


def _triggers(tool_parser: Any, request: Any) -> set[str]:
    """Return the texts that start a family's grammar of calls."""
    from vllm.tool_parsers.tool_strict_level import ToolStrictLevel

    auto = request.model_copy(update={"tool_choice": "auto"})
    tag = tool_parser.get_structural_tag(auto, strict_level=ToolStrictLevel.FUNCTION)
    return set() if tag is None else set(getattr(tag.format, "triggers", None) or ())
