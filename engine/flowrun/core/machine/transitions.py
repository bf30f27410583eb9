"""From state to state: what leaving a state and failing in it lead to."""

from collections.abc import Callable, Iterable
from typing import Any, Final

from flowrun.core.events import Sleep
from flowrun.core.graph import EndNode, Graph, ToolsNode
from flowrun.core.machine.state import ASLEEP, PENDING, Next, Run, StateFailure, finish, replace, scope_of, succeeded
from flowrun.core.machine.threads import with_made
from flowrun.errors import Failure
from flowrun.spec.model import JSON
from flowrun.templates import TemplateError

UNCAUGHT: Final = frozenset({"limit.steps", "limit.timeout", "run.cancelled", "input.invalid"})
"""Failures of the run as a whole: no state's catch takes them."""


def leave(graph: Graph, run: Run, output: JSON, **changes: Any) -> Next:
    """Finish the state that the run is in: keep its output, set its variables, take the first way that matches.

    ``changes`` are fields of the run that the state leaves otherwise than it found them.
    """
    node = graph.nodes[run.state]
    assert not isinstance(node, EndNode)
    run = replace(run, outputs={**run.outputs, run.state: output}, awaiting=(), kept=(), **changes)
    for name, evaluate in node.assignments:
        run = replace(run, vars={**run.vars, name: evaluate(scope_of(run))})
    scope = None
    read = node.set_reads_calls
    for way in node.ways:
        read = read or way.reads_calls
        if way.holds is None or way.holds(scope := scope or scope_of(run)):
            return Next(replace(run, unread="") if read and run.unread else run, (), way.to)
    raise StateFailure("route.unmatched", f"no route of state {run.state!r} matched: give it a last route without when")


def fail(graph: Graph, run: Run, failure: Failure) -> Next:
    """Decide what a failure in the run's state leads to: another attempt, a catch, or the end."""
    failure = Failure(name=failure.name, message=failure.message, state=run.state)
    node = graph.nodes[run.state]
    if not isinstance(node, EndNode) and failure.name not in UNCAUGHT:
        if isinstance(node, ToolsNode):
            run = with_made(run, node.thread)
        retry = node.retry
        if retry is not None and run.attempt < retry.max_attempts and matches(failure.name, retry.errors):
            delay = min(retry.delay * retry.backoff ** (run.attempt - 1), retry.max_delay)
            kept = tuple(answer if succeeded(answer) else PENDING for answer in run.awaiting)
            again = replace(run, step=run.step + 1, attempt=run.attempt + 1, awaiting=ASLEEP, kept=kept)
            return Next(again, (Sleep(step=again.step, seconds=delay, jitter=retry.jitter),))
        for catch in node.catches:
            if matches(failure.name, catch.errors):
                return Next(replace(run, status="running", error=failure, awaiting=(), kept=()), (), catch.to)
    return Next(*finish(run, "failed", None, failure))


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Tell whether a failure's name is among patterns: whole names, families such as ``tool.*``, or none for all."""
    patterns = tuple(patterns)
    return not patterns or any(name == p or (p.endswith(".*") and name.startswith(p[:-1])) for p in patterns)


def attempt(graph: Graph, run: Run, handler: Callable[..., Next], *subject: Any) -> Next:
    """Call a handler; a failure in it goes to the state's retry, its catch, or ends the run."""
    try:
        return handler(graph, run, *subject)
    except StateFailure as exc:
        return fail(graph, run, exc.failure)
    except TemplateError as exc:
        return fail(graph, run, Failure(name="template.failed", message=str(exc)))
