"""The one door to terminals and CI logs. What models, tools, servers, files and people say is shown, never obeyed.

Every text of the command line goes through here; ruff refuses the other ways (``pyproject.toml``). A tool that prints
does so by itself, and is not watched.
"""

import logging
import traceback
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

import click

from flowrun.adapters.printable_log import make_printable
from flowrun.unicode import printable, printable_json, printable_styled

if TYPE_CHECKING:
    from rich.console import Console  # noqa: TID251


def echo(text: str = "", *, err: bool = False, nl: bool = True, coloured: bool = False) -> None:
    """Print a text to stdout or stderr; a ``coloured`` one keeps its colours."""
    click.echo(printable_styled(text) if coloured else printable(text), err=err, nl=nl)  # noqa: TID251


def echo_json(text: str) -> None:
    """Print a JSON text to stdout; a program reads the same from it."""
    click.echo(printable_json(text))  # noqa: TID251


def echo_commands(text: str) -> None:
    """Print commands for a CI system to stdout; whoever made them has escaped what stands in them."""
    click.echo(text)  # noqa: TID251


def write_json(stream: TextIO, text: str) -> None:
    """Write a JSON text as a line, or lines, to the stream of answers."""
    stream.write(printable_json(text) + "\n")


def write_report(stream: TextIO, text: str, *, coloured: bool = False) -> None:
    """Write what people read to the stream of answers."""
    stream.write(printable_styled(text) if coloured else printable(text))


def write_answer(stream: TextIO, text: str) -> None:
    """Write a run's answer as it is, for programs; on a terminal, as it can be shown."""
    stream.write((printable(text) if stream.isatty() else text) + "\n")


def echo_traceback(exc: BaseException) -> None:
    """Print an exception with its traceback to stderr."""
    echo("".join(traceback.format_exception(exc)), err=True, nl=False)


def make_logs_printable() -> None:
    """Have what nobody handles otherwise logged as all else is shown."""
    make_printable([logging.lastResort])
    logging.captureWarnings(True)


def as_lines(text: str, *, indent: str) -> str:
    """Give a text whose lines after the first are indented, so that none of them looks like one of ours."""
    return text.replace("\n", f"\n{indent}")


def rich_console(**options: Any) -> "Console":
    """Make a console of rich whose every text is printable, whatever it is a part of."""
    from rich.console import Console, ConsoleOptions, RenderableType  # noqa: TID251
    from rich.segment import Segment

    class PrintableConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(printable(segment.text), segment.style)

    return PrintableConsole(highlight=False, **options)
