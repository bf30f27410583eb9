"""The compiled graph, its states, and a transition in progress. Decides where a run goes when a state ends or fails.

Each kind of state is a subclass of ``StateNode``, in a module of its own in ``states/``.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Final, Literal

import msgspec

from flowrun.core.call_handling import LAST_REPLY
from flowrun.core.events import Answer, Effect, Move, Outcome, Replied, Sleep, ToolDeclaration
from flowrun.core.failures import StateFailure as StateFailure
from flowrun.core.failures import failure_of as failure_of
from flowrun.core.json_schema import Validator
from flowrun.core.messages import Reply
from flowrun.core.rendering import CompiledSay, Prologue
from flowrun.core.run import EMPTY, Draft, Feedback, Run, RunScope, Transition, copy_of
from flowrun.core.threads import say_messages
from flowrun.core.views import LazyError
from flowrun.errors import Failure
from flowrun.spec.model import JSON, Isolation, Limits, Spec
from flowrun.templates import Evaluator, Scope, TemplateError

UNCAUGHT: Final = frozenset({"limit.steps", "limit.timeout", "run.cancelled", "input.invalid"})
"""Failures of the run as a whole: no state's ``retry`` or ``catch`` applies to them."""


replace: Final = msgspec.structs.replace

_new: Final = tuple.__new__
"""Makes a named tuple at half the cost of calling its class."""


class CompiledRoute(msgspec.Struct, frozen=True):
    """A compiled route. It always matches if ``holds`` is None.

    ``reads_calls`` are the threads whose last tool calls have been read by a template when the route matches: by its
    condition, by a condition of the routes before it, or by the state's ``set``. ``index`` is its place in the state.
    """

    holds: Callable[[Draft], bool] | None
    to: str
    reads_calls: frozenset[str]
    index: int


class CompiledRetry(msgspec.Struct, frozen=True, kw_only=True):
    """A compiled retry policy. See ``spec.model.Retry``."""

    max_attempts: int
    errors: tuple[str, ...]
    holds: Callable[[Scope], bool] | None
    feedback: Callable[[Scope], str] | None
    delay: Callable[[Scope], float]
    backoff: float
    max_delay: float
    jitter: float


class CompiledCatch(msgspec.Struct, frozen=True, kw_only=True):
    """A compiled handler of failures. See ``spec.model.Catch``."""

    errors: tuple[str, ...]
    holds: Callable[[Scope], bool] | None
    assignments: tuple[tuple[str, Evaluator], ...]
    say: tuple[CompiledSay, ...]
    to: str


class HiddenArguments(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of a tool that its spec gives: their names, what renders them, and the validator of all of them."""

    names: frozenset[str]
    render: Evaluator
    validate: Validator


class CompiledTool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool that can be called.

    Attributes:
        declaration: the tool as models see it, without the arguments that the spec gives.
        declared: the tool with all of its arguments.
        entrypoint: its function; empty if it has none.
        result: what a tool without a function answers.
        validate: checks the arguments that a model gives.
        hidden: the arguments that the spec gives, and the validator of all arguments together; None: it gives none.
    """

    declaration: ToolDeclaration
    declared: ToolDeclaration
    entrypoint: str
    result: Callable[[Scope], str] | None
    timeout: float
    idempotent: bool
    max_output: int
    max_concurrency: int | None
    isolation: Isolation
    validate: Validator
    hidden: HiddenArguments | None


class StateNode(msgspec.Struct, frozen=True, kw_only=True):
    """A compiled state. Each subclass is one kind of state.

    A handler that raises has changed nothing of the run but what must stay, or has called ``Turn.save`` before: the
    changes since then are undone. It requests effects last.

    ``reads_calls`` are the threads whose last tool calls are read by the templates that are evaluated when the state is
    entered. See ``call_handling``. ``timeout`` is infinite where ``render_timeout`` gives it. ``leaves_safely``: to
    leave it cannot fail: a route matches, no template is evaluated, and it says nothing.

    ``of_visit`` are the failures of a visit with all its attempts: no other attempt follows them, and the time limit is
    for all of them together. ``part``: the node is a part of the state that the graph has by its name, and that state
    decides what comes after it.
    """

    of_visit: ClassVar[frozenset[str]] = frozenset()

    name: str
    part: bool = False
    reads_calls: frozenset[str] = frozenset()
    leaves_safely: bool = False
    assignments: tuple[tuple[str, Evaluator], ...] = ()
    say: tuple[CompiledSay, ...] = ()
    routes: tuple[CompiledRoute, ...] = ()
    retry: CompiledRetry | None = None
    timeout: float | None = None
    render_timeout: Callable[[Scope], float] | None = None
    catches: tuple[CompiledCatch, ...] = ()

    def timeout_of(self, run: Draft) -> float | None:
        """Return the seconds that a run which is in this state may stay in it."""
        return self.timeout if self.render_timeout is None else run.timeout

    @abstractmethod
    def enter(self, turn: "Turn") -> None:
        """Request effects, or leave the state at once.

        Raises:
            StateFailure, TemplateError: the state fails.
        """

    def try_again(self, turn: "Turn") -> None:
        """Start another attempt after a failure, and reuse the successful results. Raises as ``enter`` does."""
        self.enter(turn)

    def accepts(self, run: Run, event: Answer) -> bool:
        """Return whether the state awaits this event of its step. An event that is not accepted changes nothing.

        Not called in the pause before another attempt, which awaits ``Slept`` only.
        """
        return False

    def handle(self, turn: "Turn", event: Answer) -> None:
        """Handle an event that ``accepts`` has accepted. Raises as ``enter`` does."""

    def part_left(self, turn: "Turn") -> None:
        """Decide what comes after the part of this state that is done: another part, or the end of the visit."""
        raise NotImplementedError

    def failed(self, turn: "Turn") -> None:
        """Store the results that later states must reuse. Called after a failure, before a retry or catch."""


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """A compiled spec. ``flows`` maps each reference in the spec to the compiled sub-flow."""

    spec: Spec
    start: str
    flows: Mapping[str, "Graph"]
    nodes: Mapping[str, StateNode]
    tools: Mapping[str, CompiledTool]
    threads: Mapping[str, Prologue]
    variables: tuple[tuple[str, Evaluator], ...]
    inputs: Validator
    limits: Limits


class Turn(msgspec.Struct, gc=False):
    """A transition in progress: the draft of the run, the effects and moves so far, and the next state (``target``).

    ``saved`` is the draft that is restored if the state fails.
    """

    graph: Graph
    run: Draft
    saved: Draft | None = None
    effects: tuple[Effect, ...] = ()
    moves: list[Move] = []
    target: str | None = None

    @property
    def scope(self) -> Scope:
        """The variables that templates see now."""
        return RunScope(self.run)

    def end(self) -> Transition:
        """Return the transition. The draft is frozen without another copy, so the turn must not be used afterwards."""
        run = self.run
        run.__class__ = Run
        return _new(Transition, (run, self.effects, tuple(self.moves)))

    # --- what a state does --------------------------------------------------------------------------------------------

    def save(self, node: StateNode) -> Draft:
        """Preserve the run as it is now for the case that leaving the state fails; return the draft to change.

        Without this call, the changes of a state that fails stay; those of ``leave`` are always undone.
        """
        if not node.leaves_safely:
            self.saved = self.run
            self.run = copy_of(self.run)
        return self.run

    def leave(self, node: StateNode, output: Any) -> None:
        """Leave a state: store its output, set its variables, say its messages, choose the first route that matches.

        Raises:
            StateFailure: no route matches, or a message cannot be said.
            TemplateError: a template or condition cannot be evaluated.
        """
        if node.part:
            self.graph.nodes[node.name].part_left(self)
            return
        run = self.run if node.leaves_safely or self.saved is not None else self.save(node)
        run.outputs = {**run.outputs, node.name: output}
        sets = self._assign(node.assignments) if node.assignments else EMPTY
        said = say_messages(run, node.say, self.scope) if node.say else ()
        for route in node.routes:
            if route.holds is None or route.holds(run):
                if run.unread and route.reads_calls:
                    self.see_calls(route.reads_calls)
                self.target = route.to
                to, index = route.to, route.index
                self.moves.append(
                    Move(state=node.name, step=run.step, how="route", to=to, index=index, sets=sets, said=said)
                )
                return
        message = f"no route of state {run.state!r} matched: give it a last route without when"
        raise StateFailure("route.unmatched", message)

    def begin_step(self) -> Draft:
        """Begin another step of the same visit, and return its run. What was done before stays, also if the step fails.

        Raises:
            StateFailure: ``limit.steps``.
        """
        self.saved = None
        run = self.run
        if run.step + run.child_steps >= run.max_steps:
            raise StateFailure("limit.steps", too_many_steps(run))
        run.step, run.attempt = run.step + 1, 1
        run.awaiting, run.left, run.started, run.feedback = "", 0, 0, None
        run.returned = run.calls = run.children = None
        return run

    def fail(self, failure: Failure, reply: Reply | None = None) -> None:
        """Decide how the run continues after a failure of its state: with another attempt, a catch, or its end.

        A template of ``retry`` or ``catch`` that fails is a failure of its own, for the entries behind it.

        Args:
            reply: the reply that failed.
        """
        run = self.run
        failure = replace(failure, state=run.state)
        node = self.graph.nodes[run.state]
        if failure.name in UNCAUGHT:
            self.finish("failed", None, failure)
            return
        node.failed(self)
        try:
            if node.retry is not None and self._retry(node, node.retry, LazyError(failure, run.attempt, reply)):
                return
        except TemplateError as exc:
            failure = _failed_in_handling(failure, exc)
        for index, catch in enumerate(node.catches):
            before, error = self.run, LazyError(failure, self.run.attempt, reply)
            try:
                if self._applies(catch, error):
                    self.run = copy_of(before)
                    self._catch(node, index, catch, error)
                    return
            except (StateFailure, TemplateError) as exc:
                self.run = before
                failure = _failed_in_handling(failure, exc)
        self.finish("failed", None, failure)

    def finish(self, status: Literal["succeeded", "failed", "cancelled"], output: JSON, error: Failure | None) -> None:
        """End the run. If a route was chosen and its state is not entered any more, the move along it is removed."""
        run = self.run
        run.status, run.awaiting = status, ""
        run.outcome = Outcome(status=status, output=output, error=error)
        self.effects += (run.outcome,)
        left = self.moves.pop() if self.target is not None and self.moves else None
        sets, said = (EMPTY, ()) if left is None else (left.sets, left.said)
        self.target = None
        if run.state:
            self.moves.append(Move(state=run.state, step=run.step, how="end", failure=error, sets=sets, said=said))

    def _assign(self, assignments: tuple[tuple[str, Evaluator], ...]) -> Mapping[str, JSON]:
        """Set variables in order; the template of each can read the ones before it."""
        run, scope, sets = self.run, self.scope, {}
        for name, evaluate in assignments:
            sets[name] = value = evaluate(scope)
            run.vars = {**run.vars, name: value}
        return sets

    def see_calls(self, threads: frozenset[str]) -> None:
        """Record that a template has read the last tool calls of threads."""
        run = self.run
        last = () if run.reply is None or LAST_REPLY not in threads else (run.reply.thread,)
        run.unread = run.unread.difference(threads, last)

    # --- failures -----------------------------------------------------------------------------------------------------

    def abort(self, error: StateFailure | TemplateError, event: Answer | None = None) -> None:
        """Undo all changes since ``save``, and fail. A state requests effects and moves last: none are undone.

        Args:
            event: what the state was handling.
        """
        if self.saved is not None:
            self.run = self.saved
        self.fail(failure_of(error), event.reply if isinstance(event, Replied) else None)

    def _retry(self, node: StateNode, retry: CompiledRetry, error: LazyError) -> bool:
        """Start the pause before another attempt, if there is to be one."""
        run = self.run
        if run.attempt >= retry.max_attempts or not self._applies(retry, error):
            return False
        if error.failure.name in node.of_visit or run.step + run.child_steps >= run.max_steps:
            return False
        scope = RunScope(run, {"error": error})
        delay = _delay_before(retry, retry.delay(scope), run.attempt)
        if retry.feedback is not None and error.reply is not None:
            run.feedback = Feedback(error.reply, retry.feedback(scope))
        self.moves.append(Move(state=node.name, step=run.step, how="retry", to=node.name, failure=error.failure))
        run.step += 1
        run.attempt += 1
        run.awaiting = "sleep"
        run.status = "running"
        self.effects += (Sleep(step=run.step, seconds=delay, jitter=retry.jitter),)
        return True

    def _catch(self, node: StateNode, index: int, catch: CompiledCatch, error: LazyError) -> None:
        """Take a ``catch``: set its variables, say its messages, and choose its state."""
        run = self.run
        run.status, run.error = "running", error
        sets = self._assign(catch.assignments) if catch.assignments else EMPTY
        said = say_messages(run, catch.say, self.scope) if catch.say else ()
        self.target = catch.to
        self.moves.append(
            Move(
                state=node.name,
                step=run.step,
                how="catch",
                to=catch.to,
                index=index,
                failure=error.failure,
                sets=sets,
                said=said,
            )
        )

    def _applies(self, handler: CompiledRetry | CompiledCatch, error: LazyError) -> bool:
        """Return whether a handler names a failure and its condition holds."""
        if not matches(error.failure.name, handler.errors):
            return False
        return handler.holds is None or handler.holds(RunScope(self.run, {"error": error}))


def _failed_in_handling(failure: Failure, error: StateFailure | TemplateError) -> Failure:
    """Return the failure of a state's ``retry`` or ``catch``, in place of the one that it was to handle."""
    own = failure_of(error)
    message = f"{own.message}, in the handling of {failure.name}: {failure.message}"
    return replace(failure, name=own.name, message=message, types=())


def too_many_steps(run: Draft) -> str:
    """Return the message of ``limit.steps``."""
    entered = run.step + run.child_steps
    return f"the run entered {entered} states, which is limits.max_steps: is there a loop without an end?"


def _delay_before(retry: CompiledRetry, delay: float, attempt: int) -> float:
    """Return the seconds to wait after a failed attempt: ``max_delay`` if the power overflows a float."""
    try:
        return min(delay * retry.backoff ** (attempt - 1), retry.max_delay)
    except OverflowError:
        return retry.max_delay if delay else 0.0


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Return whether a name matches a pattern: a full name, or a family such as ``tool.*``. Without patterns: True."""
    patterns = tuple(patterns)
    return not patterns or any(name == p or (p.endswith(".*") and name.startswith(p[:-1])) for p in patterns)
