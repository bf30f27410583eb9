"""Values, names and lists in the words of a sentence."""

import json
import re
from typing import Final

from flowrun.errors import Path, dotted
from flowrun.spec.model import JSON

_NEEDS_NO_QUOTES: Final = re.compile(r"[A-Za-z0-9_/](?:[^:#\n{}\[\],]|:(?! )|(?<! )#)*")


def name_of(path: Path) -> str:
    """Give what a value is called in a sentence: its key, with the indexes behind it."""
    named = max((index for index, part in enumerate(path) if isinstance(part, str)), default=None)
    return "the file" if named is None else dotted(path[named:])


def show(value: JSON, written: str | None = None) -> str:
    """Describe a value; ``written`` is what stands in the file in place of one from the environment."""
    if written is not None or isinstance(value, str):
        return f"the text '{shorten(' '.join(str(value if written is None else written).split()), 60)}'"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"the number {value}"
    return {dict: "a mapping", list: "a list", type(None): "empty"}[type(value)]


def inline(value: JSON) -> str:
    """Write a value as it could stand in YAML, on one line."""
    plain = isinstance(value, str) and _NEEDS_NO_QUOTES.fullmatch(value)
    return shorten(value if plain else json.dumps(value, ensure_ascii=False), 100)


def shorten(text: str, most: int) -> str:
    """Cut a text to ``most`` characters, with three dots at its end."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def listed(names: list[str], conjunction: str, quote: str = "'") -> str:
    """Write names as a list in a sentence: ``'a', 'b' and 'c'``."""
    *most, last = (f"{quote}{name}{quote}" for name in names)
    return f"{', '.join(most)} {conjunction} {last}" if most else last


def with_article(noun: str) -> str:
    """Put a or an before a noun, and nothing before a single word in the plural."""
    if noun.endswith("s") and " " not in noun:
        return noun
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
