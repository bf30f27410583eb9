"""The gate of replies whose tokens are kept: none without them, and none that holds a secret."""

from collections.abc import Mapping

import msgspec

from flowrun.backends.wrapper import KeepsTokens, WrappedBackend
from flowrun.core.events import AskModel
from flowrun.core.messages import Reply, as_openai
from flowrun.core.ports import OnText
from flowrun.errors import ModelError
from flowrun.spec import mask


class KeptTokensBackend(WrappedBackend):
    """A ``ports.ModelBackend`` that asks another one for tokens too.

    Args:
        secrets: what no record may hold; tokens of a conversation that has one are not kept.
    """

    backend: KeepsTokens

    def __init__(self, backend: KeepsTokens, secrets: Mapping[str, str]) -> None:
        super().__init__(backend)
        self._secrets = secrets

    async def reply(self, request: AskModel, *, on_text: OnText | None = None) -> Reply:
        """Return the backend's reply, with its tokens.

        Raises:
            ModelError: the backend gave it without its tokens.
        """
        reply = await self.backend.reply(request, keeps_tokens=True, on_text=on_text)
        tokens = reply.tokens
        if request.labels or reply.finish_reason not in ("stop", "tool_calls"):
            return reply  # a choice has no tokens, and one that was cut off is no part of the conversation
        if tokens is None or not tokens.logprobs:
            raise ModelError("model.request_refused", f"the model {request.model!r} gave a reply without its tokens")
        if self._secrets and self._has_secret(request, reply):
            tokens = msgspec.structs.replace(tokens, prompt=b"", logprobs=b"", masked=True)
            return msgspec.structs.replace(reply, tokens=tokens)
        return reply

    def _has_secret(self, request: AskModel, reply: Reply) -> bool:
        told = [
            [as_openai(message) for message in request.messages],
            [tool.as_openai() for tool in request.tools],
            [reply.content, reply.reasoning, reply.text, [[call.name, call.arguments] for call in reply.tool_calls]],
        ]
        return bool(mask(told, self._secrets) != told)
