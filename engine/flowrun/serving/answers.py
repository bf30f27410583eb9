"""A question is shown without secrets, and an answer to what was shown becomes one to the question itself. Pure."""

from collections.abc import Mapping
from typing import Any

import msgspec

from flowrun.runtime.run_result import InputRequest
from flowrun.spec import mask


def mask_request(ask: InputRequest, secrets: Mapping[str, str]) -> InputRequest:
    """Return a question without secrets; what names it stays."""
    if not secrets:
        return ask
    prompt, schema, call = mask((ask.prompt, ask.schema, ask.call), secrets)
    return msgspec.structs.replace(ask, prompt=prompt, schema=schema, call=call)


def unmask_arguments(answer: Any, ask: InputRequest, secrets: Mapping[str, str]) -> Any:
    """Return an answer about a call, with the secrets that the form has shown as ``${NAME}`` where they were."""
    if not secrets or ask.call is None or not isinstance(answer, dict) or "arguments" not in answer:
        return answer
    return {**answer, "arguments": _unmask(answer["arguments"], ask.call["arguments"], secrets)}


def _unmask(value: Any, original: Any, secrets: Mapping[str, str]) -> Any:
    if isinstance(value, dict) and isinstance(original, Mapping):
        return {key: _unmask(item, original.get(key), secrets) for key, item in value.items()}
    if isinstance(value, list) and isinstance(original, list | tuple):
        places = [*original, *([None] * (len(value) - len(original)))]
        return [_unmask(item, place, secrets) for item, place in zip(value, places, strict=False)]
    if isinstance(value, str) and isinstance(original, str):
        for secret, shown in secrets.items():
            if secret in original:
                value = value.replace(shown, secret)
    return value
