"""FR708: the arguments of a sub-flow include all required inputs, no unknown ones, and none of a wrong type."""

from collections.abc import Iterator, Mapping

from flowrun.checks.offers import is_constant
from flowrun.checks.subject import Subject
from flowrun.core.json_schema import compile_schema
from flowrun.errors import Issue, Path
from flowrun.spec.model import Holds, Spec, Template
from flowrun.spec.parts import parts_of
from flowrun.spec.suggestions import suggest


def check_flows(subject: Subject) -> Iterator[Issue]:
    """Compare the arguments that states pass to sub-flows with the inputs that the sub-flows declare."""
    for name, state in subject.spec.states.items():
        for part in parts_of(state, Holds.FLOW):
            yield from _inputs(subject, ("states", name, *part.path[:-1]), part.value, part.owner.arguments)


def _inputs(subject: Subject, path: Path, reference: str, arguments: Mapping[str, Template]) -> Iterator[Issue]:
    flow = subject.flows.get(reference)
    if flow is None:
        return
    where = (*path, "with") if subject.has((*path, "with")) else path
    for name, schema in flow.inputs.items():
        if name not in arguments and "default" not in schema:
            remedy = f"add '{name}' to with, or give the input a default"
            yield subject.issue(
                "FR708", where, f"the sub-flow {reference!r} needs the input {name!r}", remedy, key=True
            )
    for name, value in arguments.items():
        at = (*path, "with", name)
        if name not in flow.inputs:
            remedy = suggest(name, flow.inputs, f"inputs of {reference}")
            yield subject.issue("FR708", at, f"the sub-flow {reference!r} has no input {name!r}", remedy, key=True)
        elif is_constant(value) and (wrong := _mismatch(flow, name, value)):
            message = f"the input {name!r} of the sub-flow {reference!r} does not match: {wrong}"
            yield subject.issue("FR708", at, message, "change the value or the input's schema")


def _mismatch(flow: Spec, name: str, value: Template) -> str | None:
    try:
        return compile_schema(flow.inputs[name])(value)
    except Exception:
        return None  # the schema itself is wrong; check_schemas reports it
