"""FR312, FR406 to FR410: errors that never come, values that are read too early or never, texts that are no text.

Also FR608, where a setting of a state has no effect.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from flowrun.checks.dataflow import cycles, slots_set_by
from flowrun.checks.shapes import schema_at, shapes_at
from flowrun.checks.subject import Subject
from flowrun.core.state_node import UNCAUGHT, matches
from flowrun.core.texts import Text
from flowrun.errors import FAILURES, Issue, Path, dotted
from flowrun.spec.model import JSON, AgentState, ParallelState, State, ToolsState, WorkingState
from flowrun.spec.phrases import with_article
from flowrun.spec.suggestions import did_you_mean, suggest
from flowrun.templates.reads import keys_of, parsed_expression

if TYPE_CHECKING:
    from jinja2 import nodes

_REFERENCE: Final = re.compile(r"(?<!\$)\$\{[A-Z_][A-Z0-9_]*(?::-[^}]*)?\}")

_CUT: Final = re.compile(r"\s(#\w\S*)")

_ANYWHERE: Final = ("template.failed", "route.unmatched", "state.timeout")

_OF_CHAT: Final = ("model.*", "backend.*", "limit.rounds", "limit.tokens")

_OF_KIND: Final[dict[str, tuple[str, ...]]] = {
    "chat": _OF_CHAT,
    "decide": _OF_CHAT,
    "agent": _OF_CHAT,
    "tools": (),
    "call": ("tool.*",),
    "route": (),
    "wait": ("wait.*",),
    "pause": (),
}
"""The failures that a state of a kind can have, besides those that any state can have. Of other kinds: all."""


def check_lints(subject: Subject) -> Iterator[Issue]:
    """Find error names that no state can see, variables that are read too early or never, and ``${VAR}`` in texts."""
    yield from _unseen_errors(subject)
    yield from _collected_in_a_race(subject)
    yield from _feedback_to_nobody(subject)
    yield from _token_limits_never_reached(subject)
    yield from _first_values(subject)
    yield from _unread_variables(subject)
    yield from _changing_systems(subject)
    yield from _impossible_comparisons(subject)
    if not subject.base:
        yield from _references(subject)
        yield from _cut_texts(subject)


# --- catch and retry ----------------------------------------------------------------------------------------------


def _unseen_errors(subject: Subject) -> Iterator[Issue]:
    for name, state in subject.spec.states.items():
        if not isinstance(state, WorkingState):
            continue
        at = ("states", name)
        lists: list[tuple[Path, tuple[str, ...]]] = [
            ((*at, "catch", index, "errors"), catch.errors) for index, catch in enumerate(state.catch)
        ]
        lists += [((*at, "retry", "errors"), state.retry.errors)] if state.retry is not None else []
        possible = _possible(state, asks=subject.spec.asks_about_calls)
        for path, patterns in lists:
            for index, pattern in enumerate(patterns):
                if not any(matches(failure, (pattern,)) for failure in possible):
                    why, remedy = _why_unseen(state, pattern)
                    message = f"{with_article(f'{state.type} state')} never sees {pattern!r}: {why}"
                    yield subject.issue("FR312", (*path, index), message, remedy, severity="warning")


def _possible(state: WorkingState, *, asks: bool) -> list[str]:
    """Return the failures that a state can have.

    Args:
        asks: a person is asked about some tool's calls.
    """
    own = _OF_KIND.get(state.type)
    if own is not None and isinstance(state, ToolsState | AgentState):
        own = (*own, *(("tool.*",) if state.on_error == "raise" else ()), "limit.tool_calls")
        own = (*own, "wait.*") if asks else own
    if own is not None and (state.say or any(catch.say for catch in state.catch)):
        own = (*own, "model.invalid_conversation")
    names = [name for name in FAILURES if own is None or matches(name, (*_ANYWHERE, *own))]
    return [name for name in names if name not in UNCAUGHT or (own is None and name == "input.invalid")]


def _why_unseen(state: State, pattern: str) -> tuple[str, str]:
    if any(matches(name, (pattern,)) for name in UNCAUGHT):
        return "it is about the run, and cannot be caught", "leave it out"
    if isinstance(state, ToolsState | AgentState) and pattern.startswith("tool."):
        return "the model gets a call's failure as its result", "write on_error: raise, or leave it out"
    return "nothing that it does fails so", "leave it out, or put it where the failure happens"


def _collected_in_a_race(subject: Subject) -> Iterator[Issue]:
    for name, state in subject.spec.states.items():
        if isinstance(state, ParallelState) and state.until == "first" and state.on_branch_error == "collect":
            message = "on_branch_error has no effect: with until: first, a branch that fails is not in the output"
            path = ("states", name, "on_branch_error")
            yield subject.issue("FR608", path, message, "leave it out, or await all branches", severity="warning")


def _feedback_to_nobody(subject: Subject) -> Iterator[Issue]:
    for name, state in subject.spec.states.items():
        if (
            isinstance(state, WorkingState)
            and state.asks != "model"
            and state.retry
            and state.retry.feedback is not None
        ):
            message = f"feedback has no effect: a {state.type} state asks no model"
            path = ("states", name, "retry", "feedback")
            yield subject.issue("FR608", path, message, "leave it out", key=True, severity="warning")


def _token_limits_never_reached(subject: Subject) -> Iterator[Issue]:
    """Find limits of tokens that another one reaches first, whatever the models say."""
    limits = subject.spec.limits.tokens
    if limits is None or limits.total is None:
        return
    parts = {"prompt": limits.prompt, "completion": limits.completion}
    for name, most in parts.items():
        if most is not None and most >= limits.total:
            message = f"limits.tokens.{name} is never reached: limits.tokens.total is {limits.total:,}"
            yield _never_reached(subject, name, message, f"make it lower than {limits.total:,}, or leave it out")
    sums = [most for most in parts.values() if most is not None]
    if len(sums) == len(parts) and limits.total >= sum(sums):
        message = f"limits.tokens.total is never reached: prompt and completion together are {sum(sums):,}"
        yield _never_reached(subject, "total", message, f"make it lower than {sum(sums):,}, or leave it out")


def _never_reached(subject: Subject, name: str, message: str, remedy: str) -> Issue:
    return subject.issue("FR608", ("limits", "tokens", name), message, remedy, severity="warning")


# --- variables ----------------------------------------------------------------------------------------------------


def _first_values(subject: Subject) -> Iterator[Issue]:
    """Find first messages that read a variable which a state sets: they are rendered once, before any state."""
    setters: dict[str, str] = {}
    for name, state in subject.spec.states.items():
        for _, variable in state.variables():
            setters.setdefault(variable, name)
    for text in subject.texts:
        if text.moment != "threads":
            continue
        read = {str(path[1]) for path in text.reads_if_valid().paths if path[0] == "vars" and len(path) > 1}
        for variable in sorted(read & setters.keys()):
            message = (
                f"first messages are rendered once, when the run begins: vars.{variable} has its first value here, "
                f"also after state {setters[variable]!r} has set it"
            )
            remedy = "move the message into the messages of the chat state that needs it"
            yield subject.issue("FR406", text.path, message, remedy, word=f"vars.{variable}", severity="warning")


def _changing_systems(subject: Subject) -> Iterator[Issue]:
    """Find system messages of states in a loop that read what the loop changes: no prompt extends the one before."""
    graph = subject.state_graph
    loops = cycles({name: graph.outgoing[name] for name in graph.facts})
    for text in subject.texts:
        if text.path[2:] != ("system",):
            continue
        loop = next((loop for loop in loops if text.state in loop), set())
        changed = {slot for name in loop for edge in graph.outgoing[name] for slot in slots_set_by(subject.spec, edge)}
        turns = isinstance(subject.spec.states[text.state], AgentState)
        changed |= {("run",), ("threads",)} if loop or turns else set()
        changed |= {("reply",), ("results",)} if turns else set()
        for path in sorted(text.reads_if_valid().paths, key=str):
            if path[:1] in changed or path[:2] in changed:
                message = f"{dotted(path)} changes in the loop: each prompt then differs from its first token on"
                remedy = "say it in a user message behind the others, or set it before the loop"
                yield subject.issue("FR315", text.path, message, remedy, word=dotted(path), severity="warning")


def _unread_variables(subject: Subject) -> Iterator[Issue]:
    """Find ``set`` entries of variables that no template reads."""
    if subject.unsure:
        return
    spec = subject.spec
    read: set[str] = set()
    for text in subject.texts:
        for path in text.reads_if_valid().paths:
            if path[0] == "vars":
                if len(path) == 1 or not isinstance(path[1], str):
                    return  # it may read any of them
                read.add(path[1])
    known = spec.variables
    for name, state in spec.states.items():
        for at, variable in state.variables():
            if variable in read or did_you_mean(variable, read - known):
                continue  # in the second case, the misspelt reader is reported
            remedy = did_you_mean(variable, read - {variable}) or "read it somewhere, or delete it"
            message = f"nothing reads vars.{variable}"
            path = ("states", name, *at)
            yield subject.issue("FR408", path, message, remedy, key=True, severity="warning")


def _impossible_comparisons(subject: Subject) -> Iterator[Issue]:
    """Find conditions that compare a value with a constant which its enum does not have."""
    from jinja2 import nodes

    for text in subject.texts:
        if text.kind != "expression" or "=" not in text.text or not text.is_valid:
            continue
        expression = parsed_expression(text.text)
        inner = expression.find_all(nodes.Compare)
        for node in (expression, *inner) if isinstance(expression, nodes.Compare) else inner:
            yield from _impossible(subject, text, node)


def _impossible(subject: Subject, text: Text, node: "nodes.Compare") -> Iterator[Issue]:
    from jinja2 import nodes

    keys = keys_of(node.expr)
    if keys is None or len(node.ops) != 1 or node.ops[0].op not in ("eq", "ne"):
        return
    constant = node.ops[0].expr
    shape = shapes_at(subject, text).get(str(keys[0])) if isinstance(constant, nodes.Const) else None
    hidden = keys[0] in text.extra and text.moment != "called"
    schema = None if shape is None or hidden else schema_at(shape, keys)
    allowed = None if schema is None else schema.get("enum")
    if isinstance(allowed, list) and isinstance(constant, nodes.Const) and constant.value not in allowed:
        remedy = suggest(str(constant.value), [str(value) for value in allowed], "values")
        message = f"{dotted(keys)} is never {constant.value!r}, as its schema says"
        yield subject.issue("FR409", text.path, message, remedy, severity="warning")


# --- ${VAR} -------------------------------------------------------------------------------------------------------


def _references(subject: Subject) -> Iterator[Issue]:
    """Find references to environment variables where they are plain text."""
    document = subject.loaded.document
    of_profiles = {place for path, place in document.places.items() if path[:1] == ("profiles",)}
    for path, text in _texts(document.value, ()):
        if document.places.get(path) in of_profiles:
            continue
        for found in dict.fromkeys(_REFERENCE.findall(text)):
            remedy = "give the value as an input, or set it in a profile"
            message = f"{found} is plain text here: the environment is read in models and profiles only"
            yield subject.issue("FR407", path, message, remedy, word=found, severity="warning")


def _texts(value: JSON, path: Path) -> Iterator[tuple[Path, str]]:
    """Yield the texts of a spec outside of models and profiles."""
    if isinstance(value, str):
        if "${" in value:
            yield path, value
    elif isinstance(value, dict):
        in_flow = not path or (len(path) >= 2 and path[-2] == "flows")
        for key, item in value.items():
            if not (in_flow and (key in ("model", "models", "profiles") or key.startswith("x-"))):
                yield from _texts(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, (*path, index))


def _cut_texts(subject: Subject) -> Iterator[Issue]:
    """Find texts for models and people that a comment cuts off: `` #5`` in a text without quotes begins one."""
    document = subject.loaded.document
    lines = document.text.splitlines()
    for path, place in document.places.items():
        if path[-1:] not in (("content",), ("prompt",)) or place.line > len(lines):
            continue
        written = lines[place.line - 1][place.column - 1 :]
        if written[:1] not in ("'", '"', "|", ">", "{", "[", "&", "*", "#", "") and (cut := _CUT.search(written)):
            remedy = "quote the text, or write the comment as # and a space"
            message = f"the text ends before {cut[1]!r}: YAML reads that as a comment"
            yield subject.issue("FR410", path, message, remedy, severity="warning")
