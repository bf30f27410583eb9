"""The gate for answers: a question has one answer, the first that the journal of its run has accepted. Pure.

An answer is accepted when it is in the inbox of its run, or when the run's own process closes the question with it. The
sender of any other answer is refused, so an answer that was acknowledged is never dropped.
"""

import json
from collections.abc import Iterable

from flowrun.core.events import Answered, Cancelled, Event, TimedOut
from flowrun.errors import UsageError
from flowrun.excerpts import cut

_SHOWN = 80


def closing_event(step: int, accepted: Iterable[Event]) -> Answered | TimedOut | None:
    """Return the event among the ``accepted`` ones of a run that closes the question of a step."""
    for event in accepted:
        if isinstance(event, Answered | TimedOut) and event.step == step:
            return event
    return None


def refuse_second_answer(run: str, event: Event, accepted: Iterable[Event]) -> None:
    """Check an event for a run's inbox against the ``accepted`` ones that its run has not read yet.

    Raises:
        UsageError: the event is an answer, and its question has one already, or the run is about to be cancelled.
    """
    if not isinstance(event, Answered):
        return
    accepted = tuple(accepted)
    if (closing := closing_event(event.step, accepted)) is not None:
        raise UsageError(describe_closed(f"{run}/{event.step}/0", closing))
    if any(isinstance(other, Cancelled) for other in accepted):
        raise UsageError(f"run {run} is about to be cancelled: no answer is accepted any more")


def describe_closed(question: str, closing: Answered | TimedOut) -> str:
    """Say why a question accepts no answer any more."""
    if isinstance(closing, TimedOut):
        return f"the question {question} is closed: its time is over"
    value = cut(json.dumps(closing.value, ensure_ascii=False), _SHOWN, "…")
    return f"the question {question} was answered already, with {value}: that answer counts, and this one is refused"
