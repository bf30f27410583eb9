"""The state graph as a Mermaid flowchart, which GitHub, GitLab and many editors display.

Labels are quoted, and their special characters are written as Mermaid's ``#NN;`` entities. The ids of states and the
names of classes have a prefix because some words, such as ``end`` and ``call``, are keywords of Mermaid.
"""

import re
from typing import Final

from flowrun.drawing.palette import INK, LIGHT
from flowrun.drawing.picture import KINDS, Arrow, Box, Kind, Picture
from flowrun.excerpts import one_line

_SPECIAL: Final = re.compile(r"""["#&<>|`%:;\\{}\[\]*~$]""")
_MAX_LABEL: Final = 60

_SHAPES: Final[dict[Kind, tuple[str, str]]] = {
    "chat": ("(", ")"),
    "tools": ("[/", r"\]"),
    "call": ("[[", "]]"),
    "route": ("{{", "}}"),
    "flow": ("[[", "]]"),
    "map": ("[[", "]]"),
    "parallel": ("[[", "]]"),
    "wait": ("[/", "/]"),
    "succeeded": ("([", "])"),
    "failed": ("([", "])"),
    "missing": ("[", "]"),
}


def draw_mermaid(picture: Picture) -> str:
    """Render a picture as a Mermaid flowchart."""
    used = [kind for kind in KINDS if any(box.kind == kind for box in picture.boxes)]
    lines = [
        "---",
        f'title: "{picture.title}"',
        "---",
        "flowchart TD",
        "    begin((( )))",
        *(_box(box) for box in picture.boxes),
        f"    begin --> {_id(picture.start)}",
        *(_arrow(arrow) for arrow in picture.arrows),
        *(f"    classDef k_{kind} {_style(kind)}" for kind in used),
        *(f"    class {_members(picture, kind)} k_{kind}" for kind in used),
    ]
    return "\n".join(lines) + "\n"


def _style(kind: Kind) -> str:
    fill, line = LIGHT[kind]
    return f"fill:{fill},stroke:{line},color:{INK}" + (",stroke-dasharray:4 3" if kind == "missing" else "")


def _members(picture: Picture, kind: Kind) -> str:
    return ",".join(_id(box.name) for box in picture.boxes if box.kind == kind)


def _box(box: Box) -> str:
    left, right = _SHAPES[box.kind]
    return (
        f'    {_id(box.name)}{left}"<b>{_escape(box.name)}</b><br/>{_escape(one_line(box.caption, _MAX_LABEL))}"{right}'
    )


def _arrow(arrow: Arrow) -> str:
    line = "-.->" if arrow.caught else "-->"
    label = f'|"{_escape(one_line(arrow.text, _MAX_LABEL))}"|' if arrow.text else ""
    return f"    {_id(arrow.source)} {line}{label} {_id(arrow.target)}"


def _id(name: str) -> str:
    return f"s_{name}"


def _escape(text: str) -> str:
    return _SPECIAL.sub(lambda found: f"#{ord(found[0])};", text)
