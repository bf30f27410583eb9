"""Text as it comes in and as it goes out: valid Unicode in, and out to people nothing that a terminal would obey. Pure.

Python's texts may hold half of a surrogate pair, which no file, server or terminal takes. Terminals, CI logs and pages
obey control characters, and bidirectional ones show a text in another order than it has.
"""

import re
import unicodedata
from typing import Any, Final

import msgspec

MARK: Final = "\N{REPLACEMENT CHARACTER}"
"""Stands for a character that cannot be shown."""

_HALF: Final = re.compile("[\ud800-\udfff]")
_STYLE: Final = re.compile("(\x1b\\[(?:[0124]|22|3[1-7]|39|9[1-7]|[12];3[1-7]|3[1-7];[12])m)")
"""Colours and weights (SGR) that reports and logs use: they move no cursor and hide nothing."""

_INVISIBLE: Final = frozenset([*"\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0", *map(chr, range(0xE0100, 0xE01F0))])
"""Characters that show nothing although Unicode has them among letters and marks."""

_ANYWHERE: Final = re.compile(r"##(?=\[|vso|teamcity)")
_COMMAND: Final = re.compile(r"^([^\S\n]*)::|" + _ANYWHERE.pattern, re.MULTILINE)
"""What GitHub Actions, Azure Pipelines and TeamCity take for a command at the begin of a line of a log, or anywhere."""


def well_formed(text: str) -> str:
    """Return a text as valid Unicode: two halves of a pair are put together, a single one becomes a mark."""
    if text.isascii() or not _HALF.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def escape_halves(json_text: str) -> str:
    r"""Return a JSON text as valid Unicode with the same meaning: half of a pair is written as ``\ud83d``."""
    if json_text.isascii():
        return json_text
    return _HALF.sub(lambda half: f"\\u{ord(half[0]):04x}", json_text)


def fault_of(value: Any) -> str | None:
    """Say why a JSON value cannot be written down: half of a surrogate pair is in it, or a key. None if it can be."""
    try:
        msgspec.json.encode(value)
    except UnicodeEncodeError as exc:
        return f"it holds {exc.object[exc.start]!a}, which is half of a character"
    return None


def visible(text: str) -> str:
    """Return a text with a mark for each character that is obeyed rather than shown; four blanks for a tab.

    These are control characters (but line breaks), bidirectional and other invisible ones, and halves of a pair.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_shown, text.replace("\r\n", "\n")))


def printable(text: str) -> str:
    """Return a text as terminals and logs may show it: ``visible``, and no line of it is a command of a CI system."""
    text = visible(text)
    return _COMMAND.sub(_defused, text) if ":" in text or "#" in text else text


def printable_line(text: str) -> str:
    """Return a text as ``printable`` does, on one line: what would begin another one is marked too."""
    return printable(text).replace("\n", MARK)


def printable_styled(text: str) -> str:
    """Return a text as ``printable`` does, but keep the colours that reports put around what is printable already."""
    return "".join(part if _STYLE.fullmatch(part) else printable(part) for part in _STYLE.split(text))


def _shown(character: str) -> str:
    if character.isprintable() or character == "\n" or unicodedata.category(character) == "Zs":
        return MARK if character in _INVISIBLE else character
    return "    " if character == "\t" else MARK


def _defused(found: re.Match[str]) -> str:
    return f"{MARK}#" if found[1] is None else f"{found[1]}{MARK}:"


def printable_json(text: str) -> str:
    """Return a JSON text with the same meaning that holds no character which ``printable`` marks."""
    text = _ANYWHERE.sub(r"\\u0023#", text)
    if text.isascii() and "\x7f" not in text:
        return text
    return "".join(c if c.isprintable() or c in "\n\t\r" or c == " " else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    if unicodedata.category(character) == "Zs":
        return character
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
