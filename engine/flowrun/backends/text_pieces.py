"""The pieces of one reply's text on their way to whoever watches it; the gate that all adapters pass. Pure."""

from flowrun.core.messages import Reply
from flowrun.core.ports import OnText
from flowrun.unicode import well_formed


class TextPieces:
    """Passes on what a model writes, so that its pieces add up to the content of the reply.

    White space is held back until something follows it, since parsers drop what stands before a call; so is half of a
    surrogate pair.
    """

    def __init__(self, on_text: OnText) -> None:
        self._on_text = on_text
        self._passed = ""
        self._held = ""

    def write(self, text: str) -> None:
        """Pass on a piece of the content."""
        text = self._held + text
        end = len(text.rstrip())
        if end and "\ud800" <= text[end - 1] <= "\udbff":
            end -= 1
        self._held = text[end:]
        self._pass_on(well_formed(text[:end]))

    def restart(self) -> None:
        """Say that the reply is written anew, if anything was passed on of it."""
        self._held = ""
        if self._passed:
            self._passed = ""
            self._on_text(None)

    def finish(self, reply: Reply) -> Reply:
        """Pass on what is missing of a reply's content, and return the reply.

        Where the pieces are not its beginning, as a parser found out only at the end what the text is, it is written
        anew.
        """
        content = reply.content or ""
        if not content.startswith(self._passed):
            self.restart()
        self._pass_on(content[len(self._passed) :])
        return reply

    def _pass_on(self, text: str) -> None:
        if text:
            self._passed += text
            self._on_text(text)


def in_one_piece(reply: Reply, on_text: OnText | None) -> Reply:
    """Pass on the content of a reply that was not watched while it was written, and return the reply."""
    return reply if on_text is None else TextPieces(on_text).finish(reply)
