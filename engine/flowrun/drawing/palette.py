"""The colours of each kind of state, shared by all drawings that have colours."""

from collections.abc import Mapping
from typing import Final

from flowrun.drawing.picture import Kind

LIGHT: Final[Mapping[Kind, tuple[str, str]]] = {
    "chat": ("#e8f1fd", "#3b7ddd"),
    "tools": ("#fff3dc", "#c98a12"),
    "call": ("#e0f5f1", "#1f9d86"),
    "route": ("#f1f1f4", "#7a7d8c"),
    "flow": ("#f1eafc", "#8457d0"),
    "map": ("#fbe9f5", "#bb4a9b"),
    "parallel": ("#e9ebff", "#5b62d6"),
    "wait": ("#fdebdf", "#d9692b"),
    "succeeded": ("#e3f6e6", "#2e9d4a"),
    "failed": ("#fde7e7", "#d0403f"),
    "missing": ("#ffffff", "#d0403f"),
}
"""The fill and line colours on a light background."""

DARK: Final[Mapping[Kind, tuple[str, str]]] = {
    "chat": ("#15243a", "#6ea8fe"),
    "tools": ("#33270e", "#e3b341"),
    "call": ("#0f2d28", "#4fd1b5"),
    "route": ("#26272d", "#a0a3b1"),
    "flow": ("#271c3b", "#b392f0"),
    "map": ("#36182d", "#e58ac7"),
    "parallel": ("#1d2042", "#9aa0ff"),
    "wait": ("#3a2114", "#f2a272"),
    "succeeded": ("#12301a", "#56d373"),
    "failed": ("#3a1517", "#ff8580"),
    "missing": ("#0d1117", "#ff8580"),
}
"""The fill and line colours on a dark background."""

INK: Final = "#1f2328"
CAUGHT: Final = "#c4403f"
"""The colour of the edges of caught errors, on a light background."""
