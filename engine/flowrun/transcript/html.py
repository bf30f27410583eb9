"""Renders a transcript as one self-contained page: no network, no fonts, no foreign script, complete without its own.

All content of a run is text in the page: the template escapes it, and the page's Content Security Policy allows only
its own style sheet and script, by their digests.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, tzinfo
from functools import cache
from itertools import zip_longest
from typing import Final

import msgspec
from jinja2 import Environment
from markupsafe import Markup, escape

from flowrun.core.graph import Graph
from flowrun.drawing.picture import all_looks
from flowrun.drawing.style_sheet import PATH_STYLE, draw_style
from flowrun.drawing.svg import draw_svg
from flowrun.durations import spell_duration
from flowrun.excerpts import one_line
from flowrun.transcript import formatting
from flowrun.transcript.model import (
    Activity,
    Attention,
    Child,
    FunctionCall,
    Pause,
    Question,
    Round,
    Transcript,
    Visit,
)
from flowrun.transcript.overlay import FlowOverlay, anchor, overlay_runs
from flowrun.transcript.page_parts import content_policy, mark_json, page_templates, read_part
from flowrun.transcript.timeline import bars_of
from flowrun.unicode import visible

_OPEN: Final = 40
"""The steps of a run with more visits than this are folded."""
_BESIDE: Final = 560
"""A drawing up to this width, in pixels, is beside the steps, a wider one above them."""
_LONG_LINES: Final = 14
_LONG: Final = 1400
"""A text of more lines or characters is folded."""


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """What a server adds to the page of a run, which then has the server's headers in place of its own policy.

    Attributes:
        head: elements of its head.
        above: what is before its heading.
        below: what is after its heading, in place of what needs attention.
        attributes: those of its body.
        style: a style sheet after its own.
        script: a script after its own.
    """

    head: Markup
    above: Markup
    below: Markup
    attributes: Mapping[str, str]
    style: str
    script: str


def style_of(frame: Frame | None) -> str:
    """Return the style sheet of a page."""
    return _style() if frame is None else f"{_style()}\n{frame.style}"


def script_of(frame: Frame | None) -> str:
    """Return the script of a page."""
    own = read_part("page.js")
    return own if frame is None else f"{own}\n{frame.script}"


def render_html(
    graph: Graph,
    transcript: Transcript,
    *,
    zone: tzinfo = UTC,
    commands: Sequence[str] = (),
    frame: Frame | None = None,
) -> str:
    """Render a transcript as a page.

    Args:
        graph: the one that the transcript was built with.
        commands: how each thing that needs attention is resolved, in the order of ``transcript.attention``.
        frame: what a server adds; None: the page is a file, which needs nothing else.
    """
    style, script = style_of(frame), script_of(frame)
    flows = overlay_runs(graph, transcript)
    drawings = [_Drawing(flow, number) for number, flow in enumerate(flows)]
    bars, cuts = bars_of(transcript)
    page = _templates().get_template("page.html.jinja")
    return page.render(
        transcript=transcript,
        zone=zone,
        attention=list(zip_longest(transcript.attention, commands, fillvalue="")) if frame is None else (),
        frame=frame,
        style=Markup(style),  # noqa: S704 - both are files of this package
        script=Markup(script),  # noqa: S704
        policy=content_policy(style, script),
        drawings=drawings,
        beside=drawings[0].width <= _BESIDE,
        flow_of={one.run: number for number, flow in enumerate(flows) for one in flow.transcripts},
        bars=bars,
        cuts=cuts,
        unfolded=transcript.totals.steps <= _OPEN,
    )


class _Drawing:
    """A flow's drawing in the page."""

    def __init__(self, flow: FlowOverlay, number: int) -> None:
        self.number = number
        self.name = flow.name
        self.runs = len(flow.transcripts)
        drawn = draw_svg(flow.picture(), part=f"flow-{number}")
        self.svg = Markup(drawn)  # noqa: S704 - it escapes all texts of the flow
        self.width = int(drawn.split('width="', 1)[1].split('"', 1)[0])


def _style() -> str:
    """Return the style sheet: the page's own, the drawing's, and the colours of each kind of state."""
    rule = ".k-{} {{ --tint: {}; --accent: {}; }}".format
    light = "\n".join(rule(kind, *look.light) for kind, look in all_looks().items())
    dark = "\n".join(rule(kind, *look.dark) for kind, look in all_looks().items())
    return "\n".join(
        [draw_style(), PATH_STYLE, light, f"@media (prefers-color-scheme: dark) {{\n{dark}\n}}", read_part("page.css")]
    )


@cache
def _templates() -> Environment:
    parts = {name: read_part(name) for name in ("page.html.jinja", "steps.html.jinja")}
    environment = page_templates(parts)
    environment.filters |= {
        "duration": spell_duration,
        "moment": formatting.moment,
        "tokens": formatting.tokens,
        "status_words": formatting.status_words,
        "reason": formatting.describe_exit,
        "pretty": formatting.pretty,
        "json": mark_json,
        "arguments": _arguments,
        "is_long": _is_long,
        "beginning": _beginning,
        "kind": lambda activity: activity.__struct_config__.tag,
        "percent": lambda share: f"{100 * share:.3f}%",
    }
    environment.globals |= {
        "anchor": anchor,
        "counted": formatting.counted,
        "divergence": formatting.describe_divergence,
        "figures": formatting.figures,
        "describe_attention": formatting.describe_attention,
        "describe_fork": formatting.describe_fork,
        "gist": _gist,
        "known_calls": formatting.known_calls,
        "failure_is_shown": formatting.failure_is_shown,
        "attention_anchor": _attention_anchor,
        "look_of": _look_of,
        "flaws_of": _flaws_of,
    }
    return environment


# --- values -------------------------------------------------------------------------------------------------------


def _arguments(text: str) -> Markup:
    """Render the arguments that a model wrote, as JSON if they are valid."""
    try:
        return mark_json(json.loads(text))
    except ValueError:
        return escape(visible(text))


def _is_long(text: str) -> bool:
    return len(text) > _LONG or text.count("\n") >= _LONG_LINES


def _beginning(text: str) -> str:
    return one_line(text[:400], 160)


# --- the functions of the template --------------------------------------------------------------------------------


def _gist(visit: Visit) -> str:
    """Summarize a visit in one line."""
    if children := [activity for activity in visit.activities if isinstance(activity, Child)]:
        states = Counter(child.status for child in children)
        return ", ".join(f"{count} {formatting.status_words(status)}" for status, count in states.items())
    return " · ".join(filter(None, (_gist_of(activity) for activity in visit.activities[:4]))) + (
        " · …" if len(visit.activities) > 4 else ""
    )


def _gist_of(activity: Activity) -> str:
    match activity:
        case Round():
            if activity.reply is None:
                return activity.failure.name if activity.failure is not None else "no reply yet"
            calls = ", ".join(call.name for call in activity.reply.tool_calls)
            return f"calls {calls}" if calls else one_line(activity.reply.shown, 90)
        case FunctionCall():
            return activity.name
        case Question():
            return "answered" if activity.answered else one_line(activity.prompt, 90)
        case Pause():
            return ""
        case Child():
            return formatting.status_words(activity.status)


def _attention_anchor(one: Attention) -> str:
    return f"{one.run}/{one.visit}"


def _look_of(visit: Visit, transcript: Transcript) -> str:
    """Return the CSS class of a visit."""
    if visit.exit is None:
        return "paused" if transcript.status in ("waiting", "sleeping", "needs_attention") else "under-way"
    return "broken" if visit.exit.failure is not None else "flawed" if _flaws_of(visit) else ""


def _flaws_of(visit: Visit) -> list[str]:
    """Return what went wrong in a visit, counted: a visit may go on after a refused or failed call."""
    flaws = Counter(flaw for activity in visit.activities if (flaw := _flaw_of(activity)))
    if not flaws and visit.exit is not None and visit.exit.failure is not None:
        return [visit.exit.failure.name]
    return [f"{count} {flaw}" for flaw, count in flaws.items()]


def _flaw_of(activity: Activity) -> str:
    match activity:
        case FunctionCall() if activity.status in ("failed", "refused"):
            return f"{activity.status} call" if activity.status == "refused" else activity.status
        case Round():
            return (
                "failed"
                if activity.failure
                else "invalid call"
                if activity.reply and activity.reply.invalid_call
                else ""
            )
        case Child() if activity.status in ("failed", "cancelled"):
            return activity.status
        case _:
            return ""
