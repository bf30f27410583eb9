"""How wide a text is on the screen, in shares of its font's size, without any font at hand.

The widths are those of Helvetica and Arial (Adobe's font metrics, rounded), made a little wider, because a machine
without them shows a wider font; what is not listed counts by its East Asian width (Unicode, annex 11).
"""

import unicodedata
from typing import Final

_MARGIN: Final = 1.1
_BOLD: Final = 1.08
MONOSPACED: Final = 0.61
"""The width of a character of a monospaced font: 0.60 in Courier and DejaVu Sans Mono, a little less in others."""

_GROUPS: Final = {
    0.22: "ijl|'",
    0.28: "ft.,:;/\\!I[] ",
    0.34: 'r()-{}`"*',
    0.5: "ckszvxyJ",
    0.56: "abdeghnopquL0123456789_?$#",
    0.61: "FTZ~+=<>^·…",
    0.67: "ABEKPSVXY&",
    0.72: "CDHNRUw",
    0.78: "GOQ",
    0.83: "mM",
    0.89: "%",
    0.94: "W",
    1.02: "@",
}
_WIDTHS: Final = {character: width for width, characters in _GROUPS.items() for character in characters}


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Give the width of a line in a proportional font without serifs."""
    return sum(map(_width, text)) * size * _MARGIN * (_BOLD if bold else 1.0)


def code_width(text: str, size: float) -> float:
    """Give the width of a line in a monospaced font."""
    return sum(MONOSPACED * _cells(character) for character in text) * size


def _width(character: str) -> float:
    known = _WIDTHS.get(character)
    return known if known is not None else 0.6 * _cells(character)


def _cells(character: str) -> float:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Cf", "Mn", "Me"):
        return 0.0
    return 1.75 if unicodedata.east_asian_width(character) in ("W", "F") else 1.0
