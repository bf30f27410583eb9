"""The state graph as a Mermaid flowchart, which GitHub, GitLab and many editors display.

Labels are quoted, and their special characters are written as Mermaid's ``#NN;`` entities. The ids of states and the
names of classes have a prefix because some words, such as ``end`` and ``call``, are keywords of Mermaid.
"""

import re
from typing import Final

from flowrun.core.states import Look
from flowrun.drawing.outlines import OUTLINES
from flowrun.drawing.picture import Arrow, Box, Picture, all_looks
from flowrun.drawing.style_sheet import INK
from flowrun.excerpts import one_line

_SPECIAL: Final = re.compile(r"""["#&<>|`%:;\\{}\[\]*~$]""")
_MAX_LABEL: Final = 60


def draw_mermaid(picture: Picture) -> str:
    """Render a picture as a Mermaid flowchart."""
    boxes = {kind: [_id(box.name) for box in picture.boxes if box.kind == kind] for kind in all_looks()}
    used = {kind: names for kind, names in boxes.items() if names}
    lines = [
        "---",
        f'title: "{picture.title}"',
        "---",
        "flowchart TD",
        "    begin((( )))",
        *(_box(box) for box in picture.boxes),
        f"    begin --> {_id(picture.start)}",
        *(_arrow(arrow) for arrow in picture.arrows),
        *(f"    classDef k_{kind} {_style(all_looks()[kind])}" for kind in used),
        *(f"    class {','.join(names)} k_{kind}" for kind, names in used.items()),
    ]
    return "\n".join(lines) + "\n"


def _style(look: Look) -> str:
    fill, line = look.light
    dashed = ",stroke-dasharray:4 3" if look.outline == "dashed" else ""
    return f"fill:{fill},stroke:{line},color:{INK}{dashed}"


def _box(box: Box) -> str:
    left, right = OUTLINES[box.look.outline].mermaid
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
