"""Compares a recorded run with the current spec: applies the same events to both flows. Calls nothing.

Only the decisions of the machine are compared: the effects, and the end of the run. Another model under the same name,
another body of a function, or another timeout is no divergence here; ``flowrun diff`` shows those.
"""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from flowrun.core.events import (
    AskModel,
    CallFunction,
    ChildEnded,
    Effect,
    Event,
    Outcome,
    Recorded,
    Replied,
    RequestInput,
    Sleep,
    StartChild,
    Started,
    ToolDeclaration,
)
from flowrun.core.graph import Graph
from flowrun.core.machine import Run, Transition, advance
from flowrun.core.messages import Message
from flowrun.spec.model import JSON
from flowrun.transcript.build import NONE, Histories
from flowrun.unicode import printable_line


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A difference of two transitions: ``what`` names it, ``lines`` are a unified diff of the two."""

    what: str
    old: JSON
    new: JSON
    lines: tuple[str, ...] = ()


class Divergence(msgspec.Struct, frozen=True, kw_only=True):
    """The first event after which the two runs differ, with its place in the run or child, and each difference.

    ``state`` and ``step`` are those of the recorded run before the event.
    """

    run: str
    seq: int
    at: float
    event: str
    state: str
    step: int
    differences: tuple[Difference, ...]


def replay(old: Graph, new: Graph, recorded: Sequence[Recorded], children: Histories = NONE) -> Divergence | None:
    """Return the first divergence of a flow's new version from the recorded run; None if there is none.

    Inputs that only the new version has get its defaults; the recorded inputs do not change.

    Args:
        old: the graph that the run started with.
        new: the graph of the current spec.
        children: the recorded events of the run's children and their children, by their ids.
    """
    return _Replay(old, new, children).run(recorded)


class _Replay(msgspec.Struct, frozen=True):
    """Applies the events of one run to both graphs, and those of its children when they start.

    ``effect`` is, for a child, the new effect that starts it; ``same_tokens``: it leaves as many tokens as the old one.
    """

    old: Graph
    new: Graph
    children: Histories
    effect: StartChild | None = None
    same_tokens: bool = True

    def run(self, recorded: Sequence[Recorded]) -> Divergence | None:
        """Apply the events, and return the first divergence of the run or its children, by time."""
        was, now = Transition(Run()), Transition(Run())
        children: dict[int, Divergence] = {}
        for entry in recorded:
            event = entry.event
            if isinstance(event, ChildEnded) and event.step == was.run.step and event.index in children:
                break
            current = self._event(event)
            before = was.run
            was = advance(self.old, was.run, event)
            awaited = now.run
            now = advance(self.new, now.run, current)
            found = tuple(_compare(was, now, before=before, awaited=awaited))
            if found:
                own = Divergence(
                    run=was.run.id,
                    seq=entry.seq,
                    at=entry.at,
                    event=str(event.__struct_config__.tag),
                    state=before.state,
                    step=before.step,
                    differences=found,
                )
                return min([own, *children.values()], key=lambda divergence: divergence.at)
            if was.run.step != before.step:  # later divergences of the state's children do not count
                children = {index: one for index, one in children.items() if one.at <= entry.at}
                if children:
                    break
            children |= self._replay_children(was, now)
        return min(children.values(), key=lambda divergence: divergence.at, default=None)

    def _event(self, event: Event) -> Event:
        """Return an event as the new version would have it; other limits leave other tokens."""
        if isinstance(event, Replied) and not self.same_tokens:
            return msgspec.structs.replace(event, tokens_left=None)
        return self._start(event) if isinstance(event, Started) else event

    def _start(self, event: Started) -> Started:
        """Return the first event of the run in the new version."""
        inputs = self.new.spec.add_defaults(event.inputs)
        if self.effect is None:
            return msgspec.structs.replace(event, inputs=inputs)
        return msgspec.structs.replace(
            event,
            inputs=inputs,
            max_rounds=self.effect.max_rounds,
            max_steps=self.effect.max_steps,
            max_tool_calls=self.effect.max_tool_calls,
            token_limits=event.token_limits if self.same_tokens else self.effect.token_limits,
        )

    def _replay_children(self, was: Transition, now: Transition) -> dict[int, Divergence]:
        """Replay the children that both transitions start."""
        found = {}
        for effect, current in zip(was.effects, now.effects, strict=True):
            if not isinstance(effect, StartChild) or not isinstance(current, StartChild) or effect.cancel:
                continue
            recorded = self.children.get(effect.child_id(was.run.id))
            old, new = self.old.flows[effect.flow], self.new.flows[current.flow]
            same_tokens = effect.token_limits == current.token_limits
            divergence = _Replay(old, new, self.children, current, same_tokens).run(recorded or ())
            if divergence is not None:
                found[effect.index] = divergence
        return found


# --- differences --------------------------------------------------------------------------------------------------


def _compare(was: Transition, now: Transition, *, before: Run, awaited: Run) -> Iterator[Difference]:
    """Compare two transitions, the most basic difference first."""
    if (was.run is before) != (now.run is awaited):
        yield Difference(what="event", old=_taken(was.run is not before), new=_taken(now.run is not awaited))
        return
    path, current = (list(run.path[len(earlier.path) :]) for run, earlier in ((was.run, before), (now.run, awaited)))
    if path != current:
        yield _difference("path", path, current)
        if was.run.state != now.run.state:
            return
    kinds, kinds_now = ([_NAMES[type(effect)] for effect in step.effects] for step in (was, now))
    if kinds != kinds_now:
        yield _difference("effects", kinds, kinds_now)
        return
    for effect, other in zip(was.effects, now.effects, strict=True):
        yield from _compare_effects(effect, other)


def _taken(taken: bool) -> str:
    return "taken" if taken else "not awaited"


_NAMES: Mapping[type[Effect], str] = {
    AskModel: "a round",
    CallFunction: "a call",
    StartChild: "a sub-flow",
    RequestInput: "a question",
    Sleep: "a pause",
    Outcome: "the end",
}

_COMPARED: Mapping[type[Effect], tuple[str, ...]] = {
    AskModel: ("thread", "model", "messages", "tools", "tool_choice", "sampling", "response_format", "labels"),
    CallFunction: ("tool", "entrypoint", "arguments", "timeout"),
    StartChild: ("flow", "inputs", "cancel"),
    RequestInput: ("prompt", "call", "schema"),
    Sleep: ("seconds", "jitter", "until"),
    Outcome: ("status", "output", "error"),
}
"""The compared fields of each effect. Of a failure, only its name is compared."""

_LABELS: Mapping[str, str] = {"messages": "prompt", "prompt": "question", "seconds": "pause"}
"""The names that users see for fields, where they differ."""


def _compare_effects(effect: Effect, other: Effect) -> Iterator[Difference]:
    for field in _COMPARED[type(effect)]:
        what = _LABELS.get(field, field)
        old, new = getattr(effect, field), getattr(other, field)
        if field == "error":
            old, new = (None if failure is None else failure.name for failure in (old, new))
        if field == "messages":
            if list(old) != list(new):
                yield Difference(
                    what=what, old=len(old), new=len(new), lines=_diff(_message_lines(old), _message_lines(new))
                )
        elif old != new:
            yield _difference(what, _plain(old), _plain(new))


def _plain(value: Any) -> JSON:
    """Return a value as JSON data; tools as a mapping by name, so that their order does not count."""
    if isinstance(value, tuple):
        return {tool.name: msgspec.to_builtins(tool) for tool in value if isinstance(tool, ToolDeclaration)}
    return msgspec.to_builtins(value)


def _difference(what: str, old: JSON, new: JSON) -> Difference:
    """Build a difference; long values, and those of several lines, get a diff."""
    texts = [value if isinstance(value, str) else _pretty(value) for value in (old, new)]
    several = any("\n" in text or len(text) > 60 for text in texts)
    return Difference(what=what, old=old, new=new, lines=_diff(*(t.splitlines() for t in texts)) if several else ())


def _pretty(value: JSON) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else json.dumps(value, ensure_ascii=False, indent=2)


def _message_lines(messages: Sequence[Message]) -> list[str]:
    """Return the lines of messages, each after its role."""
    lines = []
    for message in messages:
        if message.content is not None:
            lines += [f"{message.role}: {line}" for line in message.content.splitlines() or [""]]
        lines += [f"{message.role}: calls {call.name}({call.arguments})" for call in message.tool_calls]
    return lines


def _diff(old: Sequence[str], new: Sequence[str]) -> tuple[str, ...]:
    lines = difflib.unified_diff(old, new, "then", "now", lineterm="", n=2)
    return tuple(lines)[2:]


# --- rendering ----------------------------------------------------------------------------------------------------


def render_divergence(divergence: Divergence | None) -> str:
    """Render a divergence as text."""
    if divergence is None:
        return "today's spec does the same, to the last recorded event\n"
    where = f"after step {divergence.step}, state {divergence.state}" if divergence.state else "at the start"
    lines = [f"run {divergence.run} differs {where} (event {divergence.seq}, {divergence.event})"]
    for difference in divergence.differences:
        if difference.lines:
            lines += [f"  {difference.what}:", *(f"    {printable_line(line)}" for line in difference.lines)]
        else:
            texts = (value if isinstance(value, str) else _pretty(value) for value in (difference.old, difference.new))
            lines += [f"  {difference.what}: " + " now ".join(f"{printable_line(text)}" for text in texts)]
    return "\n".join(lines) + "\n"
