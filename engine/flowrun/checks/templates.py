"""FR4xx: templates and expressions are valid Jinja2, and the names in them exist. They are parsed, never evaluated."""

from collections.abc import Collection, Iterator, Mapping
from typing import Final

from flowrun.checks.shapes import MissingMember, find_missing_member, shapes_at
from flowrun.checks.slips import remedy_of_name, remedy_of_syntax
from flowrun.checks.subject import Severity, Subject
from flowrun.core.texts import Text
from flowrun.core.views import ErrorView, ReplyView, RequestView, RunView, ScopeView
from flowrun.errors import Issue, dotted
from flowrun.excerpts import cut
from flowrun.spec.model import MAIN, Spec, WorkingState
from flowrun.spec.suggestions import did_you_mean, suggest
from flowrun.templates import TemplateError
from flowrun.templates.reads import Keys, Reads

_SHOWN: Final = 200
"""Characters of a text that a message shows."""

_NAMES: Final = frozenset(ScopeView.__annotations__)
_DEEP: Final = ("results", "call")
"""Names whose own members are not in ``_members``."""


def check_templates(subject: Subject) -> Iterator[Issue]:
    """Find templates that are not valid Jinja2, and names in them that are not defined."""
    members = _members(subject.spec)
    for text in subject.texts:
        if text.kind == "expression" and ("{{" in text.text or "{%" in text.text):
            remedy = "write the expression without braces, such as when: reply.tool_calls"
            yield subject.issue("FR403", text.path, f"{text.text!r} has braces, and is an expression already", remedy)
            continue
        try:
            reads = text.reads()
        except TemplateError as exc:
            line = getattr(exc.__cause__, "lineno", None) or 1
            yield subject.issue("FR401", text.path, str(exc), remedy_of_syntax(text.text, str(exc)), line=line)
            continue
        yield from _unknown_names(subject, text, reads, members)
        yield from _missing_members(subject, text, reads, members)


def _unknown_names(
    subject: Subject, text: Text, reads: Reads, members: Mapping[str, Collection[str]]
) -> Iterator[Issue]:
    names = text.extra if text.moment == "served" else _NAMES | text.extra
    for name in sorted(reads.roots - names):
        remedy = remedy_of_name(name, text.text) or suggest(name, names, "names")
        if name in subject.spec.inputs and text.moment != "served":
            remedy = f"did you mean inputs.{name}?"
        message = f"the name {name!r} is not defined in {cut(text.text, _SHOWN)!r}"
        yield subject.issue("FR402", text.path, message, remedy, word=name)
    for root, member in sorted({(str(path[0]), path[1]) for path in _unguarded(reads, text)}, key=str):
        if root in names & members.keys() and isinstance(member, str) and member not in members[root]:
            message = f"{root}.{member} is not defined in {cut(text.text, _SHOWN)!r}"
            remedy = suggest(member, members[root], f"members of {root}")
            yield subject.issue("FR404", text.path, message, remedy, word=f"{root}.{member}")


def _missing_members(
    subject: Subject, text: Text, reads: Reads, members: Mapping[str, Collection[str]]
) -> Iterator[Issue]:
    """Find paths to members that the schemas of inputs, replies and outputs do not have."""
    deep = sorted((path for path in _unguarded(reads, text) if len(path) > 2 or path[0] in _DEEP), key=str)
    if not deep:
        return
    shapes = shapes_at(subject, text)
    for path in deep:
        root = str(path[0])
        known = root not in members or path[1] in members[root]
        if known and root in shapes and (missing := find_missing_member(shapes[root], path)) is not None:
            yield _missing_member_issue(subject, text, missing)


def _unguarded(reads: Reads, text: Text) -> list[Keys]:
    """Return the paths that a text reads without a test of their existence, except into extra names without a shape."""
    return [
        path
        for path in reads.paths
        if len(path) > 1
        and (text.moment in ("called", "served") or path[0] not in text.extra)
        and not any(path[: len(guard)] == guard for guard in reads.guarded if len(guard) > 1)
    ]


def _missing_member_issue(subject: Subject, text: Text, missing: MissingMember) -> Issue:
    owner = dotted(missing.owner)
    if missing.kind == "object":
        unsure = "" if missing.sure else ", as far as its schema says"
        message = f"{owner} has no member {missing.key!r}{unsure}"
        remedy = suggest(str(missing.key), missing.known, f"members of {owner}")
        if not missing.sure:
            remedy += "; or declare it, or set additionalProperties"
    elif missing.kind == "null":
        message = f"{owner} is always null here, so it has no member {missing.key!r}"
        remedy = "give the chat state a response_format" if owner.endswith("parsed") else "give it an output"
    else:
        message = f"{owner} is of type {missing.kind} and has no member {missing.key!r}"
        counts = missing.kind in ("array", "string") and missing.key in ("length", "len", "size", "count")
        similar = did_you_mean(str(missing.key), missing.known)
        remedy = f"write {owner} | length" if counts else similar or "read it whole, or change its schema"
    severity: Severity = "error" if missing.sure else "warning"
    word = dotted((*missing.owner, missing.key))
    return subject.issue("FR404", text.path, message, remedy, word=word, severity=severity)


def _members(spec: Spec) -> Mapping[str, Collection[str]]:
    """Return the members that each name can have on any path of a run."""
    return {
        "inputs": set(spec.inputs),
        "vars": spec.variables,
        "outputs": {name for name, state in spec.states.items() if isinstance(state, WorkingState)},
        "reply": ReplyView.__annotations__,
        "error": ErrorView.__annotations__,
        "run": RunView.__annotations__,
        "request": RequestView.__annotations__,
        "threads": {MAIN, *spec.threads},
    }
