"""What the runner needs from outside, as Protocols. Adapters implement them; ``flowrun.testing`` holds fakes."""

from collections.abc import Sequence
from typing import Protocol

from flowrun.core.events import AskModel, CallFunction, Event, Notice, Recorded, RequestInput
from flowrun.core.messages import Reply
from flowrun.spec.model import JSON


class ModelBackend(Protocol):
    """Runs one model for many conversations at once."""

    @property
    def concurrency(self) -> int | None:
        """So many requests it works on at once, further ones wait; None: no limit of its own. Valid after the start."""

    async def start(self) -> None:
        """Load what is needed.

        Raises:
            BackendError: a package, the model or a setting is missing or wrong; nothing is left running.
        """

    async def reply(self, request: AskModel) -> Reply:
        """Ask for one reply. Cancelling the awaiting task frees what the request holds.

        Raises:
            ModelError: named as in ``errors.FAILURES``.
        """

    async def stop(self) -> None:
        """End what was started; no process or connection is left. May be called twice, and without a start."""


class Functions(Protocol):
    """Calls the Python functions of tools and call states."""

    async def call(self, effect: CallFunction) -> JSON:
        """Call a function under its timeout and give its value as JSON.

        Raises:
            ToolError: it failed, took too long, or gave what is no JSON value.
        """


class HumanInput(Protocol):
    """Whoever answers wait states while a run is under way."""

    async def answer(self, effect: RequestInput) -> JSON:
        """Give an answer that matches the effect's schema, however long it takes.

        Raises:
            NoResponderError: there is nobody; the run waits.
        """


class Journal(Protocol):
    """Where events go, and where they come from after a crash."""

    def register(self, run: str, *, flow: str, parent: str | None) -> None:
        """Say what a run is, before its first event: the flow's name, and the run that it is a child of."""

    async def append(self, run: str, event: Event, *, seq: int, state: str, status: str) -> None:
        """Write a run's event down; when this returns, it is kept. ``seq`` counts a run's events from 0 without gaps.

        ``state`` and ``status`` are the run's after the event.

        Raises:
            StoreError: it is not kept; nothing that follows from it may be done.
        """

    async def mark(self, run: str, status: str) -> None:
        """Note what a run has come to without an event: it is waiting, or needs attention."""

    async def events(self, run: str) -> Sequence[Recorded]:
        """Give a run's events, oldest first; none if there is no such run."""


class Observer(Protocol):
    """Watches runs and changes nothing."""

    def notify(self, notice: Notice) -> None:
        """Learn of what just happened. Must not raise and must not block."""
