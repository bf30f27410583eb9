"""Texts of users, rows and tools that spell a special token stay text: only the template writes special tokens. Pure.

Where a message spells one, a character of a private plane stands for it while the template is rendered. It is tokenized
on its own, as text. All other texts are rendered and tokenized as they are.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

_FIRST: Final = 0xF0000
_PRIVATE: Final = "\U000f0000-\U000ffffd\U0010fffd"
_ESCAPE: Final = "\U0010fffd"
"""Stands before a private character that a text itself holds."""
_IS_PRIVATE: Final = re.compile(f"[{_PRIVATE}]")
_STAND_IN: Final = re.compile(f"{_ESCAPE}(.)|[\U000f0000-\U000ffffd]", re.DOTALL)


class SpecialTexts:
    """The texts of a tokenizer's special tokens."""

    def __init__(self, texts: Iterable[str]) -> None:
        """Take the texts; the longest one counts where several begin."""
        self.texts = sorted(filter(None, texts), key=lambda text: (-len(text), text))
        self._stand_ins = {text: chr(_FIRST + number) for number, text in enumerate(self.texts)}
        self._beginnings = {text[:4] for text in self.texts}  # a few, which are found faster than hundreds of texts
        self._found = re.compile("|".join([*map(re.escape, self.texts), f"[{_PRIVATE}]"]))

    def protect(self, messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return messages without special texts; those that have none are the same objects."""
        return [self._protect_message(message) for message in messages] if self.texts else list(messages)

    def _protect_message(self, message: dict[str, Any]) -> dict[str, Any]:
        changed: dict[str, Any] = {}
        for key in ("content", "reasoning"):
            text = message.get(key)
            if isinstance(text, str) and (other := self._protect_text(text)) is not text:
                changed[key] = other
        calls = message.get("tool_calls") or ()
        arguments = [self._protect_text(call["function"]["arguments"]) for call in calls]
        if any(new is not call["function"]["arguments"] for new, call in zip(arguments, calls, strict=True)):
            changed["tool_calls"] = [
                {**call, "function": {**call["function"], "arguments": new}}
                for new, call in zip(arguments, calls, strict=True)
            ]
        return {**message, **changed} if changed else message

    def _protect_text(self, text: str) -> str:
        private = not text.isascii() and _IS_PRIVATE.search(text) is not None
        if private or any(beginning in text for beginning in self._beginnings):
            return self._found.sub(self._stand_in, text) if self._found.search(text) else text
        return text

    def _stand_in(self, found: re.Match[str]) -> str:
        return self._stand_ins.get(found[0]) or _ESCAPE + found[0]

    def restore(self, text: str) -> str:
        """Return a rendered text as it is read: with the special texts."""
        return "".join(part if isinstance(part, str) else self.texts[part] for part in self.split(text))

    def stands_in(self, text: str) -> bool:
        """Return whether a rendered text has a special text that a message spells."""
        return any(isinstance(part, int) for part in self.split(text))

    def split(self, text: str) -> Iterator[str | int]:
        """Yield the parts of a rendered text: texts, and the indices of the special texts that messages spell."""
        if text.isascii() or not self.texts:
            yield text
            return
        plain: list[str] = []
        at = 0
        for found in _STAND_IN.finditer(text):
            plain.append(text[at : found.start()])
            at = found.end()
            if found[1] is not None:
                plain.append(found[1])
            elif (index := ord(found[0]) - _FIRST) < len(self.texts):
                yield "".join(plain)
                plain = []
                yield index
            else:
                plain.append(found[0])
        yield "".join([*plain, text[at:]])
