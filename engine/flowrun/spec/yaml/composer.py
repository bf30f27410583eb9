"""The event stream of a YAML parser, composed into plain values with the place of each; no recursion, no constructors.

A mistake becomes an issue and the composing goes on with what was most likely meant; only a limit ends it. Limits are
checked before memory is spent. No value is ever made but None, bool, int, float, str, list and dict.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

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
from flowrun.spec.model import JSON
from flowrun.spec.suggestions import did_you_mean
from flowrun.spec.yaml.scalars import NotJSONScalar, read_scalar
from flowrun.spec.yaml.syntax import unquoted_template

MAX_NODES: Final = 100_000
"""No spec has more values than this, each counted as often as aliases repeat it."""

MAX_DEPTH: Final = 64
"""No value of a spec is nested deeper than this."""

MERGE_KEY: Final = "<<"

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_Loader: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Stop(Exception):
    """A limit is reached; the issue is noted already."""


class _Anchor:
    """A value with a name. ``first`` and ``last`` bound its paths in the trail; it is open while ``last`` is -1."""

    __slots__ = ("first", "height", "last", "path", "value")

    def __init__(self, path: Path, value: JSON, first: int) -> None:
        self.path = path
        self.value = value
        self.first = first
        self.last = -1
        self.height = 0


class _Frame:
    """A list or mapping that is still open. ``key`` is None in a mapping while a key comes next."""

    __slots__ = ("anchor", "height", "items", "key", "mapping", "merges", "path")

    def __init__(self, path: Path, items: Any, anchor: _Anchor | None) -> None:
        self.path = path
        self.items = items
        self.mapping = type(items) is dict
        self.key: str | None = None
        self.merges = False
        self.height = 1
        self.anchor = anchor


class Composer:
    """Composes one text, once. ``value`` stays None where there is nothing that could be checked further."""

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
        self._meaningless = False

    def compose(self) -> yaml.MarkedYAMLError | None:
        """Compose the text; give the syntax error at which the parser gave up, if there is one."""
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
            # PyYAML's parser in Python lets some of Python's own errors through: chr() of a number too large.
            self.value = None
            return yaml.MarkedYAMLError(problem=str(error), problem_mark=event.end_mark if event else None)
        except _Stop:
            self._meaningless = True
        self._check_root()
        return None

    def _begin_document(self, event: Event) -> bool:
        self._documents += 1
        if self._documents == 1:
            return True
        self._note(
            "FR113", self._place(event), "a second YAML document begins here", "delete the '---', or make two files"
        )
        return False

    def _check_root(self) -> None:
        if self._meaningless:
            self.value = None
        elif self.value is None:
            self._note("FR112", Place(self._file, 1, 1), "the file is empty", "begin it with 'flowrun: v1'")
        elif type(self.value) is not dict:
            message = f"the file must be a mapping of keys to values, and is {_kind(self.value)}"
            self._note("FR114", self.places[()], message, "begin it with 'flowrun: v1'")
            self.value = None

    # --- events ---------------------------------------------------------------------------------------------------

    def _scalar(self, event: Any) -> None:
        place = self._place(event)
        if event.tag is not None:
            self._refuse_tag(event, place)
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
            value = self._plain(value, place)
        elif not value.isascii() and _SURROGATE.search(value):
            # PyYAML's parser in Python takes such escapes, the one in C refuses them.
            self._note(
                "FR108", place, "the text has an escape that does not stand for a character", "write \\U0001F600"
            )
        self._enter(frame, path, value, place)
        if event.anchor is not None:
            anchor = self._anchors[event.anchor] = _Anchor(path, value, self._count - 1)
            anchor.last = self._count

    def _start(self, event: Any) -> None:
        place = self._place(event)
        if event.tag is not None:
            self._refuse_tag(event, place)
        frame = self._open[-1] if self._open else None
        is_key = frame is not None and frame.mapping and frame.key is None
        is_template = bool(event.flow_style) and self._text.startswith("{{", event.start_mark.index)
        if is_key or is_template:
            self._start_of_unusable(frame, place, self._skip(event), is_key=is_key, is_template=is_template)
            return
        if len(self._open) >= MAX_DEPTH:
            self._too_deep(place)
        path = self._next_path(frame)
        items: Any = {} if type(event) is MappingStartEvent else []
        self._enter(frame, path, items, place)
        anchor = None
        if event.anchor is not None:
            anchor = self._anchors[event.anchor] = _Anchor(path, items, self._count - 1)
        self._open.append(_Frame(path, items, anchor))

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
            self._note("FR120", place, f"there is no anchor &{event.anchor} above", remedy)
        elif anchor.last < 0:
            message = f"*{event.anchor} stands inside of the value that &{event.anchor} names"
            self._note("FR121", place, message, "write the value out; a spec cannot be infinite")
        else:
            value = anchor.value
        self._meaningless |= anchor is None or anchor.last < 0
        if frame is not None and frame.mapping and frame.key is None:
            self._key(frame, value if isinstance(value, str) else f"*{event.anchor}", place, plain=False)
            if not isinstance(value, str) and not self._meaningless:
                self._refuse_key(place, f"a key must be a text, and is {_kind(value)}", "write the key out")
            return
        path = self._next_path(frame)
        self._enter(frame, path, value, place)
        if anchor is not None and anchor.last >= 0:
            self._repeat(anchor, frame, path, place)

    # --- values and keys ------------------------------------------------------------------------------------------

    def _next_path(self, frame: _Frame | None) -> Path:
        if frame is None:
            return ()
        return (*frame.path, frame.key if frame.mapping else len(frame.items))  # type: ignore[arg-type]

    def _enter(self, frame: _Frame | None, path: Path, value: JSON, place: Place) -> None:
        """Put a value where it belongs and note its place."""
        self._room_for(1, place)
        self._trail.append(path)
        self.places[path] = place
        if frame is None:
            self.value = value
        elif frame.mapping:
            frame.items[frame.key] = value
            frame.key = None
        else:
            frame.items.append(value)

    def _plain(self, text: str, place: Place) -> JSON:
        try:
            return read_scalar(text)
        except NotJSONScalar as error:
            shown = text if len(text) <= 40 else f"{text[:37]}..."
            self._note("FR119", place, f"{shown} {error}", "write a number that JSON has, or quote it")
            return 0

    def _key(self, frame: _Frame, key: str, place: Place, *, plain: bool) -> None:
        """Note a mapping's next key."""
        if plain and key == MERGE_KEY:
            remedy = "write the keys out, or give the whole mapping an anchor and use its alias"
            self._note("FR117", place, "'<<' merges mappings in YAML 1.1 only, and this is YAML 1.2", remedy)
            frame.merges = True
        elif plain and (kind := _kind_of_plain(key)) is not None:
            self._refuse_key(place, f"a key must be a text, and is {kind}", f'write "{key}"')
        path = (*frame.path, key)
        if key in frame.items:
            first = self.key_places[path].line
            self._note("FR115", place, f"the key '{key}' is there already, in line {first}", "delete one of them")
        frame.key = key
        self.key_places[path] = place

    def _start_of_unusable(
        self, frame: _Frame | None, place: Place, text: str, *, is_key: bool, is_template: bool
    ) -> None:
        """Take a collection that cannot stand here as the text that it was written as."""
        if is_template:
            self.issues.append(unquoted_template(place, text))
        else:
            self._refuse_key(place, "a key must be a text, and is a list or a mapping", "write a text as the key")
        if is_key and frame is not None:
            self._key(frame, text, place, plain=False)
        else:
            self._enter(frame, self._next_path(frame), text, place)

    def _skip(self, start: Any) -> str:
        """Read on to the end of the collection that ``start`` begins, and give it as it is written."""
        depth = 1
        event: Any = start
        while depth:
            event = next(self._events)
            self._room_for(1, self._place(event))
            if isinstance(event, CollectionStartEvent):
                depth += 1
                if len(self._open) + depth > MAX_DEPTH:
                    self._too_deep(self._place(event))
            elif isinstance(event, CollectionEndEvent):
                depth -= 1
            self._trail.append(())
        return self._text[start.start_mark.index : event.end_mark.index]

    # --- aliases --------------------------------------------------------------------------------------------------

    def _closed_anchor(self, value: str) -> _Anchor:
        anchor = _Anchor((), value, self._count)
        anchor.last = self._count
        return anchor

    def _repeat(self, anchor: _Anchor, frame: _Frame | None, path: Path, place: Place) -> None:
        """Note the places of a value that an alias repeats: inside of it they are those of the anchor's value."""
        self._room_for(anchor.last - anchor.first - 1, place)
        if len(self._open) + anchor.height > MAX_DEPTH:
            self._too_deep(place)
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

    def _note(self, code: str, place: Place, message: str, remedy: str) -> None:
        self.issues.append(Issue(code=code, place=place, message=message, remedy=remedy))

    def _refuse_tag(self, event: Any, place: Place) -> None:
        tag = event.tag.replace("tag:yaml.org,2002:", "!!")
        remedy = "delete the tag and quote the value" if tag == "!!str" else "delete the tag, or quote the text"
        self._note("FR118", place, f"the value has the tag {tag}; a spec holds plain JSON values only", remedy)

    def _refuse_key(self, place: Place, message: str, remedy: str) -> None:
        self._note("FR116", place, message, remedy)

    def _room_for(self, nodes: int, place: Place) -> None:
        self._count += nodes
        if self._count > MAX_NODES:
            message = f"the file has more than {MAX_NODES:,} values, aliases expanded"
            self._note("FR122", place, message, "use fewer aliases, and keep large data out of the spec")
            raise _Stop

    def _too_deep(self, place: Place) -> None:
        message = f"the file is nested deeper than {MAX_DEPTH} levels"
        self._note("FR123", place, message, "use fewer levels; sub-flows can be files of their own")
        raise _Stop


_HANDLERS: Final[dict[type[Event], Callable[[Composer, Any], None]]] = {
    ScalarEvent: Composer._scalar,
    MappingStartEvent: Composer._start,
    SequenceStartEvent: Composer._start,
    MappingEndEvent: Composer._end,
    SequenceEndEvent: Composer._end,
    AliasEvent: Composer._alias,
}


def _merge(mapping: dict[str, JSON]) -> None:
    """Do what a merge key asks for, so that it is refused once and not again for every key that would be missing."""
    merged = mapping.pop(MERGE_KEY, None)
    for source in merged if isinstance(merged, list) else [merged]:
        if isinstance(source, dict):
            for key, value in source.items():
                mapping.setdefault(key, value)


def _kind_of_plain(key: str) -> str | None:
    """Say what an unquoted key is if it is no text."""
    try:
        value = read_scalar(key)
    except NotJSONScalar:
        return "a number"
    if value is None:
        return "null" if key else "empty"
    return None if isinstance(value, str) else _kind(value)


def _kind(value: JSON) -> str:
    return KINDS[type(value)]


KINDS: Final[dict[type, str]] = {
    dict: "a mapping",
    list: "a list",
    str: "a text",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    type(None): "empty",
}
