"""What happened in a run, from its recorded events: as data, as text, as a page, and beside today's spec. Pure: nothing
is called, and nothing is read but the page's own template.
"""

from flowrun.transcript.build import Histories, build_transcript
from flowrun.transcript.html import render_html
from flowrun.transcript.model import Transcript
from flowrun.transcript.replay import Divergence, render_divergence, replay
from flowrun.transcript.text import render_text

__all__ = [
    "Divergence",
    "Histories",
    "Transcript",
    "build_transcript",
    "render_divergence",
    "render_html",
    "render_text",
    "replay",
]
