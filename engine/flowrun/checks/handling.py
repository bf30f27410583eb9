"""FR306: if a chat state offers tools, some state handles the tool calls of its reply."""

from collections.abc import Iterator

from flowrun.checks.subject import Subject
from flowrun.core.call_handling import find_call_handling
from flowrun.errors import Issue
from flowrun.spec.model import ChatState


def check_calls(subject: Subject) -> Iterator[Issue]:
    """Find chat states whose reply may contain tool calls that no state handles."""
    if subject.unsure:
        return
    spec = subject.spec
    handling = find_call_handling(spec)
    for name, state in spec.states.items():
        if not isinstance(state, ChatState) or name in handling.chats or state.tool_choice == "none":
            continue
        if state.tools_among(spec.tools):
            message = f"state {name!r} offers tools, and nothing handles a call: it fails with model.unhandled_call"
            remedy = "add a route 'when: reply.tool_calls' to a tools state, or offer no tools here: 'tools: []'"
            yield subject.issue("FR306", ("states", name), message, remedy, key=True, severity="warning")
