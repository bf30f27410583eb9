"""When things happened, as bars on a line. Where only somebody's answer was awaited, the line is made shorter."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

import msgspec

from flowrun.transcript.model import Activity, Child, FunctionCall, Pause, Question, Round, Transcript
from flowrun.transcript.overlay import anchor

_IDLE: Final = 0.12
"""A rest that takes more than twice this share of the working time is drawn as long as this share of it."""

_LEAST: Final = 0.004
"""A bar is at least this wide, so that it can be seen."""


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that took time: from ``start`` to ``start + width``, shares of the line; ``seconds`` None: no end."""

    kind: str
    label: str
    anchor: str
    depth: int
    start: float
    width: float
    seconds: float | None


class Scale:
    """Maps times to shares of a line, from 0 to 1; a rest is shortened, and then ``cuts`` are the middles of those."""

    def __init__(self, busy: Sequence[tuple[float, float]], start: float, end: float) -> None:
        self._marks = [(start, 0.0)]
        self.cuts: list[float] = []
        rests = _rests(busy, start, end)
        working = (end - start) - sum(rest[1] - rest[0] for rest in rests)
        shortened = [rest for rest in rests if rest[1] - rest[0] > 2 * _IDLE * max(working, 1e-9)]
        at = shown = 0.0
        kept = _IDLE * max(working, 1e-9)
        cuts = []
        for begins, ends in shortened:
            shown += begins - start - at
            self._marks.append((begins, shown))
            cuts.append(shown + kept / 2)
            shown += kept
            self._marks.append((ends, shown))
            at = ends - start
        shown += end - start - at
        self._marks.append((end, shown))
        self._whole = shown or 1.0
        self.cuts = [cut / self._whole for cut in cuts]

    def at(self, time: float) -> float:
        """Give a time's place on the line."""
        for (t0, s0), (t1, s1) in pairwise(self._marks):
            if time <= t1:
                return (s0 + (s1 - s0) * max(time - t0, 0.0) / ((t1 - t0) or 1.0)) / self._whole
        return 1.0


def bars_of(story: Transcript) -> tuple[list[Bar], list[float]]:
    """Give a run's bars in the order of its steps, children below the state that started them; and the line's cuts."""
    end = story.began + story.seconds
    acts = list(_acts(story, 0))
    busy = [(act.began, _end(act, end)) for _, _, act, _ in acts if isinstance(act, Round | FunctionCall)]
    scale = Scale(busy, story.began, end)
    bars = []
    for kind, label, act, (place, depth) in acts:
        start = min(scale.at(act.began), 1 - _LEAST)
        width = max(scale.at(_end(act, end)) - start, _LEAST)
        bars.append(
            Bar(
                kind=kind,
                label=label,
                anchor=place,
                depth=depth,
                start=start,
                width=min(width, 1 - start),
                seconds=act.seconds,
            )
        )
    return bars, scale.cuts


def _end(act: Activity, end: float) -> float:
    """Give when something ended; what did not reaches to the end of the line, unless its state was left."""
    if act.seconds is not None:
        return act.began + act.seconds
    return act.began if isinstance(act, FunctionCall) and act.status in ("given_up", "open") else end


def _acts(story: Transcript, depth: int) -> Iterator[tuple[str, str, Activity, tuple[str, int]]]:
    for visit in story.visits:
        place = (anchor(story, visit), depth)
        for act in visit.acts:
            match act:
                case Round():
                    yield "chat", visit.state, act, place
                case FunctionCall():
                    if act.status != "refused":
                        yield ("failed" if act.failure is not None else visit.type), act.name, act, place
                case Question():
                    yield "wait", visit.state, act, place
                case Pause():
                    yield "route", f"{visit.state}: pause", act, place
                case Child():
                    yield visit.type, f"{act.flow} {act.label}".strip(), act, place
                    if act.story is not None:
                        yield from _acts(act.story, depth + 1)


def _rests(busy: Sequence[tuple[float, float]], start: float, end: float) -> list[tuple[float, float]]:
    """Give the times in which nothing was busy."""
    rests, reached = [], start
    for begins, ends in sorted(busy):
        if begins > reached:
            rests.append((reached, begins))
        reached = max(reached, ends)
    if end > reached:
        rests.append((reached, end))
    return rests
