"""What the chat API answers: a completion, or the chunks of a stream. Pure.

Beside what OpenAI's clients read, each has a member ``flowrun``: the run with its status, its whole output, and the
questions that it waits for. Source: platform.openai.com/docs/api-reference/chat.
"""

from typing import Any

import msgspec

from flowrun.core.messages import Usage
from flowrun.runtime.run_events import RunEvent, TextDelta, TextDiscarded
from flowrun.runtime.run_result import RunResult, answer_text
from flowrun.serving.questions import describe_questions
from flowrun.serving.served_flow import ServedFlow
from flowrun.spec import mask
from flowrun.spec.model import JSON

WAITING = "waiting"
"""The ``finish_reason`` of a run that waits for a person's answer: none of OpenAI's own says that."""

_APART = "\n\n"
"""Divides what was written and is not the answer from what comes after it."""


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """A run as a completion, without secrets.

    Attributes:
        address: of the server, by which the client asked it.
    """

    served: ServedFlow
    run_id: str
    created: int
    address: str

    def whole(self, result: RunResult) -> dict[str, Any]:
        """Return the completion of a run that has ended or waits."""
        message = {"role": "assistant", "content": self.text_of(result), "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish_reason(result)}
        return {
            **self._head("chat.completion"),
            "choices": [choice],
            "usage": _usage(result.usage),
            "flowrun": self.about(result),
        }

    def chunk(self, delta: dict[str, str], *, result: RunResult | None = None) -> dict[str, Any]:
        """Return a chunk of a stream; the last one has the result."""
        reason = None if result is None else _finish_reason(result)
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        about = {} if result is None else {"flowrun": self.about(result)}
        return {**self._head("chat.completion.chunk"), "choices": [choice], **about}

    def usage_chunk(self, result: RunResult) -> dict[str, Any]:
        """Return the chunk behind the last one, with the tokens of the whole run."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": _usage(result.usage)}

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self.run_id}",
            "object": kind,
            "created": self.created,
            "model": self.served.name,
        }

    def text_of(self, result: RunResult) -> str:
        """Return the text of a run: its answer, or what it waits for and how that is answered."""
        if result.pending:
            return describe_questions(result, self.address, self.served.flow.secrets)
        return self.served.masked(answer_text(result.output) or "")

    def about(self, result: RunResult) -> dict[str, JSON]:
        """Return what clients of flowrun read of a run."""
        about: dict[str, JSON] = {"run": result.run_id, "status": result.status, "output": result.output}
        if result.pending:
            about["waiting"] = [msgspec.to_builtins(ask) for ask in result.pending]
        masked: dict[str, JSON] = mask(about, self.served.flow.secrets)
        return masked


def _finish_reason(result: RunResult) -> str:
    return WAITING if result.run.outcome is None else "stop"


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


class AnswerText:
    """The text of an answer, as it is written.

    What the states that may give the answer write is sent at once. Where it turns out to be something else, such as
    words before a tool call or a reply that failed, it cannot be taken back: a blank line divides it from what follows.
    """

    def __init__(self, run_id: str, states: frozenset[str]) -> None:
        self._run_id = run_id
        self._states = states
        self._step = 0
        self._text = ""
        self._has_sent = False

    def of(self, event: RunEvent) -> str:
        """Return the text that an event adds."""
        if isinstance(event, TextDiscarded) and event.run == self._run_id:
            self._step, self._text = 0, ""
        if not isinstance(event, TextDelta) or event.run != self._run_id or event.state not in self._states:
            return ""
        if event.step != self._step:
            self._step, self._text = event.step, ""
        apart = _APART if self._has_sent and not self._text else ""
        self._text += event.text
        self._has_sent = True
        return apart + event.text

    def rest(self, text: str) -> str:
        """Return what is still to be sent of the whole text."""
        if text.startswith(self._text) and self._text:
            return text[len(self._text) :]
        return (_APART if self._has_sent and text else "") + text
