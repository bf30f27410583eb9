"""The ports of the runner, as Protocols. Adapters implement them; ``flowrun.testing`` has fakes."""

from collections.abc import Awaitable, Sequence
from typing import Protocol

from flowrun.core.events import AskModel, CallFunction, Closing, Effect, Event, Notice, Outcome, Recorded, RequestInput
from flowrun.core.messages import Reply
from flowrun.spec.model import JSON, Spec


class ModelBackend(Protocol):
    """Runs one model for many conversations at once."""

    @property
    def concurrency(self) -> int | None:
        """The number of requests that it works on at once; further ones wait. None: no limit. Valid after ``start``."""

    async def start(self) -> None:
        """Load the model, or connect to its server.

        Raises:
            BackendError: a package, the model or a setting is missing or wrong; nothing is left running.
        """

    async def reply(self, request: AskModel) -> Reply:
        """Request one reply. Cancelling the awaiting task frees the resources of the request.

        Raises:
            ModelError: the model or its server failed; ``errors.FAILURES`` has the names of the failures.
        """

    async def stop(self) -> None:
        """Stop all processes and close all connections. May be called twice, and without ``start``."""


class Functions(Protocol):
    """Calls the Python functions of tools and call states."""

    async def call(self, effect: CallFunction) -> JSON:
        """Call a function within its timeout, and return its value as JSON.

        Raises:
            ToolError: the function failed, took too long, or returned a value that is not JSON.
        """


class HumanInput(Protocol):
    """Answers the questions of wait states while a run is in progress."""

    async def answer(self, effect: RequestInput, /) -> JSON:
        """Wait for an answer that matches the effect's schema, and return it.

        Raises:
            NoResponderError: nobody can answer; the run waits.
        """


class Journal(Protocol):
    """Stores the events of runs, from which they recover after a crash."""

    def register(self, run: str, *, flow: str, parent: str | None) -> None:
        """Register a run before its first event.

        Args:
            flow: the name of its flow.
            parent: the run that it is a child of.
        """

    async def append(self, run: str, event: Event, *, seq: int, state: str, status: str) -> None:
        """Write an event of a run; it is durable when this returns.

        Args:
            seq: the number of the event in the run, from 0, without gaps.
            state: the state of the run after the event.
            status: the status of the run after the event.

        Raises:
            StoreError: the event is not written; no effect of it may be performed.
        """

    async def close_question(self, run: str, event: Closing) -> Closing:
        """Return the event that closes a question: ``event``, or one that the journal accepted before.

        From now on no other answer to the question is accepted; after ``TimedOut``, to no question of its step.
        """

    async def mark(self, run: str, status: str) -> None:
        """Write a status that has no event: the run is waiting, or needs attention."""

    async def events(self, run: str) -> Sequence[Recorded]:
        """Return a run's events, oldest first; an empty sequence if there is no such run."""


class Observer(Protocol):
    """Observes runs, and changes nothing."""

    def notify(self, notice: Notice) -> None:
        """Receive an event with its effects and moves. Must not raise and must not block."""


class RunTrace(Observer, Protocol):
    """Traces one run while it is driven. It holds all that it knows of the run, which is gone when the run's driver is.

    ``notify`` receives what happens from now on, and nothing that was replayed from a journal.
    """

    def perform(self, effect: Effect, work: Awaitable[Event | None], /) -> Awaitable[Event | None]:
        """Return the work of an effect, surrounded by what traces it; the result is that of the work."""

    def end(self, outcome: Outcome | None, status: str) -> None:
        """Receive that the run is no longer driven: it has ended, it waits, or its task was cancelled."""


class Tracer(Protocol):
    """Traces the runs of a flow and of its sub-flows. Must not raise and must not block."""

    def begin(self, spec: Spec, run: str, *, state: str, step: int, resumed: bool) -> RunTrace:
        """Begin to trace a run in the current context, in which also its effects are performed.

        Args:
            spec: that of the run, which may be a sub-flow.
            state, step: where a run is that was resumed; empty and 0 for a new one.
        """
