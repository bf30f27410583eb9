"""What one sees while waiting: a line at the bottom of a terminal, and the stages of a start with their times."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from rich.text import Text

from flowrun.durations import spell_duration
from flowrun.excerpts import cut
from flowrun.unicode import visible

if TYPE_CHECKING:
    from rich.console import Console  # noqa: TID251
    from rich.status import Status

Clock = Callable[[], float]
"""Returns seconds since any fixed moment, and never goes back."""

Describe = Callable[[], tuple[str, float] | None]
"""Returns what is awaited, free of secrets, and since when; None if nothing is. Called in another thread, too."""

_LINES: Final = 6
"""Lines, at most, of what is shown below the live line."""

_ROOM: Final = 20
"""Columns of the live line besides its text: the spinner, and the seconds."""


class LiveLine:
    """A line with a spinner at the bottom of a terminal: what is awaited, and the seconds so far. No line elsewhere.

    Args:
        below: returns a text, free of secrets, whose last lines are shown below the line; in another thread, too.
    """

    def __init__(
        self,
        console: "Console",
        describe: Describe,
        clock: Clock = time.monotonic,
        *,
        below: Callable[[], str] = lambda: "",
    ) -> None:
        self._console = console
        self._describe = describe
        self._below = below
        self._clock = clock
        self._status: Status | None = None

    def __rich__(self) -> Text:
        """Return the text as it is now; rich calls this each time it draws the line."""
        if (awaited := self._describe()) is None:
            return Text()
        text, since = awaited
        text = cut(" ".join(visible(text).split()), max(self._console.width - _ROOM, _ROOM), "…")
        line = Text(f"{text}, {spell_duration(int(self._clock() - since), whole=True)}", no_wrap=True)
        return Text("\n", no_wrap=True).join([line, *self._last_lines()])

    def _last_lines(self) -> "list[Text]":
        """Return the last lines of what is shown below, as wide as there is room behind the spinner."""
        if not (text := visible(self._below()).strip()):
            return []
        most = max(1, min(_LINES, self._console.height - 4))
        return Text(text, style="dim").wrap(self._console, max(self._console.width - 4, _ROOM))[-most:]

    def show(self) -> None:
        """Show the line until ``hide``; what is printed meanwhile stands above it."""
        if self._status is None and self._console.is_terminal and not self._console.quiet:
            self._status = self._console.status(self)
            self._status.start()

    def hide(self) -> None:
        """Remove the line."""
        if self._status is not None:
            self._status.stop()
            self._status = None


class Stages:
    """The stages of a start: each is shown with its time when it has ended.

    Args:
        show: shows the line of a stage that has ended.
        least: the seconds from which on a stage is worth a line.
    """

    def __init__(self, show: Callable[[str], None], clock: Clock = time.monotonic, *, least: float = 0.0) -> None:
        self._show = show
        self._least = least
        self._clock = clock
        self.current: tuple[str, float] | None = None

    def begin(self, stage: str) -> None:
        """End the current stage, and begin another one."""
        self.end()
        self.current = stage, self._clock()

    def end(self) -> None:
        """End the current stage, if there is one."""
        if self.current is not None:
            stage, since = self.current
            if (seconds := self._clock() - since) >= self._least:
                self._show(f"{stage}  ({spell_duration(seconds)})")
            self.current = None
