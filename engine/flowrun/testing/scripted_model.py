"""The scripted model of the Python API, for tests of flows in plain pytest and for notebooks."""

from collections.abc import Iterable, Mapping
from typing import Any

from flowrun.backends.scripted import ScriptedBackend, ScriptedReply, parse_reply
from flowrun.errors import UsageError


class ScriptedModel(ScriptedBackend):
    """A model with scripted replies, for ``Flow.with_model``. ``requests`` holds what it was asked, in order."""

    def __init__(self, replies: Iterable[str | Mapping[str, Any]]) -> None:
        """Parse the replies. Each answers the first request that it fits, and is then used up.

        Args:
            replies: texts, and mappings as in a file of scripted replies: ``content``, ``tool_calls`` (each with
                ``name`` and ``arguments``), ``probabilities``, ``mass``, ``usage``, ``when``, ``repeat``, ``delay``,
                ``error``, ``message``, ``finish_reason``.

        Raises:
            UsageError: a reply has another form.
        """
        if isinstance(replies, str):
            raise UsageError("the replies are a list: write [text] for a single one")
        super().__init__([_parse(number, reply) for number, reply in enumerate(replies, 1)])


def _parse(number: int, reply: str | Mapping[str, Any]) -> ScriptedReply:
    if isinstance(reply, str):
        return ScriptedReply(content=reply)
    try:
        return parse_reply(dict(reply))
    except (ValueError, TypeError) as exc:
        raise UsageError(f"reply {number}: {exc}") from exc
