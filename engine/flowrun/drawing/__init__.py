"""A flow's state graph drawn as Mermaid, DOT, SVG or plain text. Pure: no I/O."""

from collections.abc import Callable, Mapping
from typing import Final

from flowrun.drawing.dot import draw_dot
from flowrun.drawing.listing import draw_text
from flowrun.drawing.mermaid import draw_mermaid
from flowrun.drawing.picture import Picture, build_picture
from flowrun.drawing.svg import draw_svg
from flowrun.spec.model import Spec

DRAWERS: Final[Mapping[str, Callable[[Picture], str]]] = {
    "mermaid": draw_mermaid,
    "dot": draw_dot,
    "svg": draw_svg,
    "text": draw_text,
}
"""The drawing function of each output format."""


def draw(spec: Spec, form: str) -> str:
    """Draw a flow's state graph.

    Args:
        form: the output format, a key of ``DRAWERS``.
    """
    return DRAWERS[form](build_picture(spec))


__all__ = ["DRAWERS", "draw"]
