"""FR501 to FR504: entrypoints lead to Python functions, which can be called with what the spec gives them."""

from collections.abc import Iterator

from flowrun.checks.schema_sense import properties_elsewhere
from flowrun.checks.subject import Severity, Subject
from flowrun.errors import Issue, Path
from flowrun.spec import EntrypointError, Signature, check_arguments, check_signature
from flowrun.spec.model import Holds
from flowrun.spec.parts import parts_of


def check_tools(subject: Subject) -> Iterator[Issue]:
    """Find entrypoints without a function, and functions that cannot be called as declared. Needs their signatures."""
    if subject.functions is None:
        return
    for name, tool in subject.spec.tools.items():
        if tool.entrypoint is None or not subject.has(("tools", name)):
            continue
        yield from _entrypoint(subject, ("tools", name, "entrypoint"), tool.entrypoint)
        signature = subject.functions.get(tool.entrypoint)
        if not isinstance(signature, Signature):
            continue
        if tool.parameters is None and signature.underivable is not None:
            message, remedy = signature.underivable
            yield subject.issue("FR502", ("tools", name), f"the tool {name!r}: {message}", remedy, key=True)
        if tool.parameters is None or properties_elsewhere(tool.parameters):
            continue  # in the second case, check_schemas reports it
        for found in check_signature(signature, tool.parameters):
            where: Path = ("tools", name, "parameters")
            severity: Severity = "error" if found.certain else "warning"
            yield subject.issue("FR503", where, found.message, found.remedy, key=True, severity=severity)
    for name, state in subject.spec.states.items():
        for part in parts_of(state, Holds.ENTRYPOINT):
            yield from _entrypoint(subject, ("states", name, *part.path), part.value)
            signature = subject.functions.get(part.value)
            if isinstance(signature, Signature):
                for argument, message, remedy in check_arguments(signature, part.owner.arguments):
                    where = ("states", name, *part.path[:-1], *(() if argument is None else ("with", argument)))
                    yield subject.issue("FR504", where, message, remedy, key=True)


def _entrypoint(subject: Subject, path: Path, entrypoint: str) -> Iterator[Issue]:
    assert subject.functions is not None
    function = subject.functions.get(entrypoint)
    if isinstance(function, EntrypointError):
        yield subject.issue("FR501", path, function.message, function.remedy)
