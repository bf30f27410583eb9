"""FR501 and FR503: entrypoints lead to Python functions, and a tool's declared parameters match its function's."""

from collections.abc import Iterator

from flowrun.checks.subject import Subject
from flowrun.errors import Issue, Path
from flowrun.spec import EntrypointError, check_signature
from flowrun.spec.model import Holds
from flowrun.spec.parts import parts_of


def check_tools(subject: Subject) -> Iterator[Issue]:
    """Find entrypoints without a function, and tools whose parameters do not match. Needs the imported functions."""
    if subject.functions is None:
        return
    for name, tool in subject.spec.tools.items():
        if not subject.has(("tools", name)):
            continue
        yield from _entrypoint(subject, ("tools", name, "entrypoint"), tool.entrypoint)
        function = subject.functions.get(tool.entrypoint)
        if callable(function) and tool.parameters is not None:
            for message, remedy in check_signature(function, tool.parameters):
                yield subject.issue("FR503", ("tools", name, "parameters"), message, remedy, key=True)
    for name, state in subject.spec.states.items():
        for part in parts_of(state, Holds.ENTRYPOINT):
            yield from _entrypoint(subject, ("states", name, *part.path), part.value)


def _entrypoint(subject: Subject, path: Path, entrypoint: str) -> Iterator[Issue]:
    assert subject.functions is not None
    function = subject.functions.get(entrypoint)
    if isinstance(function, EntrypointError):
        yield subject.issue("FR501", path, function.message, function.remedy)
