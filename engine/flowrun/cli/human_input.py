"""Asks the user at the terminal for the answers of wait states, one question at a time, and one field at a time."""

import asyncio
import os
import termios
from collections.abc import Sequence
from contextlib import suppress
from json import dumps
from typing import Final

from flowrun.cli.streams import input_descriptor, message_stream
from flowrun.cli.terminal import as_lines, echo
from flowrun.core.approvals import call_lines
from flowrun.core.json_schema import compile_schema
from flowrun.errors import NoResponderError
from flowrun.runtime.answer_form import Field, assemble, fields_of
from flowrun.runtime.run_result import InputRequest
from flowrun.runtime.typed_answers import read_answer
from flowrun.spec.model import JSON


def is_interactive() -> bool:
    """Return whether the user can be asked: stdin and stderr are a terminal."""
    descriptor = input_descriptor()
    return descriptor is not None and os.isatty(descriptor) and message_stream().isatty()


def terminal_input() -> "TerminalInput | None":
    """Return the human input of the terminal; None if stdin or stderr is no terminal."""
    return TerminalInput() if is_interactive() else None


class TerminalInput:
    """The ``Responder`` over the terminal: the question goes to stderr, the answer comes from stdin.

    The event loop waits for input, not a thread: so Ctrl-C ends a question like everything else.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._buffer = b""

    async def answer(self, request: InputRequest, /) -> JSON:
        """Ask until the answer matches the schema of the question.

        Raises:
            NoResponderError: the terminal was closed, or its input ended (Ctrl-D).
        """
        validate = compile_schema(request.schema)
        fields = fields_of(request.schema)
        async with self._lock:
            echo(f"\n{_QUOTED}{as_lines(request.prompt, indent=_QUOTED)}", err=True)
            for line in call_lines(request.call):
                echo(line, err=True)
            if len(fields) > 1:
                count = "several" if any(field.conditions for field in fields) else len(fields)
                echo(f"{count} fields; {_BACK} goes back to the one before", err=True)
            values: dict[tuple[str, ...], JSON] = {}
            try:
                while (wrong := validate(value := await self._fill_in(fields, values))) is not None:
                    echo(f"that does not match: {wrong}", err=True)
            except asyncio.CancelledError:
                self._forget_typed()
                raise
            return value

    async def _fill_in(self, fields: Sequence[Field], values: dict[tuple[str, ...], JSON]) -> JSON:
        """Ask for each field, and return the answer; a whole object that is typed at the first one is the answer.

        Args:
            values: the values of fields that are answered; the new ones are added.
        """
        number, shown = 0, -1
        before: list[int] = []
        while number < len(fields):
            field = fields[number]
            if not field.is_asked(values):
                number += 1
                continue
            if shown != number:
                shown = number
                for line in field.lines():
                    echo(line, err=True)
            echo(f"{field.prompt(values)} > ", err=True, nl=False)
            text = await self._next_line()
            if text == _BACK and before:
                number = before.pop()
                continue
            if number == 0 and field.path and isinstance(whole := read_answer(text, {}), dict):
                return whole
            if field.rows and text.isdecimal() and int(text) <= _ROWS:
                text = dumps([await self._fill_in_row(field, row, int(text)) for row in range(1, int(text) + 1)])
            if self._take(field, text, values):
                before.append(number)
                number += 1
        return assemble(fields, values)

    async def _fill_in_row(self, field: Field, row: int, count: int) -> JSON:
        echo(f"{'.'.join((*field.path, str(row)))} of {count}", err=True)
        return await self._fill_in(field.rows, {})

    def _take(self, field: Field, text: str, values: dict[tuple[str, ...], JSON]) -> bool:
        """Take the line typed for a field; return whether the field is answered, or left out."""
        if not text:
            if field.path in values:
                return True
            if field.has_default:
                values[field.path] = field.schema["default"]
            elif field.nullable:
                values[field.path] = None
            return field.has_default or field.optional
        value = read_answer(text, field.schema)
        if wrong := field.validate(value):
            echo(f"that does not match: {wrong}", err=True)
            return False
        values[field.path] = value
        return True

    def _forget_typed(self) -> None:
        """Forget what was typed for a question that is not asked any more: it is no answer to the next one."""
        self._buffer = b""
        descriptor = input_descriptor()
        with suppress(termios.error):  # the terminal has gone
            if descriptor is not None:
                termios.tcflush(descriptor, termios.TCIFLUSH)

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

_BACK: Final = "<"
"""Typed to change the field before."""

_ROWS: Final = 100
"""The most objects of a list that are asked for one by one."""

__all__ = ["TerminalInput", "is_interactive", "read_answer", "terminal_input"]
