"""The floor: a loop written by hand that does the least an honest engine must.

Arguments are parsed from text and checked against their schema, results become text, events are kept, rounds counted.
"""

import json

import jsonschema_rs
import work

_CHECK = jsonschema_rs.Draft202012Validator(work.PARAMETERS).is_valid
_TOOLS = {"add": work.add}


async def converse(rounds: int) -> str:
    """Hold one conversation and return the answer."""
    messages: list[dict[str, object]] = [{"role": "user", "content": "hi"}]
    events: list[tuple[str, object]] = []
    left = 10**6
    while True:
        left -= 1
        if left < 0:
            raise RuntimeError("too many rounds")
        if not await work.wants_tool(len(messages), rounds):
            break
        function = {"name": "add", "arguments": work.ARGUMENTS_TEXT}
        call = {"id": "c1", "type": "function", "function": function}
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        events.append(("replied", messages[-1]))
        arguments = json.loads(function["arguments"])
        if not _CHECK(arguments):
            raise ValueError(arguments)
        result = json.dumps(await _TOOLS[function["name"]](**arguments))
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})
        events.append(("returned", messages[-1]))
    messages.append({"role": "assistant", "content": "done"})
    events.append(("replied", messages[-1]))
    assert len(messages) == 2 * rounds + 2
    return str(messages[-1]["content"])
