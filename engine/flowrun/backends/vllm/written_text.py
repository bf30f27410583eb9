"""Reads the content of a reply while vLLM writes it, by the family's own parser for pieces.

Such parsers find out later than those for whole replies what a text is, and some families have none that works. What
they get wrong is put right at the end: the pieces are then replaced by the content of the whole reply.
"""

from collections.abc import Sequence
from typing import Any

from flowrun.backends.text_pieces import TextPieces


class WrittenText:
    """The text of one reply, from outputs of vLLM that each have all that was written so far.

    Args:
        pieces: receives the content.
        parser: a parser of vLLM that has read nothing yet; None if all text is content.
        request: the request in vLLM's form.
        prompt: the tokens of the prompt, which may have opened a block of reasoning.
    """

    def __init__(self, pieces: TextPieces, *, parser: Any, request: Any, prompt: Sequence[int]) -> None:
        self._pieces = pieces
        self._parser = parser
        self._request = request
        self._prompt = list(prompt)
        self._read = 0  # characters
        self._tokens = 0
        self._lost = False

    def receive(self, output: Any) -> None:
        """Pass on what is new in an output of vLLM."""
        (completion,) = output.outputs
        text, ids = completion.text[self._read :], list(completion.token_ids[self._tokens :])
        self._read, self._tokens = len(completion.text), len(completion.token_ids)
        if self._parser is None:
            self._pieces.write(text)
        elif not self._lost and (text or ids):
            self._parse(text, ids, finished=completion.finish_reason is not None)

    def _parse(self, text: str, ids: list[int], *, finished: bool) -> None:
        try:
            message = self._parser.parse_delta(text, ids, self._request, self._prompt, finished=finished)
        except Exception:  # any text may be too much for a parser; the whole reply is read at the end
            self._lost = True
            return
        if message is not None and message.content:
            self._pieces.write(message.content)
