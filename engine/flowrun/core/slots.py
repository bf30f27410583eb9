"""An immutable sequence of fixed length, for the results of calls or children. Newer versions share its storage."""

from collections.abc import Iterator
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")


class Slots(msgspec.Struct, Generic[T], gc=False, eq=False):
    """A persistent array: changing one item of the newest version takes constant time.

    Only the newest version holds the list. An older one holds the item that the next version replaced (Baker 1978,
    "Shallow binding in LISP 1.5", on persistent arrays); reading it copies the list.

    Slots are made of a list that nothing else holds.
    """

    _items: list[T] | None
    _change: "tuple[int, T, Slots[T]] | None" = None

    def changed(self, index: int, item: T) -> "Slots[T]":
        """Return a new version with another item at ``index``."""
        items = self._own() if self._items is None else self._items
        newer = Slots(items)
        self._items, self._change = None, (index, items[index], newer)
        items[index] = item
        return newer

    def _own(self) -> list[T]:
        if self._items is None:
            changes, version = [], self
            while version._change is not None:
                index, item, newer = version._change
                changes.append((index, item))
                version = newer
            assert version._items is not None
            items = list(version._items)
            for index, item in reversed(changes):
                items[index] = item
            self._items, self._change = items, None
        return self._items

    def get(self, index: int) -> T | None:
        """Return the item at ``index``; None if there is no such slot."""
        items = self._own() if self._items is None else self._items
        return items[index] if 0 <= index < len(items) else None

    def __len__(self) -> int:
        return len(self._own())

    def __getitem__(self, index: int) -> T:
        items = self._items
        return (self._own() if items is None else items)[index]

    def __iter__(self) -> Iterator[T]:
        return iter(self._own() if self._items is None else self._items)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Slots) and self._own() == other._own()

    def __ne__(self, other: object) -> bool:
        return not self == other  # a struct has an inequality of its own

    def __hash__(self) -> int:
        return hash((Slots, len(self)))

    def __repr__(self) -> str:
        return f"Slots({self._own()!r})"
