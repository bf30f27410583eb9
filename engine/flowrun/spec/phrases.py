"""Formatting of values, names and lists for messages."""

import re
from json import dumps
from typing import Final

from flowrun.errors import Path, dotted
from flowrun.excerpts import cut
from flowrun.spec.model import JSON

_NEEDS_NO_QUOTES: Final = re.compile(r"[A-Za-z0-9_/](?:[^:#\n{}\[\],]|:(?! )|(?<! )#)*")


def name_of(path: Path) -> str:
    """Return the name of a value for a message: its nearest key with the indexes after it, such as ``errors[0]``."""
    named = max((index for index, part in enumerate(path) if isinstance(part, str)), default=None)
    return "the file" if named is None else dotted(path[named:])


def show(value: JSON, written: str | None = None) -> str:
    """Format a value for a message.

    Args:
        written: the text in the file, for a value that came from the environment.
    """
    if written is not None or isinstance(value, str):
        return f"the text '{cut(' '.join(str(value if written is None else written).split()), 60)}'"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"the number {value}"
    return {dict: "a mapping", list: "a list", type(None): "empty"}[type(value)]


def inline(value: JSON) -> str:
    """Format a value as YAML on one line."""
    plain = isinstance(value, str) and _NEEDS_NO_QUOTES.fullmatch(value)
    return cut(value if plain else dumps(value, ensure_ascii=False), 100)


def listed(names: list[str], conjunction: str, quote: str = "'") -> str:
    """Format names as a list for a message: ``'a', 'b' and 'c'``."""
    *most, last = (f"{quote}{name}{quote}" for name in names)
    return f"{', '.join(most)} {conjunction} {last}" if most else last


def with_article(noun: str) -> str:
    """Return a noun with ``a`` or ``an`` before it. A single word in the plural stays as it is."""
    if noun.endswith("s") and " " not in noun:
        return noun
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
