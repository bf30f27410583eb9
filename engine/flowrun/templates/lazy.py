"""Values that are built when a template reads them."""

from collections.abc import Iterable
from typing import Any

import msgspec


class Lazy(msgspec.Struct, gc=False, eq=False):
    """A placeholder for plain data. Jinja2 receives the data, and so does the value of a template."""

    def data(self) -> Any:
        """Return the plain data."""
        raise NotImplementedError

    def in_context(self) -> Any:
        """Return what Jinja2 receives: the plain data, or data of which a part compares in its own way."""
        return self.data()

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.data() == other.data()

    def __ne__(self, other: object) -> bool:
        return not self == other  # a struct has an inequality of its own

    def __hash__(self) -> int:
        return hash(type(self))


class LazyMapping(Lazy):
    """A lazy mapping: a bare path such as ``reply.content`` reads one member without building the others."""

    def __getitem__(self, name: str) -> Any:
        """Return a member, which may be lazy.

        Raises:
            KeyError: there is no such member.
        """
        raise NotImplementedError

    def keys(self) -> Iterable[str]:
        """Return the members' names."""
        raise NotImplementedError

    def data(self) -> dict[str, Any]:
        """Return the mapping as plain data."""
        return {name: as_data(self[name]) for name in self.keys()}


def in_context(value: Any) -> Any:
    """Return what Jinja2 receives for a value."""
    return value.in_context() if isinstance(value, Lazy) else value


def as_data(value: Any) -> Any:
    """Return a lazy value as plain data, and any other value unchanged."""
    return value.data() if isinstance(value, Lazy) else value
