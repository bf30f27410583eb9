"""The gate for replies: a reply counts only if it is complete, valid and what the state asked for. Pure.

The replies of all backends pass it, also scripted replies and those of cassettes.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final

from flowrun.core.failures import StateFailure
from flowrun.core.json_schema import compile_schema
from flowrun.core.messages import CUT_OFF, DECLINED, FINISHED, Message, Reply
from flowrun.core.rendering import with_ids
from flowrun.core.views import DecisionView
from flowrun.excerpts import cut
from flowrun.spec.model import JSON, ResponseFormat
from flowrun.spec.strict_json import parse_json

ReadValue = Callable[[str], JSON]
"""Returns the value of a reply's text."""

_SHOWN: Final = 80  # characters
_ROUNDING: Final = 1e-3
"""How far the sum of probabilities may be from 1."""

_REFUSAL: Final = 400
"""Characters of a refusal, or of the names of calls, that a message quotes."""


def accept_reply(
    reply: Reply,
    *,
    tool_choice: str,
    offers_tools: bool,
    handles_calls: bool,
    read_value: ReadValue | None,
    call_count: int,
    keeps_reasoning: bool,
) -> tuple[Message, JSON]:
    """Return a reply's message for its thread and its value, if it is complete, valid and what the state asked for.

    The value is None without a ``response_format``.

    Args:
        tool_choice: the state's ``tool_choice``.
        offers_tools: whether the state offers any tool.
        handles_calls: whether some state handles the reply's tool calls. See ``call_handling``.
        read_value: reads the value of a reply, if the state has a ``response_format``.
        call_count: the number of calls before this reply in the run.
        keeps_reasoning: whether the message for the thread has the reasoning.

    Raises:
        StateFailure: the reply fails a check; the name is one of ``errors.FAILURES``.
    """
    if reply.finish_reason not in FINISHED or reply.refusal is not None:
        _check_end(reply)
    if reply.invalid_call is not None:
        raise StateFailure("model.invalid_call", reply.invalid_call)
    if tool_choice != "auto":
        _check_choice(reply, tool_choice, offers_tools)
    calls, parsed = reply.tool_calls, None
    if calls:
        if not handles_calls:
            _refuse_calls(reply, has_format=read_value is not None)
        calls = with_ids(calls, call_count)
    elif reply.content is None:
        raise StateFailure("model.invalid_output", _why_empty(reply))
    elif read_value is not None:
        parsed = read_value(reply.content)
    kept = reply if keeps_reasoning else reply.without_reasoning()
    message = Message(
        role="assistant",
        content=kept.content,
        reasoning=kept.reasoning,
        reasoning_key=kept.reasoning_key,
        tool_calls=calls,
        tokens=kept.tokens,
    )
    return message, parsed


def _why_empty(reply: Reply) -> str:
    if reply.probabilities is not None:
        return "the reply has the probabilities of choices, and a text was asked for"
    return "the reply is empty: it has neither text nor a tool call"


def accept_decision(reply: Reply, labels: Sequence[str]) -> DecisionView:
    """Return the output of a decide state, if the reply has a probability for each label.

    Raises:
        StateFailure: the reply fails a check; the name is one of ``errors.FAILURES``.
    """
    if reply.finish_reason not in FINISHED or reply.refusal is not None:
        _check_end(reply)
    probabilities = reply.probabilities
    if probabilities is None:
        said = f", but the text {reply.content[:_SHOWN]!r}" if reply.content else ""
        raise StateFailure("model.invalid_output", f"the reply has no probabilities of the choices{said}")
    if missing := [label for label in labels if label not in probabilities]:
        raise StateFailure("model.invalid_output", f"the reply has no probability of {_listed(missing)}")
    if unknown := [label for label in probabilities if label not in labels]:
        raise StateFailure("model.invalid_output", f"the reply has a probability of {_listed(unknown)}, no choice")
    if not 0 <= reply.mass <= 1:
        raise StateFailure("model.invalid_output", f"the mass must be from 0 to 1, and is {reply.mass:g}")
    total = math.fsum(probabilities.values())
    if min(probabilities.values()) < 0 or abs(total - 1) > _ROUNDING:
        given = ", ".join(f"{label} {probability:g}" for label, probability in probabilities.items())
        why = "must be at least 0 and sum to 1"
        raise StateFailure("model.invalid_output", f"the probabilities {why}: {cut(given, _REFUSAL)}")
    ordered = {label: float(probabilities[label]) for label in labels}
    return {"choice": max(ordered, key=ordered.__getitem__), "probabilities": ordered, "mass": float(reply.mass)}


def _listed(labels: Sequence[str]) -> str:
    return cut(", ".join(map(repr, labels)), _REFUSAL)


def compile_form(form: ResponseFormat) -> ReadValue:
    """Return the function that reads the value of a reply in this form. It raises ``StateFailure`` as the gate does."""
    validate, is_text = compile_schema(form.value_schema), form.is_text

    def read_value(content: str) -> JSON:
        try:
            value = content if is_text else parse_json(content)
        except ValueError as exc:
            raise StateFailure("model.invalid_output", f"the reply is no JSON: {exc}") from exc
        if (wrong := validate(value)) is not None:
            raise StateFailure("model.invalid_output", f"the reply does not match response_format: {wrong}")
        return value

    return read_value


def _refuse_calls(reply: Reply, *, has_format: bool) -> None:
    if has_format:
        raise StateFailure(
            "model.invalid_output", f"the state has a response_format, but the reply calls {_names(reply)}"
        )
    raise StateFailure(
        "model.unhandled_call",
        f"the reply calls {_names(reply)}, and no state handles that: add a route for reply.tool_calls that leads "
        "to a tools state, or offer no tools (tools: [])",
    )


def _check_end(reply: Reply) -> None:
    reason = reply.finish_reason.lower()
    if reply.refusal is not None or reason in DECLINED:
        said = reply.refusal or reply.content or f"the finish reason is {reply.finish_reason}"
        raise StateFailure("model.declined", f"the model declined to reply: {said[:_REFUSAL]}")
    if reason in FINISHED:
        return
    what = "a tool call" if reply.invalid_call or reply.tool_calls else "an answer"
    text = reply.text or reply.content or ""
    ends = f"it ends in {text[-_SHOWN:]!r}"
    if reason == "repetition":
        raise StateFailure("model.truncated", f"the reply was ended because it repeats itself; {ends}")
    if reason in CUT_OFF:
        raise StateFailure(
            "model.truncated",
            f"the reply reached max_tokens after {reply.usage.completion_tokens} tokens, in the middle of {what}; "
            f"{ends}: raise sampling.max_tokens or ask for less",
        )
    raise StateFailure(
        "backend.unavailable",
        f"the backend ended the reply in the middle of {what}, with the finish reason {reply.finish_reason!r}; {ends}",
    )


def _check_choice(reply: Reply, choice: str, offers_tools: bool) -> None:
    """Check that a reply obeys ``tool_choice``. The tools state checks later that the called tools are offered."""
    if choice == "none" and reply.tool_calls:
        raise StateFailure("model.invalid_call", f"tool_choice is none, but the reply calls {_names(reply)}")
    if choice == "none" or not offers_tools:
        return
    if not reply.tool_calls:
        said = (reply.content or "")[:_SHOWN]
        raise StateFailure("model.invalid_call", f"tool_choice is {choice}, but the reply calls no tool: {said!r}")
    if choice != "required" and any(call.name != choice for call in reply.tool_calls):
        raise StateFailure("model.invalid_call", f"tool_choice is {choice}, but the reply calls {_names(reply)}")


def _names(reply: Reply) -> str:
    return cut(", ".join(dict.fromkeys(call.name[:_SHOWN] for call in reply.tool_calls)), _REFUSAL)
