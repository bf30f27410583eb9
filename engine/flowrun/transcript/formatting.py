"""Figures and values of a story in words, the same in every form."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from typing import Final

from flowrun.core.messages import Usage
from flowrun.spec.model import JSON
from flowrun.transcript.model import Attention, Exit, FunctionCall, Question, Round, Status, Totals, Transcript, Visit

_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR

STATUS_WORDS: Final[dict[Status, str]] = {"needs_attention": "needs attention", "given_up": "given up"}


def status_words(status: Status) -> str:
    """Give a status as people write it."""
    return STATUS_WORDS.get(status, status)


def duration(seconds: float) -> str:
    """Write a duration, from a minute on with its two largest units: ``812 ms``, ``2.41 s``, ``3 min 12 s``."""
    seconds = max(seconds, 0.0)
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.995:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    for unit, name, below, its_name in (
        (_DAY, "d", _HOUR, "h"),
        (_HOUR, "h", _MINUTE, "min"),
        (_MINUTE, "min", 1, "s"),
    ):
        if whole >= unit:
            rest = whole % unit // below
            return f"{whole // unit} {name} {rest} {its_name}" if rest else f"{whole // unit} {name}"
    raise AssertionError("sixty seconds are a minute")


def moment(at: float, zone: tzinfo = UTC) -> str:
    """Write a time with its zone: ``2026-11-23 04:41:07 UTC``."""
    return datetime.fromtimestamp(at, zone).strftime("%Y-%m-%d %H:%M:%S %Z")


def counted(count: int, what: str) -> str:
    """Write how many there are of something: ``1 call``, ``1,204 calls``."""
    return f"{count:,} {what}" + ("" if count == 1 else "s" if not what.endswith("ch") else "es")


def tokens(usage: Usage) -> str:
    """Write tokens read and written, and what is special about them."""
    special = [f"{usage.cached_tokens:,} cached"] if usage.cached_tokens else []
    if usage.rerendered:
        special.append(f"{usage.rerendered:,} rendered again")
    return f"{usage.prompt_tokens:,} + {usage.completion_tokens:,} tokens" + (
        f" ({', '.join(special)})" if special else ""
    )


def figures(totals: Totals) -> Iterator[str]:
    """Give what a run took, part by part."""
    yield counted(totals.steps, "step")
    if totals.rounds:
        yield counted(totals.rounds, "round")
        yield tokens(totals.usage)
    if totals.calls:
        yield counted(totals.calls, "call")
    if totals.children:
        yield f"{totals.children:,} " + ("child run" if totals.children == 1 else "child runs")


def describe_exit(left: Exit) -> str:
    """Say why a state was left for another one."""
    if left.how == "catch":
        return f"caught {left.failure.name}" if left.failure is not None else f"caught {left.when}"
    return f"when {left.when}" if left.when else ""


def describe_attention(one: Attention, story: Transcript) -> str:
    """Say what somebody has to do something about, in one sentence."""
    where = f"state {one.state}" + (f" of run {one.run}" if one.run != story.run else "")
    match one.about:
        case Question():
            return f"{where} waits for an answer"
        case FunctionCall():
            return f"{where} was about to call {one.about.name}, and nobody knows whether it did"


def describe_departure(seq: int) -> str:
    """Say that a story is not what happened."""
    return f"from event {seq} on this flowrun goes another way than was recorded: what follows is not what happened"


def one_line(value: JSON) -> str:
    """Give a value as one line: a text as it is, else its JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def pretty(value: JSON) -> str:
    """Give a value as people read it: a text as it is, else its JSON with indentation."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)


def known_calls(story: Transcript) -> frozenset[str]:
    """Give the ids of the calls that a story shows, so that the messages of their results need not be shown again."""
    acts = (act for visit in story.visits for act in visit.acts)
    return frozenset(act.call_id for act in acts if isinstance(act, FunctionCall) and act.call_id is not None)


def failure_is_shown(visit: Visit) -> bool:
    """Tell whether a visit's failure is that of one of its acts, which is shown there."""
    failure = visit.left.failure if visit.left is not None else None
    acts = [act.failure for act in visit.acts if isinstance(act, Round | FunctionCall) and act.failure is not None]
    return failure is not None and (failure.name, failure.message) in [(one.name, one.message) for one in acts]
