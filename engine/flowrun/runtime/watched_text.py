"""What a model writes on its way to the observers of a run: the gate of secrets for text in pieces."""

from collections.abc import Mapping, Sequence

from flowrun.core.events import AskModel, Written
from flowrun.core.ports import TextObserver
from flowrun.spec.masked_stream import MaskedStream


class WatchedText:
    """The text of one reply while it is written. Secrets in it are masked, whatever pieces they come in.

    Args:
        request: the request for the reply.
        secrets: each secret with the text that replaces it.
    """

    def __init__(self, request: AskModel, observers: Sequence[TextObserver], secrets: Mapping[str, str]) -> None:
        self._request = request
        self._observers = observers
        self._secrets = secrets
        self._masked = MaskedStream(secrets)
        self._has_passed = False

    def receive(self, piece: str | None) -> None:
        """Pass on a piece; see ``ports.OnText``."""
        if piece is None:
            self._masked = MaskedStream(self._secrets)
            if self._has_passed:
                self._pass_on(None)
        else:
            self._pass_on(self._masked.feed(piece))

    def end(self) -> None:
        """Pass on what is held back, once the text is complete."""
        self._pass_on(self._masked.end())

    def _pass_on(self, text: str | None) -> None:
        if text == "":
            return
        self._has_passed = text is not None
        request = self._request
        written = Written(run=request.run, state=request.state, step=request.step, text=text)
        for observer in self._observers:
            observer.notify_text(written)
