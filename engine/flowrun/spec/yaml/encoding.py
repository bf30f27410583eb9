"""Decoding of bytes to text that a YAML parser accepts: UTF-8 of a limited size, without invisible characters."""

import codecs
import re
from collections.abc import Iterator
from typing import Final

from flowrun.errors import Issue, Place

MAX_BYTES: Final = 1024 * 1024
"""The most bytes of a spec."""

MAX_LISTED: Final = 20
"""The most lines that are reported for one kind of encoding mistake."""

_OTHER_BYTE_ORDER_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
"""Byte order marks of other encodings. Those of UTF-32 come first, because UTF-32-LE's begins with UTF-16-LE's."""

_NOT_UTF8: Final = re.compile("[\udc80-\udcff]")
_INVISIBLE: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")
_LINE_BREAK: Final = re.compile("\r\n|\r|\n")


def decode_source(raw: bytes, file: str) -> tuple[str | None, list[Issue]]:
    """Return the text of a file without a byte order mark, and the issues. The text is None if decoding fails."""
    start = Place(file, 1, 1)
    if len(raw) > MAX_BYTES:
        return None, [too_large(file, len(raw))]
    for mark, name in _OTHER_BYTE_ORDER_MARKS:
        if raw.startswith(mark):
            return None, [_not_utf8(start, f"the file is {name}, and must be UTF-8")]
    if b"\x00" in raw[:4]:
        return None, [_not_utf8(start, "the file looks like UTF-16 or UTF-32 (it begins with zero bytes)")]
    issues = []
    if raw.startswith(codecs.BOM_UTF8):
        raw = raw[len(codecs.BOM_UTF8) :]
        issues.append(_byte_order_mark(file))
    try:
        return raw.decode(), issues
    except UnicodeDecodeError:
        return None, issues + _wrong_bytes(raw, file)


def clean_text(text: str, file: str) -> tuple[str, list[Issue]]:
    """Return the text with spaces for invisible characters, and the issues. All columns stay the same."""
    issues = []
    if text.startswith("\ufeff"):
        text = text[1:]
        issues.append(_byte_order_mark(file))
    for place, character in _first_on_each_line(_INVISIBLE, text, file):
        issues.append(
            Issue(
                code="FR111",
                place=place,
                message=f"the character U+{ord(character):04X} is invisible and not allowed in YAML",
                remedy='delete it, or write it as an escape in double quotes: "\\x1b" or "\\u2028"',
            )
        )
    return (_INVISIBLE.sub(" ", text), issues) if issues else (text, issues)


def too_large(file: str, size: int) -> Issue:
    """Return the issue of a file with ``size`` bytes, which are too many."""
    return Issue(
        code="FR124",
        place=Place(file, 1, 1),
        message=f"the file has {size:,} bytes, and a spec may have {MAX_BYTES:,}",
        remedy="keep large data out of the spec: give it as an input, or in files of its own",
    )


def _byte_order_mark(file: str) -> Issue:
    return Issue(
        code="FR110",
        place=Place(file, 1, 1),
        message="the file begins with a byte order mark (U+FEFF)",
        remedy="save it as UTF-8 without a byte order mark: other tools may not know it",
        severity="warning",
    )


def _not_utf8(place: Place, message: str) -> Issue:
    return Issue(code="FR109", place=place, message=message, remedy="save it as UTF-8")


def _wrong_bytes(raw: bytes, file: str) -> list[Issue]:
    text = raw.decode(errors="surrogateescape")
    return [
        _not_utf8(place, f"the byte 0x{ord(character) - 0xDC00:02X} is not UTF-8")
        for place, character in _first_on_each_line(_NOT_UTF8, text, file)
    ]


def _first_on_each_line(pattern: re.Pattern[str], text: str, file: str) -> Iterator[tuple[Place, str]]:
    """Yield the first match on each line, on ``MAX_LISTED`` lines at most."""
    listed = 0
    line, line_start, reported = 1, 0, 0
    breaks = _LINE_BREAK.finditer(text)
    next_break = next(breaks, None)
    for match in pattern.finditer(text):
        while next_break is not None and next_break.start() < match.start():
            line, line_start = line + 1, next_break.end()
            next_break = next(breaks, None)
        if line == reported:
            continue
        reported = line
        yield Place(file, line, match.start() - line_start + 1), match.group()
        listed += 1
        if listed == MAX_LISTED:
            return
