"""Composition of a YAML parser's events into plain values with their positions. No recursion, no constructors.

A mistake becomes an issue, and composing continues with the value that was most likely meant; only a limit ends it.
Limits are checked before memory is allocated. All values are None, bool, int, float, str, list or dict.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
import yaml
from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from flowrun.errors import Issue, Path, Place
from flowrun.excerpts import cut
from flowrun.spec.model import JSON
from flowrun.spec.suggestions import did_you_mean
from flowrun.spec.yaml.scalars import NotJSONScalar, read_scalar
from flowrun.spec.yaml.syntax import unquoted_template

MAX_NODES: Final = 100_000
"""The most values of a spec. A value counts once more for each alias that repeats it."""

MAX_DEPTH: Final = 64
"""The most levels of lists and mappings in a spec."""

MERGE_KEY: Final = "<<"

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_Loader: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _LimitReached(Exception):
    """The signal that a limit is reached; its issue is recorded already."""


class _Anchor(msgspec.Struct):
    """A value with an anchor.

    Its paths are ``Composer._trail[first:last]``; ``last`` is -1 until the value ends. ``height`` is the number of
    levels in the value.
    """

    path: Path
    value: JSON
    first: int
    last: int = -1
    height: int = 0


class _Frame(msgspec.Struct):
    """A list or mapping that has not ended yet. In a mapping, ``key`` is None if the next event is a key.

    ``merges`` is True after a merge key; ``height`` is the number of levels so far.
    """

    path: Path
    items: Any
    anchor: _Anchor | None
    mapping: bool
    key: str | None = None
    merges: bool = False
    height: int = 1


class Composer:
    """A composer of one text, for one use. ``value`` stays None if the text has no value that a check can use."""

    def __init__(self, text: str, file: str) -> None:
        self.value: JSON = None
        self.issues: list[Issue] = []
        self.places: dict[Path, Place] = {}
        self.key_places: dict[Path, Place] = {}
        self.bare: set[Path] = set()
        self._text = text
        self._file = file
        self._events: Iterator[Event] = yaml.parse(text, Loader=_Loader)
        self._documents = 0
        self._trail: list[Path] = []
        self._count = 0
        self._open: list[_Frame] = []
        self._anchors: dict[str, _Anchor] = {}
        self._unusable = False

    def compose(self) -> yaml.MarkedYAMLError | None:
        """Compose the text; return the syntax error that ended parsing, if any."""
        event: Any = None
        try:
            for event in self._events:
                if handler := _HANDLERS.get(type(event)):
                    handler(self, event)
                elif type(event) is DocumentStartEvent and not self._begin_document(event):
                    break
        except yaml.MarkedYAMLError as error:
            self.value = None
            return error
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            # PyYAML's parser in Python raises some of Python's own errors, such as that of chr() for a large number.
            self.value = None
            return yaml.MarkedYAMLError(problem=str(error), problem_mark=event.end_mark if event else None)
        except _LimitReached:
            self._unusable = True
        self._check_root()
        return None

    def _begin_document(self, event: Event) -> bool:
        self._documents += 1
        if self._documents == 1:
            return True
        self._report(
            "FR113", self._place(event), "a second YAML document begins here", "delete the '---', or make two files"
        )
        return False

    def _check_root(self) -> None:
        if self._unusable:
            self.value = None
        elif self.value is None:
            self._report("FR112", Place(self._file, 1, 1), "the file is empty", "begin it with 'flowrun: v1'")
        elif type(self.value) is not dict:
            message = f"the file must be a mapping of keys to values, and is {_noun(self.value)}"
            self._report("FR114", self.places[()], message, "begin it with 'flowrun: v1'")
            self.value = None

    # --- events ---------------------------------------------------------------------------------------------------

    def _scalar(self, event: Any) -> None:
        place = self._place(event)
        if event.tag is not None:
            self._report_tag(event, place)
        frame = self._open[-1] if self._open else None
        if frame is not None and frame.mapping and frame.key is None:
            self._key(frame, event.value, place, plain=not event.style)
            if event.anchor is not None:
                self._anchors[event.anchor] = self._closed_anchor(event.value)
            return
        path = self._next_path(frame)
        value = event.value
        if not event.style:
            if "${" in value:
                self.bare.add(path)
            value = self._plain_scalar(value, place)
        elif not value.isascii() and _SURROGATE.search(value):
            # PyYAML's parser in Python accepts such escapes, the one in C rejects them.
            self._report(
                "FR108", place, "the text has an escape that does not stand for a character", "write \\U0001F600"
            )
        self._add(frame, path, value, place)
        if event.anchor is not None:
            anchor = self._anchors[event.anchor] = _Anchor(path, value, self._count - 1)
            anchor.last = self._count

    def _start(self, event: Any) -> None:
        place = self._place(event)
        if event.tag is not None:
            self._report_tag(event, place)
        frame = self._open[-1] if self._open else None
        is_key = frame is not None and frame.mapping and frame.key is None
        is_template = bool(event.flow_style) and self._text.startswith("{{", event.start_mark.index)
        if is_key or is_template:
            self._use_as_text(frame, place, self._skip(event), is_key=is_key, is_template=is_template)
            return
        if len(self._open) >= MAX_DEPTH:
            self._stop_at_depth(place)
        path = self._next_path(frame)
        items: Any = {} if type(event) is MappingStartEvent else []
        self._add(frame, path, items, place)
        anchor = None
        if event.anchor is not None:
            anchor = self._anchors[event.anchor] = _Anchor(path, items, self._count - 1)
        self._open.append(_Frame(path, items, anchor, mapping=type(items) is dict))

    def _end(self, event: Any) -> None:
        frame = self._open.pop()
        if frame.merges:
            _merge(frame.items)
        if frame.anchor is not None:
            frame.anchor.last = self._count
            frame.anchor.height = frame.height
        if self._open:
            self._open[-1].height = max(self._open[-1].height, frame.height + 1)

    def _alias(self, event: Any) -> None:
        place = self._place(event)
        frame = self._open[-1] if self._open else None
        anchor = self._anchors.get(event.anchor)
        value = None
        if anchor is None:
            remedy = (
                did_you_mean(event.anchor, self._anchors) or f"quote it if it is meant as a text: '*{event.anchor}'"
            )
            self._report("FR120", place, f"there is no anchor &{event.anchor} above", remedy)
        elif anchor.last < 0:
            message = f"*{event.anchor} stands inside of the value that &{event.anchor} names"
            self._report("FR121", place, message, "write the value out; a spec cannot be infinite")
        else:
            value = anchor.value
        self._unusable |= anchor is None or anchor.last < 0
        if frame is not None and frame.mapping and frame.key is None:
            self._key(frame, value if isinstance(value, str) else f"*{event.anchor}", place, plain=False)
            if not isinstance(value, str) and not self._unusable:
                self._report_key(place, f"a key must be a text, and is {_noun(value)}", "write the key out")
            return
        path = self._next_path(frame)
        self._add(frame, path, value, place)
        if anchor is not None and anchor.last >= 0:
            self._copy_positions(anchor, frame, path, place)

    # --- values and keys ------------------------------------------------------------------------------------------

    def _next_path(self, frame: _Frame | None) -> Path:
        if frame is None:
            return ()
        return (*frame.path, frame.key if frame.mapping else len(frame.items))  # type: ignore[arg-type]

    def _add(self, frame: _Frame | None, path: Path, value: JSON, place: Place) -> None:
        """Add a value to its list or mapping and record its position."""
        self._count_nodes(1, place)
        self._trail.append(path)
        self.places[path] = place
        if frame is None:
            self.value = value
        elif frame.mapping:
            frame.items[frame.key] = value
            frame.key = None
        else:
            frame.items.append(value)

    def _plain_scalar(self, text: str, place: Place) -> JSON:
        try:
            return read_scalar(text)
        except NotJSONScalar as error:
            self._report("FR119", place, f"{cut(text, 40)} {error}", "write a number that JSON has, or quote it")
            return 0

    def _key(self, frame: _Frame, key: str, place: Place, *, plain: bool) -> None:
        """Set the next key of a mapping and record its position."""
        if plain and key == MERGE_KEY:
            remedy = "write the keys out, or give the whole mapping an anchor and use its alias"
            self._report("FR117", place, "'<<' merges mappings in YAML 1.1 only, and this is YAML 1.2", remedy)
            frame.merges = True
        elif plain and (kind := _type_of_plain_key(key)) is not None:
            self._report_key(place, f"a key must be a text, and is {kind}", f'write "{key}"')
        path = (*frame.path, key)
        if key in frame.items:
            first = self.key_places[path].line
            self._report("FR115", place, f"the key '{key}' is there already, in line {first}", "delete one of them")
        frame.key = key
        self.key_places[path] = place

    def _use_as_text(self, frame: _Frame | None, place: Place, text: str, *, is_key: bool, is_template: bool) -> None:
        """Report a list or mapping that is not allowed here, and use its source text as the value or key."""
        if is_template:
            self.issues.append(unquoted_template(place, text))
        else:
            self._report_key(place, "a key must be a text, and is a list or a mapping", "write a text as the key")
        if is_key and frame is not None:
            self._key(frame, text, place, plain=False)
        else:
            self._add(frame, self._next_path(frame), text, place)

    def _skip(self, start: Any) -> str:
        """Consume the events of the collection that ``start`` begins, and return its source text."""
        depth = 1
        event: Any = start
        while depth:
            event = next(self._events)
            self._count_nodes(1, self._place(event))
            if isinstance(event, CollectionStartEvent):
                depth += 1
                if len(self._open) + depth > MAX_DEPTH:
                    self._stop_at_depth(self._place(event))
            elif isinstance(event, CollectionEndEvent):
                depth -= 1
            self._trail.append(())
        return self._text[start.start_mark.index : event.end_mark.index]

    # --- aliases --------------------------------------------------------------------------------------------------

    def _closed_anchor(self, value: str) -> _Anchor:
        anchor = _Anchor((), value, self._count)
        anchor.last = self._count
        return anchor

    def _copy_positions(self, anchor: _Anchor, frame: _Frame | None, path: Path, place: Place) -> None:
        """Record the positions in a value that an alias repeats: they are those in the anchor's value."""
        self._count_nodes(anchor.last - anchor.first - 1, place)
        if len(self._open) + anchor.height > MAX_DEPTH:
            self._stop_at_depth(place)
        if frame is not None:
            frame.height = max(frame.height, anchor.height + 1)
        depth = len(anchor.path)
        for known in self._trail[anchor.first + 1 : anchor.last]:
            repeated = path + known[depth:]
            self._trail.append(repeated)
            self.places[repeated] = self.places[known]
            if known in self.key_places:
                self.key_places[repeated] = self.key_places[known]
            if known in self.bare:
                self.bare.add(repeated)
        if anchor.path in self.bare:
            self.bare.add(path)

    # --- issues and limits ----------------------------------------------------------------------------------------

    def _place(self, event: Any) -> Place:
        mark = event.start_mark
        return Place(self._file, mark.line + 1, mark.column + 1)

    def _report(self, code: str, place: Place, message: str, remedy: str) -> None:
        self.issues.append(Issue(code=code, place=place, message=message, remedy=remedy))

    def _report_tag(self, event: Any, place: Place) -> None:
        tag = event.tag.replace("tag:yaml.org,2002:", "!!")
        remedy = "delete the tag and quote the value" if tag == "!!str" else "delete the tag, or quote the text"
        self._report("FR118", place, f"the value has the tag {tag}; a spec holds plain JSON values only", remedy)

    def _report_key(self, place: Place, message: str, remedy: str) -> None:
        self._report("FR116", place, message, remedy)

    def _count_nodes(self, nodes: int, place: Place) -> None:
        self._count += nodes
        if self._count > MAX_NODES:
            message = f"the file has more than {MAX_NODES:,} values, aliases expanded"
            self._report("FR122", place, message, "use fewer aliases, and keep large data out of the spec")
            raise _LimitReached

    def _stop_at_depth(self, place: Place) -> None:
        message = f"the file is nested deeper than {MAX_DEPTH} levels"
        self._report("FR123", place, message, "use fewer levels; sub-flows can be files of their own")
        raise _LimitReached


_HANDLERS: Final[dict[type[Event], Callable[[Composer, Any], None]]] = {
    ScalarEvent: Composer._scalar,
    MappingStartEvent: Composer._start,
    SequenceStartEvent: Composer._start,
    MappingEndEvent: Composer._end,
    SequenceEndEvent: Composer._end,
    AliasEvent: Composer._alias,
}


def _merge(mapping: dict[str, JSON]) -> None:
    """Apply a merge key in place. It is reported once; without the merged keys, more issues would follow."""
    merged = mapping.pop(MERGE_KEY, None)
    for source in merged if isinstance(merged, list) else [merged]:
        if isinstance(source, dict):
            for key, value in source.items():
                mapping.setdefault(key, value)


def _type_of_plain_key(key: str) -> str | None:
    """Return the type of an unquoted key that is not a text, as a noun; None for a text."""
    try:
        value = read_scalar(key)
    except NotJSONScalar:
        return "a number"
    if value is None:
        return "null" if key else "empty"
    return None if isinstance(value, str) else _noun(value)


def _noun(value: JSON) -> str:
    return _NOUNS[type(value)]


_NOUNS: Final[dict[type, str]] = {
    dict: "a mapping",
    list: "a list",
    str: "a text",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    type(None): "empty",
}
