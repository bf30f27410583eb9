"""JSON that the YAML parser does not read: tabs between values, characters escaped as a surrogate pair (RFC 8259)."""

import json
import re
from collections.abc import Mapping
from typing import Final

Shifts = Mapping[int, list[tuple[int, int]]]
"""By line, the columns behind which the text has become shorter, and by how much."""

_PAIR: Final = re.compile(r"(?<!\\)((?:\\\\)*)\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})", re.IGNORECASE)
_QUOTED: Final = re.compile(r"""\"(?:[^"\\\n]|\\.)*\"|'(?:[^'\n])*'""")


def as_yaml(text: str) -> tuple[str, Shifts]:
    """Return a text that YAML reads as JSON would, and where it has become shorter. Most texts stay as they are."""
    if "\t" in text and _is_json(text):
        text = text.replace("\t", " ")  # a tab in a JSON text stands between values only
    if not _PAIR.search(text):
        return text, {}
    shifts: dict[int, list[tuple[int, int]]] = {}
    lines = text.split("\n")
    for index, line in enumerate(lines):
        if _PAIR.search(line):
            lines[index], shifts[index + 1] = _join_pairs(line)
    return "\n".join(lines), shifts


def _is_json(text: str) -> bool:
    if not text.lstrip().startswith("{"):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _join_pairs(line: str) -> tuple[str, list[tuple[int, int]]]:
    """Replace the pairs in the double-quoted texts of a line; return the columns behind them, and by how much."""
    shifts: list[tuple[int, int]] = []
    shorter = 0

    def join(pair: re.Match[str]) -> str:
        nonlocal shorter
        high, low = int(pair[2], 16), int(pair[3], 16)
        joined = f"{pair[1]}\\U{0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00):08X}"
        shorter += len(pair[0]) - len(joined)
        return joined

    parts: list[str] = []
    copied = 0
    for quoted in _QUOTED.finditer(line):
        if not quoted[0].startswith('"'):
            continue
        before = shorter
        parts += line[copied : quoted.start()], _PAIR.sub(join, quoted[0])
        copied = quoted.end()
        if shorter > before:
            shifts.append((quoted.end() - shorter, shorter - before))
    return "".join([*parts, line[copied:]]), shifts
