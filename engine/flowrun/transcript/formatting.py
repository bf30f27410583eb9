"""Formats the figures and values of a transcript, for text and for the page."""

from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from json import dumps
from typing import Final

from flowrun.core.messages import Usage
from flowrun.durations import spell_moment
from flowrun.spec.model import JSON
from flowrun.transcript.model import Attention, Exit, FunctionCall, Question, Round, Status, Totals, Transcript, Visit

STATUS_WORDS: Final[dict[Status, str]] = {"needs_attention": "needs attention", "given_up": "given up"}


def status_words(status: Status) -> str:
    """Return a status in words."""
    return STATUS_WORDS.get(status, status)


def moment(at: float, zone: tzinfo = UTC) -> str:
    """Format a time with its zone: ``2026-11-23 04:41:07 UTC``."""
    try:
        return datetime.fromtimestamp(at, zone).strftime("%Y-%m-%d %H:%M:%S %Z")
    except (OverflowError, ValueError, OSError):  # a pause may end after the last year of calendars
        return spell_moment(at)


def counted(count: int, what: str) -> str:
    """Format a count with its noun: ``1 call``, ``1,204 calls``."""
    return f"{count:,} {what}" + ("" if count == 1 else "s" if not what.endswith("ch") else "es")


def tokens(usage: Usage) -> str:
    """Format token counts: read and written, and, if any, cached and rendered again."""
    special = [f"{usage.cached_tokens:,} cached"] if usage.cached_tokens else []
    if usage.rerendered:
        special.append(f"{usage.rerendered:,} rendered again")
    return f"{usage.prompt_tokens:,} + {usage.completion_tokens:,} tokens" + (
        f" ({', '.join(special)})" if special else ""
    )


def figures(totals: Totals) -> Iterator[str]:
    """Yield the totals of a run as texts."""
    yield counted(totals.steps, "step")
    if totals.rounds:
        yield counted(totals.rounds, "round")
        yield tokens(totals.usage)
    if totals.calls:
        yield counted(totals.calls, "call")
    if totals.children:
        yield f"{totals.children:,} " + ("child run" if totals.children == 1 else "child runs")


def describe_exit(exit_: Exit) -> str:
    """Return the reason for a move to another state."""
    if exit_.how == "catch":
        return f"caught {exit_.failure.name}" if exit_.failure is not None else f"caught {exit_.when}"
    return f"when {exit_.when}" if exit_.when else ""


def describe_attention(one: Attention, transcript: Transcript) -> str:
    """Describe what a person has to resolve, in one sentence."""
    where = f"state {one.state}" + (f" of run {one.run}" if one.run != transcript.run else "")
    match one.about:
        case Question(call=call):
            return f"{where} waits for an answer" + ("" if call is None else f" about a call of {call['name']}")
        case FunctionCall():
            return f"{where} was about to call {one.about.name}, and nobody knows whether it did"


def describe_divergence(seq: int) -> str:
    """Describe that a transcript is wrong from an event on."""
    return f"from event {seq} on this flowrun decides otherwise than was recorded: what follows is not what happened"


def describe_fork(origin: str) -> str:
    """Describe where a fork began, given as ``RUN/STEP``."""
    run, _, step = origin.rpartition("/")
    return f"forked from run {run}, which did all that stands before step {step}"


def as_line(value: JSON) -> str:
    """Format a value as one line: a text unchanged, else its JSON."""
    return value if isinstance(value, str) else dumps(value, ensure_ascii=False)


def pretty(value: JSON) -> str:
    """Format a value for reading: a text unchanged, else its JSON with indentation."""
    return value if isinstance(value, str) else dumps(value, ensure_ascii=False, indent=2)


def known_calls(transcript: Transcript) -> frozenset[str]:
    """Return the ids of the calls that a transcript shows: the messages with their results need not be shown."""
    activities = (activity for visit in transcript.visits for activity in visit.activities)
    return frozenset(
        activity.call_id
        for activity in activities
        if isinstance(activity, FunctionCall) and activity.call_id is not None
    )


def failure_is_shown(visit: Visit) -> bool:
    """Return whether a visit's failure is that of one of its activities, which shows it."""
    failure = visit.exit.failure if visit.exit is not None else None
    activities = [
        activity.failure
        for activity in visit.activities
        if isinstance(activity, Round | FunctionCall) and activity.failure is not None
    ]
    return failure is not None and (failure.name, failure.message) in [(one.name, one.message) for one in activities]
