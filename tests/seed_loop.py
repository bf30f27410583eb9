"""vLLM's example of offline chat with tools, as people write it by hand: chat, parse, call, append, chat again.

Run as a program: reads ``{model, engine, template, messages, tools, sampling}`` from stdin, and writes what was said
and the tokens of each round to the file that is its argument.
"""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from tools.weather import get_current_weather

FUNCTIONS = {"get_current_weather": get_current_weather}


def main(given: dict[str, Any]) -> dict[str, Any]:
    """Hold the conversation."""
    from vllm import LLM, SamplingParams

    llm = LLM(model=given["model"], enforce_eager=True, **given["engine"])
    sampling = SamplingParams(**given["sampling"])
    messages, rounds = given["messages"], []
    while True:
        copied = json.loads(json.dumps(messages))  # rendering changes what it is given
        (output,) = llm.chat(copied, sampling, tools=given["tools"], chat_template=given["template"], use_tqdm=False)
        text = output.outputs[0].text
        rounds.append({"prompt": list(output.prompt_token_ids or ()), "reply": list(output.outputs[0].token_ids)})
        found = re.search(r"<tool_call>\n(.*)\n</tool_call>", text, re.DOTALL)
        if found is None:
            messages.append({"role": "assistant", "content": text})
            return {"messages": messages, "rounds": rounds}
        call = json.loads(found[1])
        number = sum(len(message.get("tool_calls", ())) for message in messages) + 1
        identifier = f"call{number:05d}"
        function = {"name": call["name"], "arguments": json.dumps(call["arguments"])}
        messages.append(
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": identifier, "type": "function", "function": function}],
            }
        )
        result = FUNCTIONS[call["name"]](**call["arguments"])
        messages.append({"role": "tool", "content": result, "tool_call_id": identifier, "name": call["name"]})


if __name__ == "__main__":
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    Path(sys.argv[1]).write_text(json.dumps(main(json.load(sys.stdin))))
