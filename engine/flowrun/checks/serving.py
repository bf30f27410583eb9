"""FR718: what ``serve`` makes of a request are inputs of the flow, and all that it needs."""

from collections.abc import Iterator

from flowrun.checks.subject import Subject
from flowrun.errors import Issue
from flowrun.spec.suggestions import suggest


def check_serving(subject: Subject) -> Iterator[Issue]:
    """Compare the inputs that ``serve`` gives with those that the flow declares."""
    spec = subject.spec
    if spec.serve is None:
        return
    for name, schema in spec.inputs.items():
        if name not in spec.serve.inputs and "default" not in schema:
            remedy = f"add {name!r} to serve.inputs, or give the input a default"
            yield subject.issue("FR718", ("serve",), f"a request gives no input {name!r}, which the flow needs", remedy)
    for name in spec.serve.inputs:
        if name not in spec.inputs:
            path = ("serve", "inputs", name)
            yield subject.issue(
                "FR718", path, f"the flow has no input {name!r}", suggest(name, spec.inputs, "inputs"), key=True
            )
