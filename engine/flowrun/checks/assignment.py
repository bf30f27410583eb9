"""FR405: everything that a template reads is set on every path to the template."""

from collections.abc import Iterator
from typing import Final

from flowrun.checks.dataflow import Slot, StateGraph, names_on_path, result_slots
from flowrun.checks.subject import Subject
from flowrun.core.texts import Text, states_of
from flowrun.errors import Issue
from flowrun.spec.model import EndState, Spec
from flowrun.templates.reads import Reads

_REMEDIES: Final = {
    "reply": "put a chat state on that path",
    "results": "put a tools state on that path",
    "error": "lead there by a catch only",
    "threads": "read it in a state",
    "vars": "give it a first value under the flow's vars",
    "outputs": "put that state on the path",
}


def check_assignment(subject: Subject) -> Iterator[Issue]:
    """Find templates that read a variable, reply, error, result or output that some path to them does not set."""
    spec, graph = subject.spec, subject.state_graph
    members = {("vars", name) for name in spec.variables} | {("outputs", name) for name in spec.states}
    for text in subject.texts:
        states = [name for name in states_of(spec, text) if name in graph.facts]  # in the others it is never evaluated
        for slot in sorted(_slots_read(text.reads_if_valid(), text.extra)):
            if len(slot) > 1 and slot not in members:
                continue
            if text.moment in ("vars", "threads"):
                if not _is_set_before(spec, text, slot):
                    yield _too_early_issue(subject, text, slot)
            elif unset := next((name for name in states if not _is_set_at(spec, graph, text, name, slot)), None):
                yield _not_set_issue(subject, text, unset, slot)


def _is_set_before(spec: Spec, text: Text, slot: Slot) -> bool:
    """Return whether a slot is set when a text is evaluated before the first state."""
    return text.moment == "threads" and slot[0] == "vars" and slot[1] in spec.vars


def _is_set_at(spec: Spec, graph: StateGraph, text: Text, name: str, slot: Slot) -> bool:
    """Return whether a slot is set whenever a text is evaluated in a state."""
    if slot == ("threads",):
        return True
    state = spec.states[name]
    if graph.is_set(slot, name):
        return True
    if text.moment == "failed":
        return slot == ("error",) or (slot[0] == "vars" and slot[1] in text.assigned)
    if text.moment == "called" and state.result == "reply" and slot == ("reply",):
        return True
    if text.moment in ("entered", "called") or isinstance(state, EndState):
        return False
    return slot in result_slots(name, state) or (slot[0] == "vars" and slot[1] in text.assigned)


def _slots_read(reads: Reads, extra: frozenset[str]) -> set[Slot]:
    slots: set[Slot] = set()
    for path in reads.paths:
        root = str(path[0])
        if root in extra:
            continue
        if root in ("reply", "results", "error", "threads"):
            slots.add((root,))
        elif root in ("vars", "outputs") and len(path) > 1 and isinstance(path[1], str):
            slots.add((root, path[1]))
    return slots - {slot for slot in reads.guarded if all(isinstance(key, str) for key in slot)}


def _too_early_issue(subject: Subject, text: Text, slot: Slot) -> Issue:
    what = "the flow's vars are" if text.moment == "vars" else "the first messages are"
    message = f"{'.'.join(slot)} is not set yet when {what} rendered"
    return subject.issue("FR405", text.path, message, _remedy_before_start(text, slot), word=".".join(slot))


def _not_set_issue(subject: Subject, text: Text, state: str, slot: Slot) -> Issue:
    name = ".".join(slot)
    unless = f"ask whether '{name} is defined'" if len(slot) == 1 else f"write '{name} | default(...)'"
    remedy = f"{_REMEDIES[slot[0]]}, or {unless}"
    path = subject.state_graph.path_without(slot, state)
    states = " > ".join(names_on_path(path)) if path else state
    return subject.issue("FR405", text.path, f"{name} is not set on the path {states}", remedy, word=name)


def _remedy_before_start(text: Text, slot: Slot) -> str:
    if slot[0] == "vars":
        return "a first value can read inputs only: set it in a state" if text.moment == "vars" else _REMEDIES["vars"]
    return "move it to a state's set or messages"
