"""Asks whoever sits at the terminal for the answers of wait states, one question at a time."""

import asyncio
import json
import sys
from collections.abc import Mapping

import click

from flowrun.adapters.threads import DaemonThreads
from flowrun.errors import NobodyAnswers
from flowrun.events import AskPerson
from flowrun.graph import compile_schema
from flowrun.machine.strict_json import parse_json
from flowrun.spec import JSON


def somebody_is_there() -> bool:
    """Tell whether questions can be put: stdin and stderr are a terminal."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def people_here() -> "TerminalPeople | None":
    """Give who can be asked, if somebody is there."""
    return TerminalPeople() if somebody_is_there() else None


class TerminalPeople:
    """The port ``People`` over the terminal: the question goes to stderr, the answer comes from stdin."""

    def __init__(self) -> None:
        self._threads = DaemonThreads(1)
        self._one_at_a_time = asyncio.Lock()

    async def answer(self, effect: AskPerson) -> JSON:
        """Ask until the answer matches.

        Raises:
            NobodyAnswers: the terminal was closed, or its input ended (Ctrl-D).
        """
        async with self._one_at_a_time:
            answers = await self._threads.run(lambda: _ask(effect), timeout=None)
        if not answers:
            raise NobodyAnswers
        return answers[0]


def _ask(effect: AskPerson) -> tuple[JSON] | tuple[()]:
    """Ask; give the answer, or nothing if the input has ended. Never raises, for nobody would hear of it."""
    try:
        validate = compile_schema(effect.schema)
        click.echo(f"\n{effect.prompt}", err=True)
        while True:
            text = click.prompt(_what(effect.schema), err=True, prompt_suffix=" > ")
            value = read_answer(text, effect.schema)
            wrong = validate(value)
            if wrong is None:
                return (value,)
            click.echo(f"that does not match: {wrong}", err=True)
    except (click.Abort, EOFError, OSError, ValueError):
        return ()


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
