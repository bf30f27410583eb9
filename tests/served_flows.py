"""Flows that tests serve, each for one thing that clients see. Their tools note each call in ``calls.txt``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.serving import write_files

TOOLS: Final = '''\
import time
from pathlib import Path


def note(line):
    with Path("calls.txt").open("a") as file:
        file.write(f"{line}\\n")


def look(city: str) -> str:
    """Look how warm it is."""
    note(f"look {city}")
    return "21 degrees"


def fail(text: str) -> str:
    """Fail."""
    note(f"fail {text}")
    raise ValueError("the oven is cold")


def rest(seconds: float) -> str:
    """Take a while."""
    note(f"begin {seconds}")
    time.sleep(seconds)
    note(f"end {seconds}")
    return "rested"


def repeat(text: str) -> str:
    """Give a text back."""
    return text


def pay(amount: int) -> str:
    """Pay."""
    note(f"pay {amount}")
    return f"paid {amount}"
'''

ONE_CHAT: Final = """\
messages: [{role: user, content: "{{ inputs.text }}"}]
states:
  answer: {type: chat, next: done}
  done: {type: end, output: "{{ reply.content }}"}
"""

BODIES: Final[Mapping[str, str]] = {
    # A model that writes word by word.
    "parrot": """\
inputs: {text: {type: string}, shout: {type: boolean, default: false}}
model: {backend: openai, name: parrot, base_url: "${MODEL_URL}", api_key: none}
"""
    + ONE_CHAT,
    # Reads the history.
    "history": """\
inputs: {text: {type: string}, before: {type: array}}
serve: {inputs: {text: "{{ request.content }}", before: "{{ request.messages }}"}}
model: {backend: openai, name: parrot, base_url: "${MODEL_URL}", api_key: none}
messages:
  - {from: inputs.before}
  - {role: user, content: "{{ inputs.text }}"}
states:
  answer: {type: chat, next: done}
  done: {type: end, output: "{{ reply.content }}"}
""",
    # Words before a tool call, and then the answer.
    "weather": """\
inputs: {text: {type: string}}
model: {backend: scripted, name: weather.replies.yaml}
tools: {look: {entrypoint: "tools_of_flows:look"}}
messages: [{role: user, content: "{{ inputs.text }}"}]
states:
  ask:
    type: chat
    routes: [{when: reply.tool_calls, to: call}, {to: done}]
  call: {type: tools, next: ask}
  done: {type: end, output: "{{ reply.content }}"}
""",
    # A run that fails in a tool, after the model has written something.
    "fails": """\
inputs: {text: {type: string}}
model: {backend: scripted, name: fails.replies.yaml}
tools: {fail: {entrypoint: "tools_of_flows:fail"}}
messages: [{role: user, content: "{{ inputs.text }}"}]
states:
  ask:
    type: chat
    routes: [{when: reply.tool_calls, to: call}, {to: done}]
  call: {type: tools, on_error: raise, next: ask}
  done: {type: end, output: "{{ reply.content }}"}
""",
    # A run that waits for a person.
    "asks": """\
inputs: {text: {type: string}}
states:
  ask: {type: wait, prompt: "Send {{ inputs.text }}?", schema: {type: boolean}, next: done}
  done: {type: end, output: "{{ 'sent' if outputs.ask else 'kept' }}"}
""",
    # A tool that takes as many seconds as the message says.
    "rests": """\
inputs: {text: {type: string}}
states:
  rest:
    type: call
    entrypoint: tools_of_flows:rest
    with: {seconds: "{{ inputs.text | float }}"}
    idempotent: true
    next: done
  done: {type: end, output: "{{ outputs.rest }}"}
""",
    # A person must approve a call.
    "pays": """\
description: Pays an amount, if somebody says so.
inputs: {amount: {type: integer}}
model: {backend: scripted, name: pays.replies.yaml}
tools: {pay: {entrypoint: "tools_of_flows:pay", approve: {prompt: "Pay {{ call.arguments.amount }}?"}}}
messages: [{role: user, content: "Pay {{ inputs.amount }}."}]
states:
  ask:
    type: chat
    routes: [{when: reply.tool_calls, to: call}, {to: done}]
  call: {type: tools, next: ask}
  done: {type: end, output: "{{ (threads.main | last).content }} after {{ threads.main[-2].content }}"}
""",
    # No model: a text comes back.
    "repeats": """\
description: Gives a text back.
inputs: {text: {type: string}}
states:
  repeat: {type: call, entrypoint: "tools_of_flows:repeat", with: {text: "{{ inputs.text }}"}, next: done}
  done: {type: end, output: {text: "{{ outputs.repeat }}", length: "{{ outputs.repeat | length }}"}}
""",
}

REPLIES: Final[Mapping[str, str]] = {
    "weather": """\
- when: (request.messages | last).role == 'tool'
  content: It is 21 degrees.
  repeat: true
- {content: I look it up., tool_calls: [{name: look, arguments: {city: Rome}}], repeat: true}
""",
    "fails": """\
- {content: I try., tool_calls: [{name: fail, arguments: {text: bread}}], repeat: true}
""",
    "pays": """\
- when: (request.messages | last).role == 'tool'
  content: Done
  repeat: true
- {tool_calls: [{name: pay, arguments: {amount: 5}}], repeat: true}
""",
}


def write_flows(folder: Path, *names: str) -> Path:
    """Write flows with their scripts and tools into a folder, and return it; without names, all of them."""
    bodies = {name: BODIES[name] for name in names or BODIES}
    files = {f"{name}.yaml": f"flowrun: v1\nname: {name}\nversion: 1.0.0\n{body}" for name, body in bodies.items()}
    scripts = {f"{name}.replies.yaml": f"replies:\n{REPLIES[name]}" for name in bodies if name in REPLIES}
    return write_files(folder, {"tools_of_flows.py": TOOLS, **files, **scripts})


def paths(*names: str) -> list[str]:
    """Return the files of flows."""
    return [f"{name}.yaml" for name in names or BODIES]
