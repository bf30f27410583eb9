"""Estimates the width of a text on the screen without access to the font.

The widths are those of Helvetica and Arial (Adobe's font metrics, rounded), as a share of the font size. They are
increased a little, because a machine without these fonts uses a wider one. A character that is not listed has a width
by its East Asian Width property (Unicode Standard Annex 11).
"""

import unicodedata
from typing import Final

_MARGIN: Final = 1.1
_BOLD: Final = 1.08
MONOSPACED: Final = 0.61
"""The width of a character of a monospaced font, as a share of the font size: 0.60 in Courier and DejaVu Sans Mono, a
little less in others."""

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
    """Return the width of a line in a proportional sans-serif font, in the unit of ``size``."""
    return sum(map(_width, text)) * size * _MARGIN * (_BOLD if bold else 1.0)


def code_width(text: str, size: float) -> float:
    """Return the width of a line in a monospaced font, in the unit of ``size``."""
    return sum(MONOSPACED * _cells(character) for character in text) * size


def _width(character: str) -> float:
    known = _WIDTHS.get(character)
    return known if known is not None else 0.6 * _cells(character)


def _cells(character: str) -> float:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Cf", "Mn", "Me"):
        return 0.0
    return 1.75 if unicodedata.east_asian_width(character) in ("W", "F") else 1.0
