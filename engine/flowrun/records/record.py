"""A record of a result file, as its readers see it. Members that are not read often stay the JSON that they are."""

from typing import Final, NamedTuple

import msgspec

from flowrun.core.chat_messages import MessagesError, parse_messages
from flowrun.core.messages import Message, Usage
from flowrun.excerpts import one_line
from flowrun.runtime.run_result import answer_text
from flowrun.spec.model import JSON, MAIN
from flowrun.unicode import visible

_GIST: Final = 160  # characters
_NOTHING: Final = msgspec.Raw()


class RecordError(msgspec.Struct, frozen=True):
    """Why a run did not succeed."""

    name: str
    message: str = ""
    state: str = ""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """The members of a record, which ``schemas/result.v1.schema.json`` describes. Evaluations add ``scores``.

    A record of ``flowrun run --json`` has ``run`` in place of ``row`` and ``id``.
    """

    status: str
    row: int | None = None
    id: str | int | None = None
    run: str = ""
    sample: int | None = None
    error: RecordError | None = None
    rounds: int = 0
    usage: Usage = Usage()
    began: str = ""
    seconds: float | None = None
    scores: dict[str, JSON] | None = None
    reasons: dict[str, str] | None = None
    path: tuple[str, ...] = ()
    masked: bool = False
    inputs: msgspec.Raw = _NOTHING
    columns: msgspec.Raw = _NOTHING
    output: msgspec.Raw = _NOTHING
    waiting: msgspec.Raw = _NOTHING
    doubtful: msgspec.Raw = _NOTHING
    flow: msgspec.Raw = _NOTHING
    models: msgspec.Raw = _NOTHING
    sampling: msgspec.Raw = _NOTHING
    tools: msgspec.Raw = _NOTHING
    messages: msgspec.Raw = _NOTHING
    threads: msgspec.Raw = _NOTHING

    @property
    def name(self) -> str:
        """Return what the record is known by: its id, its run, or its row."""
        return str(next((name for name in (self.id, self.run or None, self.row) if name is not None), ""))

    def all_threads(self) -> dict[str, tuple[Message, ...]] | None:
        """Return the messages of each thread; None if the record has no messages.

        Raises:
            ValueError: a thread is no list of messages.
        """
        if not self.messages and not self.threads:
            return None
        others = msgspec.json.decode(self.threads) if self.threads else {}
        if not isinstance(others, dict):
            raise MessagesError("threads is no mapping")
        found = {MAIN: msgspec.json.decode(self.messages), **others} if self.messages else others
        return {name: parse_messages(messages) for name, messages in found.items()}


class Entry(NamedTuple):
    """A record with its line in a file, which is counted from 1.

    ``beside`` is a text that a page shows with it: what another version of the flow said, such as in an evaluation.
    """

    file: str
    line: int
    raw: bytes
    record: Record
    beside: str = ""

    @property
    def place(self) -> str:
        """Return the place for messages."""
        return f"{self.file}:{self.line}"


def parse_record(raw: bytes) -> Record | None:
    """Parse a line; None if it is no record."""
    try:
        msgspec.json.decode(raw)  # members that stay JSON are valid too
        return msgspec.json.decode(raw, type=Record)
    except (ValueError, RecursionError):
        return None


def pretty_json(raw: msgspec.Raw) -> str:
    """Return a member for reading: a text unchanged, other JSON with indentation, and "" for one that is not there."""
    if not raw or bytes(raw) == b"null":
        return ""
    try:
        value = msgspec.json.decode(raw)
        return value if isinstance(value, str) else msgspec.json.format(bytes(raw)).decode()
    except RecursionError:
        return bytes(raw).decode()


def gist_of(record: Record) -> str:
    """Return the beginning of the error, or of the output, as one line."""
    if record.error is not None:
        text = record.error.message
    elif len(record.output) <= 4 * _GIST:
        text = answer_text(msgspec.json.decode(record.output), indent=None) or "" if record.output else ""
    else:
        text = pretty_json(record.output)
    return visible(one_line(text[: 4 * _GIST], _GIST))
