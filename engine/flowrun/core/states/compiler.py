"""The parts of a spec that its states need when they are compiled."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from flowrun.core.call_handling import NOTHING, CallHandling
from flowrun.core.events import ToolDeclaration
from flowrun.core.rendering import compile_say
from flowrun.core.run import compile_route_condition, is_about_calls
from flowrun.core.state_node import CompiledCatch, CompiledRetry, CompiledRoute
from flowrun.core.timing import compile_duration
from flowrun.spec.model import Catch, ChatState, Duration, Retry, Route, Seconds, Spec, WorkingState
from flowrun.templates import compile_assignments, compile_condition, compile_text


class Compiler(msgspec.Struct, frozen=True, kw_only=True):
    """The spec of the states to compile. See ``graph.compile_graph`` for the fields."""

    spec: Spec
    declarations: Mapping[str, ToolDeclaration]
    backends: Mapping[str, str]
    handling: CallHandling

    def common(self, name: str, state: WorkingState) -> dict[str, Any]:
        """Return the fields that the nodes of all kinds share, except those of end states."""
        return {
            "name": name,
            "reads_calls": self.handling.entered.get(name, NOTHING),
            "assignments": compile_assignments(state.set),
            "say": compile_say(state.say, state.own_thread),
            "routes": tuple(self._routes(name, state.routes)),
            "leaves_safely": _leaves_safely(state),
            "retry": None if state.retry is None else _compile_retry(state.retry),
            **_compile_timeout(state.timeout),
            "catches": tuple(_compile_catch(catch, state.own_thread) for catch in state.catch),
        }

    def _routes(self, state: str, routes: Iterable[Route]) -> Iterator[CompiledRoute]:
        reads = self.handling.set.get(state, NOTHING)
        for index, route in enumerate(routes):
            reads |= self.handling.routes.get((state, index), NOTHING)
            holds = None if route.when is None else compile_route_condition(route.when)
            yield CompiledRoute(holds, route.to, reads, index)


def _leaves_safely(state: WorkingState) -> bool:
    """Return whether a state can always be left: nothing but what its reply calls is evaluated, and a route matches."""
    if state.set or state.say:
        return False
    for route in state.routes:
        if route.when is None:
            return True
        if not (isinstance(state, ChatState) and is_about_calls(route.when)):
            return False
    return False


def _compile_timeout(timeout: Duration | None) -> dict[str, Any]:
    if timeout is None or isinstance(timeout, Seconds):
        return {"timeout": timeout}
    return {"timeout": math.inf, "render_timeout": compile_duration(timeout, above_zero=True)}


def _compile_retry(retry: Retry) -> CompiledRetry:
    return CompiledRetry(
        max_attempts=retry.max_attempts,
        errors=retry.errors,
        holds=None if retry.when is None else compile_condition(retry.when),
        feedback=None if retry.feedback is None else compile_text(retry.feedback),
        delay=compile_duration(retry.delay),
        backoff=retry.backoff,
        max_delay=retry.max_delay,
        jitter=retry.jitter,
    )


def _compile_catch(catch: Catch, thread: str) -> CompiledCatch:
    return CompiledCatch(
        errors=catch.errors,
        holds=None if catch.when is None else compile_condition(catch.when),
        assignments=compile_assignments(catch.set),
        say=compile_say(catch.say, thread),
        to=catch.to,
    )
