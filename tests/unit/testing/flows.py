"""A small flow and its tests, written into the folder of a test."""

from pathlib import Path
from textwrap import dedent

SPEC = """\
flowrun: v1
name: talk
version: 1.0.0
inputs: {topic: {type: string, default: rain}}
model: {name: some-model, tool_call_parser: hermes, chat_template: "{{ messages }}"}
sampling: {temperature: 0.0}
messages: [{role: user, content: "Say something about {{ inputs.topic }}."}]
states:
  ask: {type: chat, next: ask_again}
  ask_again: {type: chat, messages: [{role: user, content: More.}], next: done}
  done: {type: end, output: "{{ reply.content }}"}
"""


def write_tests(folder: Path, tests: str, *, spec: str = SPEC) -> Path:
    """Write a spec and its test file; return the path of the test file."""
    (folder / "talk.yaml").write_text(spec)
    file = folder / "talk.test.yaml"
    file.write_text("flow: talk.yaml\ntests:\n" + dedent(tests))
    return file
