"""Makes incoming text valid Unicode, and outgoing text safe to display. Pure.

A Python string may hold a lone surrogate, which cannot be encoded as UTF-8 for a file, a server or a terminal.
Terminals, CI logs and web pages execute control characters, and bidirectional ones change the order of the text.
"""

import re
import unicodedata
from typing import Any, Final

import msgspec

MARK: Final = "\N{REPLACEMENT CHARACTER}"
"""Replaces a character that must not be displayed."""

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_STYLE: Final = re.compile("(\x1b\\[(?:[0124]|22|3[1-7]|39|9[1-7]|[12];3[1-7]|3[1-7];[12])m)")
"""SGR escape sequences (ECMA-48) for colour and weight that reports and logs use. They hide no text."""

_PLAIN: Final = re.compile(r"[\n -~]*")
"""Texts of which each character is displayed as itself: most of those that models write in English."""

_INVISIBLE: Final = frozenset([*"\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0", *map(chr, range(0xE0100, 0xE01F0))])
"""Characters that display nothing although Unicode has them among letters and marks."""

_ANYWHERE: Final = re.compile(r"##(?=\[|vso|teamcity)")
_COMMAND: Final = re.compile(r"^([^\S\n]*)::|" + _ANYWHERE.pattern, re.MULTILINE)
"""A command of GitHub Actions, Azure Pipelines or TeamCity in a log: at the start of a line, or anywhere in it."""


def well_formed(text: str) -> str:
    """Return a text as valid Unicode: a surrogate pair becomes one character, a lone surrogate becomes ``MARK``."""
    if text.isascii() or not _SURROGATE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def escape_surrogates(json_text: str) -> str:
    r"""Return a JSON text as valid Unicode with the same meaning: a surrogate is written as an escape, ``\ud83d``."""
    if json_text.isascii():
        return json_text
    return _SURROGATE.sub(lambda surrogate: f"\\u{ord(surrogate[0]):04x}", json_text)


def find_encoding_error(value: Any) -> str | None:
    """Return why a JSON value cannot be encoded (a value or a key holds a lone surrogate), or None if it can."""
    try:
        msgspec.json.encode(value)
    except UnicodeEncodeError as exc:
        return f"it holds {exc.object[exc.start]!a}, which is half of a character"
    return None


def visible(text: str) -> str:
    """Return a text with ``MARK`` for each character that is not displayed as itself, and four spaces for a tab.

    These are control characters except line breaks, bidirectional and other invisible characters, and surrogates.
    """
    if _PLAIN.fullmatch(text):
        return text
    return "".join(map(_visible_character, text.replace("\r\n", "\n")))


def printable(text: str) -> str:
    """Return a text that is safe for terminals and logs: as ``visible`` does, and without commands of CI systems."""
    text = visible(text)
    return _COMMAND.sub(_defuse, text) if ":" in text or "#" in text else text


def printable_line(text: str) -> str:
    """Return a text as ``printable`` does, on one line: ``MARK`` replaces each line break too."""
    return printable(text).replace("\n", MARK)


def printable_styled(text: str) -> str:
    """Return a text as ``printable`` does, but preserve SGR colours, which reports add to text that is already safe."""
    return "".join(part if _STYLE.fullmatch(part) else printable(part) for part in _STYLE.split(text))


def _visible_character(character: str) -> str:
    if character.isprintable() or character == "\n" or unicodedata.category(character) == "Zs":
        return MARK if character in _INVISIBLE else character
    return "    " if character == "\t" else MARK


def _defuse(found: re.Match[str]) -> str:
    return f"{MARK}#" if found[1] is None else f"{found[1]}{MARK}:"


def printable_json(text: str) -> str:
    """Return a JSON text with the same meaning and without the characters that ``printable`` would replace."""
    text = _ANYWHERE.sub(r"\\u0023#", text)
    if text.isascii() and "\x7f" not in text:
        return text
    return "".join(c if c.isprintable() or c in "\n\t\r" or c == " " else _escape(c) for c in text)


def visible_json(text: str) -> str:
    """Return a JSON text with the same meaning, of which each character is displayed as itself."""
    if _PLAIN.fullmatch(text):
        return text
    return "".join(c if c in "\n\t" or _visible_character(c) == c else _escape(c) for c in text)


def one_json_line(raw: bytes) -> bytes:
    r"""Return a JSON text of UTF-8 that is one line for every reader: U+0085, U+2028 and U+2029 are written as escapes.

    Many readers, Python's ``splitlines`` among them, take these for ends of lines. msgspec escapes the others.
    """
    return (
        raw.replace(b"\xc2\x85", b"\\u0085").replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    )


def _escape(character: str) -> str:
    if unicodedata.category(character) == "Zs":
        return character
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))
