"""The gate of secrets: what leaves for people and files has ``${NAME}`` in the place of each secret. Pure.

Secrets are no data, so nothing is masked on its way to the journal. Each exit (console, ``--json``, results, pages,
cassettes, reports, logs) passes ``mask``, before texts are cut: a secret that is cut would not be recognised. Encodings
of a secret are not looked for.
"""

import html
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from json import dumps
from typing import Any, Final, TypeVar

import msgspec

from flowrun.errors import Failure

T = TypeVar("T")

MIN_MASKED_LENGTH: Final = 8
"""The fewest characters of a secret that is masked inside of words too. A shorter one would garble other words."""

_FRAGMENT: Final = 4
"""The fewest characters of a secret left at a cut that are replaced."""

_AFTER_BEGINNING: Final = re.compile(r"\s?\.\.\.|[…'\"&<\\]|\s*$", re.MULTILINE)
"""What follows the beginning of a secret at a cut: the mark of the cut, the end of a quotation, or that of a line."""

_BEFORE_END: Final = "…'\";>"
"""The characters of which one stands before the end of a secret at a cut."""


def secret_forms(value: str) -> list[str]:
    """Return the texts that a variable keeps secret: its value without space around it, and what follows a scheme."""
    text = value.strip()
    scheme = _SCHEME.match(text)
    return [text] if scheme is None else [text, text[scheme.end() :]]


_SCHEME: Final = re.compile(r"(?:bearer|basic|token)\s+", re.IGNORECASE)
"""How the value of an ``Authorization`` header may begin (RFC 9110, 11.1)."""


def mask(value: T, secrets: Mapping[str, str]) -> T:
    """Return a value with every secret replaced: a text, or JSON data and structs with texts in them.

    A whole number in data that is a secret becomes the text that replaces it.

    Args:
        secrets: each secret of ``MIN_MASKED_LENGTH`` or more characters with the text that replaces it: ``${VAR}``.
    """
    if not secrets:
        return value
    if isinstance(value, str):
        return _mask_text(value, secrets)  # type: ignore[return-value]
    return _mask_value(value, secrets)  # type: ignore[no-any-return]


def _mask_value(value: Any, secrets: Mapping[str, str]) -> Any:
    match value:
        case str():
            return _mask_text(value, secrets)
        case bool():
            return value
        case int():
            return secrets.get(str(value), value)
        case Mapping():
            return {mask(key, secrets): _mask_value(item, secrets) for key, item in value.items()}
        case tuple() if hasattr(value, "_fields"):
            return type(value)(*(_mask_value(item, secrets) for item in value))
        case Sequence() if not isinstance(value, bytes):
            return type(value)(_mask_value(item, secrets) for item in value)  # type: ignore[call-arg]
        case Failure():
            return msgspec.structs.replace(value, message=mask_excerpt(value.message, secrets))
        case msgspec.Struct():
            fields = {name: getattr(value, name) for name in value.__struct_fields__}
            masked = {name: _mask_value(field, secrets) for name, field in fields.items() if not isinstance(field, int)}
            changed = {name: field for name, field in masked.items() if field is not fields[name]}
            return msgspec.structs.replace(value, **changed) if changed else value
        case _:
            return value


def _mask_text(text: str, secrets: Mapping[str, str]) -> str:
    pattern, shown = compile_secrets(secrets)
    return pattern.sub(lambda found: shown[found[0]], text)


def compile_secrets(secrets: Mapping[str, str]) -> tuple[re.Pattern[str], dict[str, str]]:
    """Return a pattern that finds all spellings of secrets, the longest first, and what replaces each."""
    return _compiled(tuple(secrets.items()))


@lru_cache(maxsize=16)
def _compiled(secrets: tuple[tuple[str, str], ...]) -> tuple[re.Pattern[str], dict[str, str]]:
    shown = {spelling: replacement for secret, replacement in secrets for spelling in _spellings(secret)}
    return re.compile("|".join(map(re.escape, sorted(shown, key=len, reverse=True)))), shown


def _spellings(secret: str) -> tuple[str, ...]:
    """Return a secret as it is, and as JSON, Python and HTML write it within quotes."""
    return (
        secret,
        dumps(secret)[1:-1],
        dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
        html.escape(secret),
    )


def mask_excerpt(text: str, secrets: Mapping[str, str]) -> str:
    """Return the text of an error with every secret replaced, and what a cut may have left of one.

    Errors quote values, and cut them: so the beginning of a secret is replaced before the end of a quoted or cut text,
    its end after the beginning of one. A secret shorter than ``MIN_MASKED_LENGTH`` is replaced only as a whole word.

    Args:
        secrets: each secret with the text that replaces it, such as ``${VAR}``.
    """
    shown = {spelling: replacement for secret, replacement in secrets.items() for spelling in _spellings(secret)}
    if not shown:
        return text
    spellings = sorted(shown, key=len, reverse=True)
    whole = "|".join(
        re.escape(spelling) if len(spelling) >= MIN_MASKED_LENGTH else rf"(?<!\w){re.escape(spelling)}(?!\w)"
        for spelling in spellings
    )
    cuttable = [spelling for spelling in spellings if len(spelling) >= MIN_MASKED_LENGTH]
    beginnings = "".join(f"|{re.escape(spelling[:_FRAGMENT])}" for spelling in cuttable)
    parts: list[str] = []
    copied = position = 0
    search = re.compile(rf"(?P<whole>{whole}){beginnings}|(?<=[{_BEFORE_END}])").search
    while position < len(text) and (found := search(text, position)) is not None:
        start, end, spelling = found.start(), found.end(), found["whole"]
        if spelling is None:
            lengths = ((_fragment_at(text, start, secret), secret) for secret in cuttable)
            length, spelling = next((pair for pair in lengths if pair[0]), (0, ""))
            end = start + length
        if end > start:
            parts += text[copied:start], shown[spelling]
            copied = end
        position = max(end, start + 1)
    return "".join([*parts, text[copied:]])


def _fragment_at(text: str, start: int, secret: str) -> int:
    """Return the length of the longest fragment of a secret that stands in a text at a cut; 0 if none does."""
    longest = 0
    if text.startswith(secret[:_FRAGMENT], start):
        lengths = (n for n in range(len(secret) - 1, _FRAGMENT - 1, -1) if text.startswith(secret[:n], start))
        longest = next((length for length in lengths if _AFTER_BEGINNING.match(text, start + length)), 0)
    first = text[start : start + _FRAGMENT]
    if start and text[start - 1] in _BEFORE_END and len(first) == _FRAGMENT:
        index = secret.find(first, 1)
        while index > 0:
            if text.startswith(secret[index:], start):
                return max(longest, len(secret) - index)
            index = secret.find(first, index + 1)
    return longest
