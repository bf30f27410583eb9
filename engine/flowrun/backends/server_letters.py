"""Decisions over the OpenAI chat API: one token is asked for, with the log-probabilities of the 20 likeliest. Pure.

Source: platform.openai.com/docs/api-reference/chat (``logprobs``, ``top_logprobs``).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from json import dumps
from typing import Any, Final

from flowrun.backends.chat_api import Completion, reply_of
from flowrun.backends.decided import decided
from flowrun.checks.vllm_names import SAMPLING
from flowrun.core.decisions import MAX_CHOICES, letters_of
from flowrun.core.messages import DECLINED, Reply
from flowrun.errors import ModelError
from flowrun.excerpts import cut
from flowrun.spec.model import JSON

_REMEDY: Final = "use another server, or one that returns logprobs"
_REASONS: Final = (
    "the model reasons before it answers: turn that off, such as by chat_template_kwargs: {enable_thinking: false}"
)
_SHOWN: Final = 200
_SPACES: Final = ("", " ", "▁", "Ġ")
"""What may stand before a letter in a token; the last two are how vocabularies write a space."""


def decision_body(body: Mapping[str, JSON]) -> dict[str, JSON]:
    """Return the body of a request whose reply is a decision.

    What chooses or shapes tokens is left out; settings that vLLM's sampling does not know, such as
    ``reasoning_effort``, stay. Some servers scale the log-probabilities by the temperature, so it is 1.
    """
    chosen = {*SAMPLING, "max_completion_tokens", "top_logprobs"}
    length = "max_completion_tokens" if "max_completion_tokens" in body else "max_tokens"
    kept = {name: value for name, value in body.items() if name not in chosen}
    return {**kept, "temperature": 1, length: 1, "logprobs": True, "top_logprobs": MAX_CHOICES}


def parse_decision(completion: Completion, labels: Sequence[str]) -> Reply:
    """Return the reply to a decide state.

    A letter that is not among the likeliest tokens has no probability.

    Raises:
        ModelError: the completion has no log-probabilities, or none of a letter.
    """
    reply = reply_of(completion)
    if reply.refusal is not None or reply.finish_reason.lower() in DECLINED:
        return reply
    likeliest = dict(_likeliest(completion.choices[0].logprobs))
    if not likeliest:
        why = _REASONS if reply.reasoning else _REMEDY
        raise ModelError("model.request_refused", f"the server returned no log-probabilities: {why}")
    found = {label: _logprob(letter, likeliest) for letter, label in letters_of(labels).items()}
    if reply.reasoning or max(found.values()) == -math.inf:
        tokens = cut(dumps(list(likeliest), ensure_ascii=False), _SHOWN)
        why = f": {_REASONS}" if reply.reasoning else ""
        raise ModelError("model.invalid_output", f"no letter of a choice begins the reply, but one of {tokens}{why}")
    return decided(found, usage=reply.usage)


def _logprob(letter: str, likeliest: Mapping[str, float]) -> float:
    """Return the log-probability of a letter, which may be a token with a space before it."""
    return max(likeliest.get(f"{space}{letter}", -math.inf) for space in _SPACES)


def _likeliest(logprobs: Any) -> Iterator[tuple[str, float]]:
    """Yield the likeliest first tokens of a reply, with their log-probabilities."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    first = content[0] if isinstance(content, list) and content else None
    top = first.get("top_logprobs") if isinstance(first, dict) else None
    for one in [*(top if isinstance(top, list) else ()), first]:
        if isinstance(one, dict) and isinstance(one.get("token"), str):
            value = one.get("logprob")
            if isinstance(value, (int, float)) and not math.isnan(value):
                yield one["token"], min(float(value), 0.0)
