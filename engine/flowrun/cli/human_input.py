"""Asks the user at the terminal for the answers of wait states, one question at a time."""

import asyncio
import json
import os
from collections.abc import Mapping
from typing import Final

from flowrun.cli.streams import input_descriptor, message_stream
from flowrun.cli.terminal import as_lines, echo
from flowrun.core.events import RequestInput
from flowrun.core.json_schema import compile_schema
from flowrun.core.strict_json import parse_json
from flowrun.errors import NoResponderError
from flowrun.spec.model import JSON


def is_interactive() -> bool:
    """Return whether the user can be asked: stdin and stderr are a terminal."""
    descriptor = input_descriptor()
    return descriptor is not None and os.isatty(descriptor) and message_stream().isatty()


def terminal_input() -> "TerminalInput | None":
    """Return the human input of the terminal; None if stdin or stderr is no terminal."""
    return TerminalInput() if is_interactive() else None


class TerminalInput:
    """The port ``HumanInput`` over the terminal: the question goes to stderr, the answer comes from stdin.

    The event loop waits for input, not a thread: so Ctrl-C ends a question like everything else.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._buffer = b""

    async def answer(self, effect: RequestInput) -> JSON:
        """Ask until the answer matches the effect's schema.

        Raises:
            NoResponderError: the terminal was closed, or its input ended (Ctrl-D).
        """
        validate = compile_schema(effect.schema)
        async with self._lock:
            echo(f"\n{_QUOTED}{as_lines(effect.prompt, indent=_QUOTED)}", err=True)
            while True:
                echo(f"{_hint(effect.schema)} > ", err=True, nl=False)
                text = await self._next_line()
                if text:
                    value = read_answer(text, effect.schema)
                    if (wrong := validate(value)) is None:
                        return value
                    echo(f"that does not match: {wrong}", err=True)

    async def _next_line(self) -> str:
        """Return the next line of input without its line break.

        Raises:
            NoResponderError: the terminal was closed, or its input ended.
        """
        while b"\n" not in self._buffer:
            descriptor = input_descriptor()
            chunk = b"" if descriptor is None else await _read(descriptor)
            if not chunk:
                raise NoResponderError
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode(errors="replace").rstrip("\r")


async def _read(descriptor: int) -> bytes:
    """Wait for input and read it; empty at the end of the input."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
    try:
        return os.read(descriptor, 4096)
    except OSError:  # the terminal has gone
        return b""


_QUOTED: Final = "│ "
"""The prefix of each line of a question, so that none of them looks like flowrun's own output."""


def read_answer(text: str, schema: Mapping[str, JSON]) -> JSON:
    """Parse a typed answer by the schema's type: text for a string, yes or no for a boolean, else JSON.

    Text that does not parse is returned unchanged; the check against the schema refuses it.
    """
    if schema.get("type") == "boolean" and text.strip().lower() in _YES | _NO:
        return text.strip().lower() in _YES
    if schema.get("type") == "string":
        return text
    try:
        return parse_json(text)
    except ValueError:
        return text


_YES = {"y", "yes", "true"}
_NO = {"n", "no", "false"}


def _hint(schema: Mapping[str, JSON]) -> str:
    match schema.get("type"):
        case "boolean":
            return "yes or no"
        case "string":
            return " | ".join(map(str, schema["enum"])) if "enum" in schema else "answer"
        case _ if schema:
            return f"answer as JSON for {json.dumps(schema, ensure_ascii=False)}"
        case _:
            return "answer"
