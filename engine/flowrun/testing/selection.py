"""Selects tests by an expression of ``-k``: texts with ``not``, ``and``, ``or``, parentheses, as in pytest. Pure.

A text is found anywhere in a test's name or its file's path, whatever its case. Words side by side are one text, and
what is in quotes is a text, whatever it says.
"""

import re
from collections.abc import Callable
from typing import Final

from flowrun.errors import UsageError

Selects = Callable[[str], bool]
"""Returns whether a test is selected, by its name with its file's path."""

_TOKEN: Final = re.compile(r"""\s*(?:([()])|"([^"]*)"|'([^']*)'|([^\s()]+))""")
_WORDS: Final = ("and", "or", "not", "(", ")")

Token = tuple[str, bool]
"""A word or a text, and whether it was in quotes."""


def parse_selection(text: str) -> Selects:
    """Parse an expression; an empty one selects all tests.

    Raises:
        UsageError: it is none.
    """
    tokens = _tokens(text)
    if not tokens:
        return lambda name: True
    parser = _Parser(text, tokens)
    selects = parser.either()
    if parser.next is not None:
        raise parser.error(f"{parser.next[0]!r} comes too early")
    return selects


def _tokens(text: str) -> list[Token]:
    """Return the tokens of an expression; a quote within a word, or one that is not closed, is a part of the word."""
    tokens: list[Token] = []
    at = 0
    text = text.rstrip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        assert found is not None, "anything but a space is a token"
        parenthesis, double, single, word = found.groups()
        quoted = double if double is not None else single
        tokens.append((quoted, True) if quoted is not None else (parenthesis or word, False))
        at = found.end()
    return tokens


class _Parser:
    """A parser by recursive descent: ``or`` of ``and`` of ``not``."""

    def __init__(self, text: str, tokens: list[Token]) -> None:
        self._text = text
        self._tokens = tokens[::-1]

    @property
    def next(self) -> Token | None:
        """Return the next token; None at the end."""
        return self._tokens[-1] if self._tokens else None

    def error(self, what: str) -> UsageError:
        """Return the error of an expression that is none."""
        return UsageError(f"-k {self._text}: {what}; write texts with not, and, or and parentheses between them")

    def either(self) -> Selects:
        """Parse texts with ``or`` between them."""
        parts = [self._all()]
        while self._take("or"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else lambda name: any(part(name) for part in parts)

    def _all(self) -> Selects:
        parts = [self._one()]
        while self._take("and"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else lambda name: all(part(name) for part in parts)

    def _one(self) -> Selects:
        if self._take("not"):
            part = self._one()
            return lambda name: not part(name)
        if self._take("("):
            part = self.either()
            if not self._take(")"):
                raise self.error("a parenthesis is not closed")
            return part
        words = []
        while (token := self.next) is not None and (token[1] or token[0] not in _WORDS):
            words.append(token[0])
            self._tokens.pop()
        if not words:
            where = f"before {self.next[0]!r}" if self.next is not None else "at the end"
            raise self.error(f"a text is missing {where}")
        text = " ".join(words).casefold()
        return lambda name: text in name.casefold()

    def _take(self, word: str) -> bool:
        if self.next is None or self.next[1] or self.next[0] != word:
            return False
        self._tokens.pop()
        return True
