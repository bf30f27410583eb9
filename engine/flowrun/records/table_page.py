"""Renders records as one self-contained page: a table to search, filter and sort, and each record's messages.

It is written while the records are read. Each block of records has an index, which the page reads when it opens, and
the texts of each record in an element of its own, which it reads to search them and to show this record only.

These texts are no JSON, so that a search finds what was said and nothing else: their parts are separated by characters
of Unicode's private use area. ``visible`` leaves none of these in a text. One of them stands for ``<``, so that no text
can end its element; nothing in such an element is markup or is executed (HTML Living Standard, "data block").
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import islice
from typing import Any, Final

import msgspec
from markupsafe import Markup

from flowrun.core.messages import Message
from flowrun.records.record import Entry, Record, gist_of, pretty_json
from flowrun.records.tally import is_figure
from flowrun.spec.model import JSON, MAIN
from flowrun.transcript.page_parts import content_policy, page_templates, read_part
from flowrun.unicode import visible

FIELD, THREAD, MESSAGE, PART, ARGUMENTS, LESS = map(chr, range(0xE000, 0xE006))
"""What separates the parts of a record's texts; the last one stands for ``<``."""

ROLES: Final = {
    role: chr(0xE010 + place) for place, role in enumerate(("system", "developer", "user", "assistant", "tool"))
}
"""What stands for a role, so that a search for the word does not find every message."""

NOTHING: Final = Markup("")

_BLOCK: Final = 50  # records
_MAX_SCORES: Final = 40
"""The columns of scores that the table has at most. Every score is shown with its record."""

_FACTS: Final = ("flow", "models", "sampling", "tools")
"""The members that are the same in most records: each value is in the page once."""


def render_table_page(
    title: str, entries: Iterable[Entry], *, heading: str = "Results", above: Markup = NOTHING
) -> Iterator[bytes]:
    """Yield the page, piece by piece.

    Args:
        title: says what was read.
        above: a section before the table.
    """
    style = read_part("page.css") + read_part("table.css", __package__)
    script = read_part("table.js", __package__)
    blocks = _Blocks(entries)
    page = _template().generate(
        title=title,
        heading=heading,
        above=above,
        style=Markup(style),  # noqa: S704 - all three are files of this package
        script=Markup(script),  # noqa: S704
        policy=content_policy(style, script),
        blocks=blocks,
    )
    return (piece.encode() for piece in page if piece)


@cache
def _template() -> Any:
    return page_templates({"table": read_part("table.html.jinja", __package__)}).get_template("table")


class _Block(msgspec.Struct, frozen=True):
    """Some records: the index of all, the texts of each, and the facts that no earlier block has."""

    index: Markup
    texts: list[Markup]
    facts: list[Markup]


class _Blocks:
    """The blocks of a page, while its records are read.

    Attributes:
        scores: the names of the columns of scores.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries = iter(entries)
        self._facts: dict[bytes, int] = {}
        self._scores: list[str] = []

    def __iter__(self) -> Iterator[_Block]:
        while entries := list(islice(self._entries, _BLOCK)):
            fresh: list[Markup] = []
            rows = [self._row(entry, fresh) for entry in entries]
            yield _Block(index=_json(rows), texts=list(map(_texts, entries)), facts=fresh)

    def scores(self) -> Markup:
        """Return the names of the columns of scores, as JSON, once all blocks were read."""
        return _json([visible(name) for name in self._scores])

    def _row(self, entry: Entry, fresh: list[Markup]) -> list[JSON]:
        """Return what the table shows of a record; `page/table.js` names the places of this list."""
        record = entry.record
        error = record.error
        return [
            entry.line,
            record.row,
            visible(record.name),
            record.sample,
            visible(record.status),
            visible(error.name) if error is not None else "",
            record.rounds,
            record.usage.prompt_tokens,
            record.usage.completion_tokens,
            record.seconds,
            visible(record.began),
            self._facts_of(record, fresh),
            self._figures(record),
            gist_of(record),
            record.masked,
        ]

    def _figures(self, record: Record) -> list[JSON]:
        """Return the record's scores by column; null for one that it lacks, or that is no figure."""
        found = record.scores or {}
        for name in found:
            if name not in self._scores and len(self._scores) < _MAX_SCORES and is_figure(found[name]):
                self._scores.append(name)
        figures = [found.get(name) for name in self._scores]
        return [figure if is_figure(figure) else None for figure in figures]

    def _facts_of(self, record: Record, fresh: list[Markup]) -> int:
        """Return the number of a record's facts; those that no record had before are added to ``fresh``."""
        members = [(name, getattr(record, name)) for name in _FACTS]
        digest = hashlib.sha256(b"\n".join(bytes(member) for _, member in members)).digest()
        if digest not in self._facts:
            self._facts[digest] = len(self._facts)
            fresh.append(_text(FIELD.join(visible(pretty_json(member)) for _, member in members)))
        return self._facts[digest]


# --- the texts of a record ----------------------------------------------------------------------------------------


def _texts(entry: Entry) -> Markup:
    """Return the texts of a record; `page/table.js` splits them again."""
    record = entry.record
    error = record.error
    fields = [
        error.message if error is not None else "",
        error.state if error is not None else "",
        *(pretty_json(getattr(record, name)) for name in ("inputs", "columns", "output", "waiting", "doubtful")),
        "\n".join(record.path),
        "" if record.scores is None else msgspec.json.format(msgspec.json.encode(record.scores)).decode(),
        "\n".join(f"{name}: {reason}" for name, reason in (record.reasons or {}).items()),
        entry.beside,
    ]
    return _text(FIELD.join([*map(visible, fields), _threads(record)]))


def _threads(record: Record) -> str:
    """Return the messages of all threads; of those that cannot be read, why."""
    try:
        threads = record.all_threads()
    except ValueError as exc:
        return f"{PART}{visible(str(exc))}"
    return "".join(
        f"{THREAD}{'' if name == MAIN else visible(name)}{''.join(map(_message, messages))}"
        for name, messages in (threads or {}).items()
    )


def _message(message: Message) -> str:
    calls = [f"{visible(call.name)}{ARGUMENTS}{visible(_pretty(call.arguments))}" for call in message.tool_calls]
    said = [message.content or "", message.reasoning or "", message.name or ""]
    return f"{MESSAGE}{ROLES[message.role]}{PART.join([*map(visible, said), *calls])}"


def _pretty(arguments: str) -> str:
    try:
        return json.dumps(json.loads(arguments), ensure_ascii=False, indent=2)
    except (ValueError, RecursionError):
        return arguments


def _text(text: str) -> Markup:
    """Return a text as the content of a data block."""
    return Markup(text.replace("<", LESS))  # noqa: S704 - no text can end its element without `<`


def _json(value: JSON) -> Markup:
    """Return JSON as the content of a data block: ``<`` is written as an escape."""
    return Markup(msgspec.json.encode(value).decode().replace("<", "\\u003c"))  # noqa: S704
