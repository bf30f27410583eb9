"""Renders one record for the terminal. No text of a record can control the terminal: control characters are marks."""

from collections.abc import Iterator
from typing import Final

from flowrun.durations import spell_duration
from flowrun.excerpts import cut
from flowrun.records.record import Record, pretty_json
from flowrun.spec.model import MAIN
from flowrun.transcript import render_messages
from flowrun.transcript.formatting import as_line, counted, tokens
from flowrun.unicode import printable_line

_LINES: Final = 12
"""The lines of a value that are shown without ``full``."""


MASKED: Final = "secrets are replaced in it"


def render_record(record: Record, *, coloured: bool = False, width: int = 100, full: bool = False) -> Iterator[str]:
    """Yield the lines of a record. With ``full``, texts are complete; else they are cut to ``width`` columns."""
    yield _bold(printable_line(_title(record)), coloured)
    if facts := " · ".join(_facts(record)):
        yield printable_line(facts)
    if record.error is not None:
        where = f" in state {record.error.state}" if record.error.state else ""
        yield from _block("error", f"{record.error.name}{where}: {record.error.message}", width, full)
    for title in ("inputs", "columns", "output", "waiting", "doubtful"):
        yield from _block(title, pretty_json(getattr(record, title)), width, full)
    scores = [f"{name}: {as_line(value)}" for name, value in (record.scores or {}).items()]
    yield from _block("scores", "\n".join(scores), width, full)
    reasons = [f"{name}: {reason}" for name, reason in (record.reasons or {}).items()]
    yield from _block("reasons", "\n".join(reasons), width, full)
    yield from _block("path", " → ".join(record.path), width, full)
    yield from _threads(record, coloured=coloured, width=width, full=full)


def _title(record: Record) -> str:
    parts = [f"row {record.row}" if record.row is not None else f"run {record.run}"]
    if record.id is not None and str(record.id) != str(record.row):
        parts.append(f"id {record.id}")
    if record.sample is not None:
        parts.append(f"sample {record.sample}")
    return "  ".join([*parts, record.status.replace("_", " ")])


def _facts(record: Record) -> Iterator[str]:
    if record.began:
        yield record.began
    if record.seconds is not None:
        yield spell_duration(record.seconds)
    if record.rounds:
        yield counted(record.rounds, "round")
        yield tokens(record.usage)
    if record.masked:
        yield MASKED


def _threads(record: Record, *, coloured: bool, width: int, full: bool) -> Iterator[str]:
    yield ""
    try:
        threads = record.all_threads()
    except ValueError as exc:
        yield f"the messages cannot be read: {printable_line(str(exc))}"
        return
    if threads is None:
        yield "it has no messages: flowrun batch --messages keeps them"
        return
    for name, messages in threads.items():
        if name != MAIN:
            yield _bold(f"thread {printable_line(name)}", coloured)
        yield from render_messages(messages, coloured=coloured, width=width, full=full)


def _block(title: str, text: str, width: int, full: bool) -> Iterator[str]:
    """Yield the lines of a value; nothing for an empty one."""
    if not text:
        return
    lines = list(map(printable_line, text.splitlines()))
    if not full:
        more = len(lines) - _LINES
        lines = [cut(line, max(width - 2, 24), "…") for line in lines[:_LINES]]
        lines += [f"... {counted(more, 'line')} more"] if more > 0 else []
    yield title
    yield from (f"  {line}" for line in lines)


def _bold(text: str, coloured: bool) -> str:
    return f"\x1b[1m{text}\x1b[0m" if coloured else text
