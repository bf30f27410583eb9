"""What a run did beyond its result: calls, questions and moves, which scores compare. Records keep it as ``trace``."""

from collections.abc import Mapping
from typing import Any

from flowrun.core.events import CallFunction, Notice, RequestInput
from flowrun.core.run import Run
from flowrun.spec.model import JSON
from flowrun.testing.compare import see_move, see_request
from flowrun.testing.trace import CallLog


class TraceLog:
    """Observes one run and its children.

    Args:
        run: the id of the run, whose own moves are kept.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        self._calls = CallLog()
        self._requests: list[JSON] = []
        self._moves: list[JSON] = []

    def notify(self, notice: Notice) -> None:
        """Record the effects and moves of an event. See ``ports.Observer.notify``."""
        for effect in notice.effects:
            if isinstance(effect, RequestInput):
                self._requests.append(see_request(effect))
            elif isinstance(effect, CallFunction):
                self._calls.add(effect)
        if notice.run == self._run:
            self._moves += map(see_move, notice.moves)

    def data(self, run: Run) -> Mapping[str, Any]:
        """Return the trace as JSON data, with the variables of the run."""
        return {
            "calls": self._calls.calls,
            "function_calls": self._calls.function_calls,
            "requests": self._requests,
            "moves": self._moves,
            "vars": run.vars,
        }
