"""FR405: what a template reads has been set on every way that leads to it."""

from collections.abc import Iterator
from typing import Final

from flowrun.checks.dataflow import Slot, StateGraph, own_gains, spell
from flowrun.checks.subject import Subject
from flowrun.core.texts import Text, texts_of
from flowrun.errors import Issue
from flowrun.spec.model import EndState, Spec
from flowrun.templates.reads import Reads

_WHO: Final = {
    "reply": "put a chat state on that path",
    "results": "put a tools state on that path",
    "error": "lead there by a catch only",
    "vars": "give it a first value under the flow's vars",
    "outputs": "put that state on the path",
}


def check_assignment(subject: Subject) -> Iterator[Issue]:
    """Find reads of variables, replies, results and outputs that some way from the start has not set."""
    spec, ways = subject.spec, subject.ways
    members = {
        ("vars", name) for state in spec.states.values() if not isinstance(state, EndState) for name in state.set
    }
    members |= {("vars", name) for name in spec.vars} | {("outputs", name) for name in spec.states}
    for text in texts_of(spec):
        known = _known_at(spec, ways, text)
        if known is None:
            continue
        for slot in sorted(_slots(text.reads_if_valid(), text.extra) - known):
            if len(slot) == 1 or slot in members:
                yield _missing(subject, text, slot)


def _known_at(spec: Spec, ways: StateGraph, text: Text) -> frozenset[Slot] | None:
    """Give what is set when a text is evaluated; None if it never is."""
    if text.moment == "vars":
        return frozenset()
    if text.moment == "threads":
        return frozenset(("vars", name) for name in spec.vars)
    facts, state = ways.facts.get(text.state), spec.states[text.state]
    if facts is None:
        return None
    if text.moment == "entered" or isinstance(state, EndState):
        return facts.set
    return facts.set | own_gains(text.state, state) | {("vars", name) for name in text.assigned}


def _slots(reads: Reads, extra: frozenset[str]) -> set[Slot]:
    slots: set[Slot] = set()
    for path in reads.paths:
        root = str(path[0])
        if root in extra:
            continue
        if root in ("reply", "results", "error"):
            slots.add((root,))
        elif root in ("vars", "outputs") and len(path) > 1 and isinstance(path[1], str):
            slots.add((root, path[1]))
    return slots - {slot for slot in reads.guarded if all(isinstance(key, str) for key in slot)}


def _missing(subject: Subject, text: Text, slot: Slot) -> Issue:
    name = ".".join(slot)
    unless = f"ask whether '{name} is defined'" if len(slot) == 1 else f"write '{name} | default(...)'"
    remedy = f"{_WHO[slot[0]]}, or {unless}"
    if text.moment in ("vars", "threads"):
        what = "the flow's vars are" if text.moment == "vars" else "the first messages are"
        return subject.issue("FR405", text.path, f"{name} is not set yet when {what} rendered", _later(text, slot))
    path = subject.ways.path_without(slot, text.state)
    way = " > ".join(spell(path)) if path else text.state
    return subject.issue("FR405", text.path, f"{name} is not set on the path {way}", remedy)


def _later(text: Text, slot: Slot) -> str:
    if slot[0] == "vars":
        return "a first value can read inputs only: set it in a state" if text.moment == "vars" else _WHO["vars"]
    return "move it to a state's set or messages"
