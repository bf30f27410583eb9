"""Builds the transcript of a run from its recorded events: as data, as text, and as an HTML page; and compares a run
with the current spec. Pure: calls nothing, and reads only the templates of the page.
"""

from flowrun.transcript.build import build_transcript
from flowrun.transcript.html import render_html
from flowrun.transcript.model import Transcript
from flowrun.transcript.replay import Divergence, render_divergence, replay
from flowrun.transcript.text import render_messages, render_text

__all__ = [
    "Divergence",
    "Transcript",
    "build_transcript",
    "render_divergence",
    "render_html",
    "render_messages",
    "render_text",
    "replay",
]
