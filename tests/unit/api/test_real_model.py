"""``Flow.run`` with the real vLLM: one engine for many runs, stopped at the end of the process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flowrun.spec.model import Model
from tests.unit.api.api_flows import HEADER

SCRIPT = """
import json, os, sys
import flowrun
from flowrun.backends.vllm.backend import VllmBackend

starts, start = [], VllmBackend.start

async def counting(self):
    starts.append(os.getpid())
    await start(self)

VllmBackend.start = counting
flow = flowrun.load(sys.argv[1])
results = [flow.run(question=f"What is {number} + 1?") for number in range(10)]
print(json.dumps([len(starts), [[one.status, one.usage.completion_tokens] for one in results]]))
"""


@pytest.mark.vllm
def test_ten_runs_in_a_row_start_vllm_once(tiny_mistral: Model, tmp_path: Path) -> None:
    spec = tmp_path / "talk.yaml"
    model = {"name": tiny_mistral.name, "engine": dict(tiny_mistral.engine), "tool_call_parser": "mistral"}
    spec.write_text(
        f"{HEADER}name: talk\ninputs: {{question: {{type: string}}}}\nmodel: {json.dumps(model)}\n"
        "sampling: {temperature: 0, max_tokens: 4, min_tokens: 4, ignore_eos: true}\n"
        'messages: [{role: user, content: "{{ inputs.question }}"}]\n'
        "states:\n  ask: {type: chat, catch: [{errors: [model.truncated], to: done}], next: done}\n"
        "  done: {type: end}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(spec)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    starts, results = json.loads(done.stdout.splitlines()[-1])
    assert (starts, results) == (1, [["succeeded", 4]] * 10)
