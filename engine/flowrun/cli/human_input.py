"""Asks whoever sits at the terminal for the answers of wait states, one question at a time."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from typing import Final

from flowrun.cli.terminal import as_lines, echo
from flowrun.core.events import RequestInput
from flowrun.core.json_schema import compile_schema
from flowrun.core.strict_json import parse_json
from flowrun.errors import NoResponderError
from flowrun.spec.model import JSON


def is_interactive() -> bool:
    """Tell whether questions can be put: stdin and stderr are a terminal."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def terminal_input() -> "TerminalInput | None":
    """Give who can be asked, if somebody is there."""
    return TerminalInput() if is_interactive() else None


class TerminalInput:
    """The port ``People`` over the terminal: the question goes to stderr, the answer comes from stdin.

    The loop waits for what is typed, and no thread: Ctrl-C ends a question as it ends all else.
    """

    def __init__(self) -> None:
        self._one_at_a_time = asyncio.Lock()
        self._typed = b""

    async def answer(self, effect: RequestInput) -> JSON:
        """Ask until the answer matches.

        Raises:
            NoResponderError: the terminal was closed, or its input ended (Ctrl-D).
        """
        validate = compile_schema(effect.schema)
        async with self._one_at_a_time:
            echo(f"\n{_QUOTED}{as_lines(effect.prompt, indent=_QUOTED)}", err=True)
            while True:
                echo(f"{_what(effect.schema)} > ", err=True, nl=False)
                text = await self._next_line()
                if text:
                    value = read_answer(text, effect.schema)
                    if (wrong := validate(value)) is None:
                        return value
                    echo(f"that does not match: {wrong}", err=True)

    async def _next_line(self) -> str:
        """Give what is typed next, without the end of the line.

        Raises:
            NoResponderError: nothing will be.
        """
        while b"\n" not in self._typed:
            typed = await _read(sys.stdin.fileno())
            if not typed:
                raise NoResponderError
            self._typed += typed
        line, _, self._typed = self._typed.partition(b"\n")
        return line.decode(errors="replace").rstrip("\r")


async def _read(descriptor: int) -> bytes:
    """Read what is there, once something is; nothing at the end of the input."""
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
"""Stands before each line of a question, so that none of them looks like one of ours."""


def read_answer(text: str, schema: Mapping[str, JSON]) -> JSON:
    """Read what somebody typed: text where text is asked for, yes or no for a boolean, else JSON."""
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


def _what(schema: Mapping[str, JSON]) -> str:
    match schema.get("type"):
        case "boolean":
            return "yes or no"
        case "string":
            return " | ".join(map(str, schema["enum"])) if "enum" in schema else "answer"
        case _ if schema:
            return f"answer as JSON for {json.dumps(schema, ensure_ascii=False)}"
        case _:
            return "answer"
