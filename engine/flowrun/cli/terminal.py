"""The only module that prints to terminals and CI logs. Control characters in text from outside are shown, not obeyed.

Text from outside is that of models, tools, servers, files and people; secrets are masked in it. All output of the
command line goes through this module; ruff bans other functions that print (``pyproject.toml``). What a tool's own code
prints is not filtered.
"""

import logging
import traceback
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

import click
import msgspec

from flowrun.cli.streams import message_stream, output_errors
from flowrun.printable_log import make_printable
from flowrun.spec.masking import mask
from flowrun.unicode import printable, printable_json, printable_styled

if TYPE_CHECKING:
    from rich.console import Console  # noqa: TID251

_HIDDEN: dict[str, str] = {}
"""The secrets of the flows that this process has loaded: a terminal is one for all of them."""


def hide(secrets: Mapping[str, str]) -> None:
    """Replace secrets in all that is printed from now on, each by the text that it maps to."""
    _HIDDEN.update(secrets)


def _masked(text: str) -> str:
    return mask(text, _HIDDEN)


def echo(
    text: str = "", *, err: bool = False, nl: bool = True, coloured: bool = False, file: TextIO | None = None
) -> None:
    """Print a text to stdout or stderr, or to ``file``; ``coloured`` keeps its colour sequences."""
    masked = _masked(text)
    shown = printable_styled(masked) if coloured else printable(masked)
    with suppress(OSError) if err else output_errors():  # nobody could be told that stderr is full
        click.echo(shown, file=message_stream() if err else file, nl=nl)  # noqa: TID251


def echo_json(text: str) -> None:
    """Print a JSON text to stdout; escaped control characters do not change the values that a program parses."""
    with output_errors():
        click.echo(printable_json(text))  # noqa: TID251


def indented_json(value: Any) -> str:
    """Return a value, which may hold structs, as JSON with indentation."""
    return msgspec.json.format(msgspec.json.encode(value)).decode()


def echo_commands(text: str) -> None:
    """Print commands for a CI system to stdout; the caller must have escaped their values."""
    with output_errors():
        click.echo(text)  # noqa: TID251


def write_json(stream: TextIO, text: str) -> None:
    """Write a JSON text, already without secrets, and a line break to the stream of answers."""
    stream.write(printable_json(text) + "\n")
    stream.flush()


def write_report(stream: TextIO, text: str, *, coloured: bool = False) -> None:
    """Write text for people to the stream of answers; ``coloured`` keeps its colour sequences."""
    masked = _masked(text)
    stream.write(printable_styled(masked) if coloured else printable(masked))
    stream.flush()


def write_answer(stream: TextIO, text: str) -> None:
    """Write a run's answer, already without secrets: unchanged for a program, and made printable on a terminal."""
    stream.write((printable(text) if stream.isatty() else text) + "\n")
    stream.flush()


def echo_traceback(exc: BaseException) -> None:
    """Print an exception with its traceback to stderr."""
    echo("".join(traceback.format_exception(exc)), err=True, nl=False)


def make_logs_printable() -> None:
    """Make the log records printable that no configured handler processes (``logging.lastResort``)."""
    make_printable([logging.lastResort], _masked)
    logging.captureWarnings(True)


def as_lines(text: str, *, indent: str) -> str:
    """Return a text with its lines after the first indented, so that none of them looks like flowrun's own output."""
    return text.replace("\n", f"\n{indent}")


def rich_console(**options: Any) -> "Console":
    """Return a console of rich that makes all text printable, also text in tables and other renderables."""
    from rich.console import Console, ConsoleOptions, RenderableType  # noqa: TID251
    from rich.segment import Segment

    class PrintableConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(printable(segment.text), segment.style)

    if options.get("stderr"):
        options["file"] = message_stream()
    return PrintableConsole(highlight=False, **options)
