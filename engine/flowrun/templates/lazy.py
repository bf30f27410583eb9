"""Mappings whose members are made when a template asks for them."""

from collections.abc import Mapping
from typing import Any


class LazyMapping(Mapping[str, Any]):
    """A mapping that stands for plain data. Templates that Jinja2 evaluates, and values, get the data."""

    __slots__ = ()

    def data(self) -> dict[str, Any]:
        """Return the mapping as plain data."""
        return {name: as_data(self[name]) for name in self}


def as_data(value: Any) -> Any:
    """Return a value; if it is lazy, as plain data."""
    return value.data() if isinstance(value, LazyMapping) else value
