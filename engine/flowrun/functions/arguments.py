"""Functions are called with JSON: arguments become the types of the signature, and the value becomes JSON.

What a function takes is read once, when it is bound. A value that already has its type costs one look at that type.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from flowrun.functions.json_values import copy_json
from flowrun.functions.outcomes import InvalidArguments, is_async
from flowrun.spec.entrypoints import EntrypointError
from flowrun.spec.model import JSON
from flowrun.spec.parameters import PythonParameter, PythonParameters, read_parameters
from flowrun.spec.python_types import JSON_VALUES, Misfit

_NESTED: Final = frozenset({dict, list})
_NOTHING: Final[frozenset[Any]] = frozenset()
_MAX_ERRORS: Final = 5


class BoundFunction:
    """A function that is called with JSON arguments by name: ``bound.call(**bound.prepare(arguments))``.

    Attributes:
        function: the function itself.
        is_async: its call must be awaited.
        prepare: copies JSON arguments. It runs no code of the function's module, and raises ``InvalidArguments``.
        call: calls the function with them. If the arguments must become other types, they do so here, because that may
            run code of these types; it raises ``InvalidArguments`` before the function runs.
    """

    __slots__ = ("_needs", "call", "function", "is_async", "prepare")

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.is_async = is_async(function)
        self.prepare: Callable[[Mapping[str, JSON]], dict[str, Any]]
        self.call = function
        self._needs: _Needs | None = None
        try:
            self._needs = needs = _Needs(read_parameters(function))
        except EntrypointError:  # nothing is known of what it takes
            self.prepare = _copy
            return
        self.prepare = needs.prepare
        if not needs.are_plain:
            self.prepare = dict
            self.call = needs.adapt(function)

    def check(self, arguments: Mapping[str, JSON]) -> None:
        """Raise ``InvalidArguments`` if the function does not take these arguments."""
        if self._needs is not None:
            self._needs.convert(arguments)


def accept_json(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that takes JSON arguments by name, as a worker process gets them; async if the function is."""
    bound = BoundFunction(function)

    def call(**arguments: JSON) -> Any:
        return bound.call(**bound.prepare(arguments))

    async def await_call(**arguments: JSON) -> Any:
        return await bound.call(**bound.prepare(arguments))

    return await_call if bound.is_async else call


def _copy(arguments: Mapping[str, JSON]) -> dict[str, JSON]:
    copied: dict[str, JSON] = copy_json(dict(arguments))
    return copied


class _Needs:
    """The arguments that a function needs."""

    __slots__ = ("_exact", "_other", "_others", "_parameters", "_required", "are_plain")

    def __init__(self, parameters: PythonParameters) -> None:
        self._parameters = {parameter.name: parameter for parameter in parameters.named}
        self._others = parameters.others
        self._required = {name for name, parameter in self._parameters.items() if parameter.is_required}
        self._exact = {name: _exact(parameter) for name, parameter in self._parameters.items()}
        self._other = _NOTHING if parameters.others is None else _exact(parameters.others)
        by_position = any(parameter.by_position for parameter in parameters.named)
        self.are_plain = not by_position and all(self._exact.values()) and (not self._others or bool(self._other))

    def prepare(self, arguments: Mapping[str, JSON]) -> dict[str, Any]:
        """Return a copy of the arguments, each with the type that the signature says."""
        exact, other = self._exact, self._other
        copied = {}
        for name, value in arguments.items():
            kind = type(value)
            if kind not in exact.get(name, other):
                return self.convert(arguments)
            copied[name] = copy_json(value) if kind in _NESTED else value
        if len(copied) < len(exact) and not self._required <= copied.keys():
            return self.convert(arguments)
        return copied

    def convert(self, arguments: Mapping[str, JSON]) -> dict[str, Any]:
        """Return the arguments as the types of the signature.

        Raises:
            InvalidArguments: one is missing, or not a parameter, or does not fit; the message names up to five.
        """
        converted = {}
        missing = self._required - arguments.keys()
        wrong = [f"'{name}' is missing" for name in self._parameters if name in missing]
        for name, value in arguments.items():
            parameter = self._parameters.get(name, self._others)
            if parameter is None:
                known = ", ".join(self._parameters) or "none"
                wrong.append(f"there is no parameter {name!r}; there are: {known}")
                continue
            try:
                copied = copy_json(value)
                converted[name] = copied if parameter.type is None else parameter.type.convert(copied)
            except Misfit as exc:
                wrong.append(f"{name}: {exc}")
        if wrong:
            raise InvalidArguments("; ".join(wrong[:_MAX_ERRORS]))
        return converted

    def adapt(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that takes JSON by name, and calls ``function`` with the types and places that it needs."""
        placed = [parameter for parameter in self._parameters.values() if parameter.by_position]

        def call(**arguments: JSON) -> Any:
            converted = self.convert(arguments)
            last = max((index for index, each in enumerate(placed, 1) if each.name in converted), default=0)
            args = [converted.pop(each.name, each.default) for each in placed[:last]]
            return function(*args, **converted)

        return call


def _exact(parameter: PythonParameter) -> frozenset[Any]:
    return JSON_VALUES if parameter.type is None else parameter.type.exact
