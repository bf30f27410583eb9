"""The times of activities, as bars on a time line. The line is shorter where the run only waited for human input."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final, assert_never

import msgspec

from flowrun.transcript.model import Activity, Child, FunctionCall, Pause, Question, Round, Transcript
from flowrun.transcript.overlay import anchor

_IDLE: Final = 0.12
"""An idle time longer than twice this share of the working time is drawn with the length of this share."""

_LEAST: Final = 0.004
"""The least width of a bar, as a share of the line, so that it can be seen."""


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """An activity from ``start`` to ``start + width``, in shares of the line. ``seconds`` is None if it has no end."""

    state: str
    kind: str
    label: str
    anchor: str
    depth: int
    start: float
    width: float
    seconds: float | None


class Scale:
    """Maps times to shares of a line, from 0 to 1. ``cuts`` are the middles of the idle times that are shortened."""

    def __init__(self, busy: Sequence[tuple[float, float]], start: float, end: float) -> None:
        self._marks = [(start, 0.0)]
        self.cuts: list[float] = []
        idle_times = _idle_times(busy, start, end)
        working = (end - start) - sum(idle[1] - idle[0] for idle in idle_times)
        shortened = [idle for idle in idle_times if idle[1] - idle[0] > 2 * _IDLE * max(working, 1e-9)]
        at = shown = 0.0
        idle_length = _IDLE * max(working, 1e-9)
        cuts = []
        for begins, ends in shortened:
            shown += begins - start - at
            self._marks.append((begins, shown))
            cuts.append(shown + idle_length / 2)
            shown += idle_length
            self._marks.append((ends, shown))
            at = ends - start
        shown += end - start - at
        self._marks.append((end, shown))
        self._length = shown or 1.0
        self.cuts = [cut / self._length for cut in cuts]

    def at(self, time: float) -> float:
        """Return the place of a time on the line, from 0 to 1."""
        for (t0, s0), (t1, s1) in pairwise(self._marks):
            if time <= t1:
                return (s0 + (s1 - s0) * max(time - t0, 0.0) / ((t1 - t0) or 1.0)) / self._length
        return 1.0


def bars_of(transcript: Transcript) -> tuple[list[Bar], list[float]]:
    """Return the bars of a run in the order of its steps, each child after its state; and the cuts of the line."""
    end = transcript.began + transcript.seconds
    activities = list(_activities(transcript, 0))
    busy = [
        (activity.began, _end(activity, end))
        for _, _, activity, _ in activities
        if isinstance(activity, Round | FunctionCall)
    ]
    scale = Scale(busy, transcript.began, end)
    bars = []
    for kind, label, activity, (state, place, depth) in activities:
        start = min(scale.at(activity.began), 1 - _LEAST)
        width = max(scale.at(_end(activity, end)) - start, _LEAST)
        bars.append(
            Bar(
                state=state,
                kind=kind,
                label=label,
                anchor=place,
                depth=depth,
                start=start,
                width=min(width, 1 - start),
                seconds=activity.seconds,
            )
        )
    return bars, scale.cuts


def _end(activity: Activity, end: float) -> float:
    """Return the end of an activity; for one that has not ended, the end of the line unless its state was left."""
    if activity.seconds is not None:
        return activity.began + activity.seconds
    return activity.began if isinstance(activity, FunctionCall) and activity.status in ("given_up", "open") else end


def _activities(transcript: Transcript, depth: int) -> Iterator[tuple[str, str, Activity, tuple[str, str, int]]]:
    for visit in transcript.visits:
        place = (visit.state, anchor(transcript, visit), depth)
        for activity in visit.activities:
            match activity:
                case Round():
                    yield visit.type, visit.state, activity, place
                case FunctionCall():
                    if activity.status != "refused":
                        yield ("failed" if activity.failure is not None else visit.type), activity.name, activity, place
                case Question():
                    yield "wait", visit.state, activity, place
                case Pause():
                    yield "route", f"{visit.state}: pause", activity, place
                case Child():
                    yield visit.type, f"{activity.flow} {activity.label}".strip(), activity, place
                    if activity.transcript is not None:
                        yield from _activities(activity.transcript, depth + 1)
                case _:
                    assert_never(activity)


def _idle_times(busy: Sequence[tuple[float, float]], start: float, end: float) -> list[tuple[float, float]]:
    """Return the intervals without a model or function at work."""
    idle_times, reached = [], start
    for begins, ends in sorted(busy):
        if begins > reached:
            idle_times.append((reached, begins))
        reached = max(reached, ends)
    if end > reached:
        idle_times.append((reached, end))
    return idle_times
