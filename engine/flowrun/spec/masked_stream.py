"""The gate of secrets for a text that comes in pieces. Pure."""

from collections.abc import Mapping

from flowrun.spec.masking import compile_secrets


class MaskedStream:
    """Masks a text piece by piece: the pieces that it returns are together what ``mask`` makes of the whole text.

    What may be the beginning of a secret is held back until more of the text shows whether it is one.

    Args:
        secrets: each secret with the text that replaces it, as for ``mask``.
    """

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._held = ""
        self._secrets = bool(secrets)
        if secrets:
            self._pattern, self._shown = compile_secrets(secrets)
            self._longest = max(map(len, self._shown))

    def feed(self, piece: str) -> str:
        """Return what can be shown after another piece; it may be empty."""
        if not self._secrets:
            return piece
        text, at = self._held + piece, 0
        shown: list[str] = []
        while True:
            held = self._first_beginning(text, at)
            found = self._pattern.search(text, at)
            if found is None or found.start() >= held:  # a longer secret may begin where this one does, or before it
                break
            shown += text[at : found.start()], self._shown[found[0]]
            at = found.end()
        self._held = text[held:]
        return "".join([*shown, text[at:held]])

    def end(self) -> str:
        """Return the rest, once the text is complete."""
        held, self._held = self._held, ""
        return self._pattern.sub(lambda found: self._shown[found[0]], held) if held else ""

    def _first_beginning(self, text: str, at: int) -> int:
        """Return the first index, from ``at``, of an end of the text that may be the beginning of a secret."""
        for index in range(max(at, len(text) - self._longest + 1), len(text)):
            end = text[index:]
            if any(len(secret) > len(end) and secret.startswith(end) for secret in self._shown):
                return index
        return len(text)
