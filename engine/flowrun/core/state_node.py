"""The compiled graph, its states, and one transition under way. Decides what leaving a state and failing in it lead to.

A kind of state is a subclass of ``StateNode`` in a module of its own in ``states/``.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal

import msgspec

from flowrun.core.call_handling import LAST_REPLY
from flowrun.core.events import Answer, Effect, Move, Outcome, Sleep, ToolDeclaration
from flowrun.core.json_schema import Validator
from flowrun.core.rendering import Prologue
from flowrun.core.run import EMPTY, Draft, Run, RunScope, Transition, copy_of, freeze, thaw
from flowrun.errors import Failure
from flowrun.spec.model import JSON, Catch, Limits, Retry, Spec
from flowrun.templates import Evaluator, Scope, TemplateError

UNCAUGHT: Final = frozenset({"limit.steps", "limit.timeout", "run.cancelled", "input.invalid"})
"""Failures of the run as a whole: no state's catch takes them."""


class StateFailure(Exception):
    """Carries a failure from where it is found to where the state's retry and catch are looked up."""

    def __init__(self, name: str, message: str) -> None:
        self.failure = Failure(name=name, message=message)
        super().__init__(message)


def failure_of(error: StateFailure | TemplateError) -> Failure:
    """Return the failure that an exception of a state's handler means."""
    return error.failure if isinstance(error, StateFailure) else Failure(name="template.failed", message=str(error))


class CompiledRoute(msgspec.Struct, frozen=True):
    """A compiled route: ``holds`` None always matches, ``reads_calls`` are the threads at whose last calls
    templates have looked once it matched: its condition, those of the routes before it, and the state's ``set``.
    """

    holds: Callable[[Scope], bool] | None
    to: str
    reads_calls: frozenset[str] = frozenset()


class CompiledTool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool that can be called: its declaration to the model, and how its arguments are checked."""

    declaration: ToolDeclaration
    entrypoint: str
    timeout: float
    idempotent: bool
    validate: Validator


class StateNode(msgspec.Struct, frozen=True, kw_only=True):
    """What the machine knows of a state; a subclass is one kind of state.

    ``reads_calls`` are the threads at whose last calls the templates look that are evaluated when the state is entered.
    See ``call_handling``.
    """

    name: str
    reads_calls: frozenset[str] = frozenset()
    assignments: tuple[tuple[str, Evaluator], ...] = ()
    routes: tuple[CompiledRoute, ...] = ()
    retry: Retry | None = None
    timeout: float | None = None
    catches: tuple[Catch, ...] = ()

    def enter(self, turn: "Turn") -> None:
        """Ask for effects, or leave at once.

        Raises:
            StateFailure, TemplateError: the state fails.
        """
        raise NotImplementedError

    def try_again(self, turn: "Turn") -> None:
        """Begin another attempt after a failure; what succeeded in the one before stays. See ``enter``."""
        self.enter(turn)

    def accepts(self, run: Run, event: Answer) -> bool:
        """Return whether an event of the run's step is awaited; any other changes nothing."""
        return False

    def handle(self, turn: "Turn", event: Answer) -> None:
        """Take an event that was accepted. See ``enter``."""

    def failed(self, turn: "Turn") -> None:
        """Keep what no later visit of any state should do again, before a retry or catch."""


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """A whole spec, compiled. ``flows`` are its sub-flows by the texts that refer to them."""

    spec: Spec
    start: str
    flows: Mapping[str, "Graph"]
    nodes: Mapping[str, StateNode]
    tools: Mapping[str, CompiledTool]
    threads: Mapping[str, Prologue]
    variables: tuple[tuple[str, Evaluator], ...]
    inputs: Validator
    limits: Limits


class Turn:
    """One transition under way: the draft of the run, what it asks for, the moves made, and where it goes next."""

    __slots__ = ("_before", "effects", "graph", "moves", "run", "target")

    def __init__(self, graph: Graph, run: Run) -> None:
        self.graph = graph
        self.run = thaw(run)
        self.effects: list[Effect] = []
        self.moves: list[Move] = []
        self.target: str | None = None
        self._before: Draft = run

    @property
    def scope(self) -> Scope:
        """The names that templates see now."""
        return RunScope(self.run)

    def end(self) -> Transition:
        """Return what was decided. The turn is over."""
        return Transition(freeze(self.run), tuple(self.effects), tuple(self.moves))

    def enter(self, node: StateNode) -> None:
        """Have the run be in another state."""
        run = self.run
        run.state, run.step, run.attempt = node.name, run.step + 1, 1
        run.awaiting, run.left, run.started, run.items = "", 0, 0, ()
        run.returned = run.calls = run.children = None
        run.path = run.path.appended(node.name)
        if run.unread and node.reads_calls:
            self._see_calls(node.reads_calls)
        self.target = None
        self._before = copy_of(run)

    # --- what a state does --------------------------------------------------------------------------------------------

    def mark(self) -> None:
        """Keep what was changed so far, even if the state fails from here on. Effects are asked for after that."""
        self._before = copy_of(self.run)

    def leave(self, node: StateNode, output: Any) -> None:
        """Finish a state: keep its output, set its variables, choose the first route that matches.

        Raises:
            StateFailure: no route matches.
            TemplateError: a template or condition cannot be evaluated.
        """
        run = self.run
        run.outputs = {**run.outputs, node.name: output}
        scope = RunScope(run)
        sets = self._assign(node, scope) if node.assignments else EMPTY
        for index, route in enumerate(node.routes):
            if route.holds is None or route.holds(scope):
                if run.unread and route.reads_calls:
                    self._see_calls(route.reads_calls)
                self.target = route.to
                self.moves.append(
                    Move(state=node.name, step=run.step, how="route", to=route.to, index=index, sets=sets)
                )
                return
        message = f"no route of state {run.state!r} matched: give it a last route without when"
        raise StateFailure("route.unmatched", message)

    def fail(self, failure: Failure) -> None:
        """Decide what a failure in the run's state leads to: another attempt, a catch, or the end."""
        run = self.run
        failure = Failure(name=failure.name, message=failure.message, state=run.state)
        node = self.graph.nodes.get(run.state)
        if node is not None and failure.name not in UNCAUGHT:
            node.failed(self)
            if self._retry(node, failure) or self._catch(node, failure):
                return
        self.finish("failed", None, failure)

    def finish(self, status: Literal["succeeded", "failed", "cancelled"], output: JSON, error: Failure | None) -> None:
        """End the run. A move to a state that is not entered any more is none."""
        run = self.run
        run.status, run.awaiting = status, ""
        run.outcome = Outcome(status=status, output=output, error=error)
        self.effects.append(run.outcome)
        sets = self.moves.pop().sets if self.target is not None and self.moves else EMPTY
        self.target = None
        if run.state:
            self.moves.append(Move(state=run.state, step=run.step, how="end", failure=error, sets=sets))

    def _assign(self, node: StateNode, scope: Scope) -> Mapping[str, JSON]:
        """Set a state's variables, each of which the next ones see."""
        run, sets = self.run, {}
        for name, evaluate in node.assignments:
            sets[name] = value = evaluate(scope)
            run.vars = {**run.vars, name: value}
        return sets

    def _see_calls(self, threads: frozenset[str]) -> None:
        """Note that a template looked at the last calls of threads."""
        run = self.run
        run.unread -= threads
        if LAST_REPLY in threads and run.reply is not None and run.reply.thread in run.unread:
            run.unread -= {run.reply.thread}

    # --- failures -----------------------------------------------------------------------------------------------------

    def undo(self) -> None:
        """Undo what was changed since the last mark. A state moves on as its last act, so there is no move to undo."""
        self.run = thaw(self._before)
        self.effects.clear()
        self.target = None

    def _retry(self, node: StateNode, failure: Failure) -> bool:
        run, retry = self.run, node.retry
        if retry is None or run.attempt >= retry.max_attempts or not matches(failure.name, retry.errors):
            return False
        if run.step + run.child_steps >= run.max_steps:
            return False
        delay = _delay_before(retry, run.attempt)
        self.moves.append(Move(state=node.name, step=run.step, how="retry", to=node.name, failure=failure))
        run.step += 1
        run.attempt += 1
        run.awaiting = "sleep"
        run.status = "running"
        self.effects.append(Sleep(step=run.step, seconds=delay, jitter=retry.jitter))
        return True

    def _catch(self, node: StateNode, failure: Failure) -> bool:
        run = self.run
        for index, catch in enumerate(node.catches):
            if matches(failure.name, catch.errors):
                run.status, run.error = "running", failure
                self.target = catch.to
                self.moves.append(
                    Move(state=node.name, step=run.step, how="catch", to=catch.to, index=index, failure=failure)
                )
                return True
        return False


def _delay_before(retry: Retry, attempt: int) -> float:
    """Return the seconds to wait after a failed attempt; a power that no float holds is above every ``max_delay``."""
    try:
        return min(retry.delay * retry.backoff ** (attempt - 1), retry.max_delay)
    except OverflowError:
        return retry.max_delay if retry.delay else 0.0


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Return whether a failure's name is among patterns: full names, families such as ``tool.*``, or none for all."""
    patterns = tuple(patterns)
    return not patterns or any(name == p or (p.endswith(".*") and name.startswith(p[:-1])) for p in patterns)
