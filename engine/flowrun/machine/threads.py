"""Messages onto a run's threads."""

from collections.abc import Iterable, Mapping

from flowrun.machine.run import Run, replace
from flowrun.messages import Log
from flowrun.rendering import CompiledMessage, Opening, Passage, render
from flowrun.templates import Scope


def with_threads(run: Run, openings: Mapping[str, Opening], scope: Scope) -> Run:
    """Begin a run's threads with their first messages."""
    threads = {}
    count = 0
    for thread, opening in openings.items():
        first = render(opening.others, scope, opening.ready) if opening.others else opening.ready
        threads[thread] = Log(first.messages)
        count = first.call_count
    return replace(run, threads=threads, call_count=count)


def with_messages(run: Run, thread: str, templates: Iterable[CompiledMessage], scope: Scope) -> Run:
    """Render messages onto a thread."""
    new = render(templates, scope, Passage(call_count=run.call_count))
    threads = {**run.threads, thread: run.threads[thread].extended(new.messages)}
    return replace(run, threads=threads, call_count=new.call_count)
