"""What happened in a run, from its recorded events: as data, as text, as a page, and beside today's spec. Pure: nothing
is called, and nothing is read but the page's own template.
"""

from flowrun.story.html import render_html
from flowrun.story.parts import Story
from flowrun.story.replay import Divergence, render_divergence, replay
from flowrun.story.telling import Histories, story_of
from flowrun.story.text import render_text

__all__ = ["Divergence", "Histories", "Story", "render_divergence", "render_html", "render_text", "replay", "story_of"]
