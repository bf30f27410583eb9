"""The gate for answers: a question has one answer, the first that the journal of its run has accepted. Pure.

An answer is accepted when it is in the inbox of its run, or when the run's own process closes the question with it. The
sender of any other answer is refused, so an answer that was acknowledged is never dropped.
"""

import re
from collections.abc import Iterable
from json import dumps
from typing import Final

from flowrun.core.events import Answered, Cancelled, Closing, Event, Failed, TimedOut
from flowrun.errors import UsageError
from flowrun.excerpts import cut

_SHOWN = 80

_ID: Final = re.compile(r"([^/]+)/([0-9]{1,9})/([0-9]{1,9})")
"""The id of a question, see ``core.events.RequestInput``. Python reads no number of thousands of digits."""


def parse_question_id(text: str) -> tuple[str, int, int]:
    """Return the parts of the id of a question: its run, the step that asks it, and its index in this step.

    Raises:
        UsageError: the text is no such id.
    """
    found = _ID.fullmatch(text)
    if found is None:
        raise UsageError(f"{cut(text, _SHOWN, '…')!r} is no id of a question, such as RUN/3/0")
    return found[1], int(found[2]), int(found[3])


def closes(event: Event, step: int, index: int | None = None) -> bool:
    """Return whether an event closes a question.

    Args:
        index: the index of the question in its step; None: any question of the step.
    """
    match event:
        case TimedOut():
            return event.step == step
        case Answered():
            return event.step == step and index in (None, event.index)
        case Failed(failure=failure):
            return event.step == step and index in (None, event.index) and failure.name == "wait.timeout"
        case _:
            return False


def closing_event(accepted: Iterable[Event], step: int, index: int | None = None) -> Closing | None:
    """Return the event among the ``accepted`` ones of a run that closes a question. See ``closes``."""
    for event in accepted:
        if isinstance(event, Answered | TimedOut | Failed) and closes(event, step, index):
            return event
    return None


def closing_of(event: Closing, accepted: Iterable[Event]) -> Closing | None:
    """Return the event among the ``accepted`` ones that closes the same question; for ``TimedOut``, one of its step."""
    return closing_event(accepted, event.step, None if isinstance(event, TimedOut) else event.index)


def refuse_second_answer(run: str, event: Event, accepted: Iterable[Event]) -> None:
    """Check an event for a run's inbox against the ``accepted`` ones that its run has not read yet.

    Raises:
        UsageError: the event is an answer, and its question has one already, or the run is about to be cancelled.
    """
    if not isinstance(event, Answered):
        return
    accepted = tuple(accepted)
    if (closing := closing_of(event, accepted)) is not None:
        raise UsageError(describe_closed(f"{run}/{event.step}/{event.index}", closing))
    if any(isinstance(other, Cancelled) for other in accepted):
        raise UsageError(f"run {run} is about to be cancelled: no answer is accepted any more")


def describe_closed(question: str, closing: Closing) -> str:
    """Say why a question accepts no answer any more."""
    if not isinstance(closing, Answered):
        return f"the question {question} is closed: its time is over"
    value = cut(dumps(closing.value, ensure_ascii=False), _SHOWN, "…")
    return f"the question {question} was answered already, with {value}: that answer counts, and this one is refused"
