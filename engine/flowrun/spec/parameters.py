"""The parameters of a Python function that a caller may give by name, with what each of them takes.

The schemas that are derived, the comparison with declared ones and the conversion of arguments read the same.
"""

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from flowrun.spec.entrypoints import EntrypointError, NoObject
from flowrun.spec.python_types import ArgumentType

_POSITIONAL: Final = inspect.Parameter.POSITIONAL_ONLY
_ANY_POSITIONAL: Final = inspect.Parameter.VAR_POSITIONAL
_ANY_NAME: Final = inspect.Parameter.VAR_KEYWORD


class PythonParameter(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter of a function.

    Attributes:
        default: its default, or ``inspect.Parameter.empty``.
        type: what its annotation takes; None if JSON has no form of that, for the reason ``wrong``.
    """

    name: str
    annotation: Any
    default: Any
    by_position: bool
    type: ArgumentType | None
    wrong: str = ""

    @property
    def is_required(self) -> bool:
        """Whether the function has no default for it."""
        return self.default is inspect.Parameter.empty


class PythonParameters(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of a function that can be given by name.

    Attributes:
        others: what the function takes by any other name, as ``**options``; None: nothing.
    """

    named: tuple[PythonParameter, ...]
    others: PythonParameter | None


def read_parameters(function: Callable[..., Any]) -> PythonParameters:
    """Read the parameters of a function, a bound method, a class, a callable object or a ``functools.partial``.

    What a partial fixes by name is not offered.

    Raises:
        EntrypointError: the function has no readable signature or annotations, or is a method without its object.
    """
    try:
        found = inspect.signature(function).parameters
    except (TypeError, ValueError, NameError) as error:
        raise EntrypointError(f"the function has no signature: {error}", "wrap it in a function with 'def'") from error
    first = next(iter(found.values()), None)
    if first is not None and first.name == "self" and first.kind not in (_ANY_POSITIONAL, _ANY_NAME):
        raise NoObject(
            f"{getattr(function, '__qualname__', 'the function')} is a method, and has no object to be called on",
            "make the object in the module, such as desk = Desk(), and name desk.look; or make it a @staticmethod",
        )
    fixed = _fixed(function)
    written = {name: each.annotation for name, each in found.items() if each.annotation is not each.empty}
    hints = _evaluated(written, function)
    read = {each.kind: _parameter(each, hints.get(each.name, Any)) for each in found.values() if each.kind is _ANY_NAME}
    return PythonParameters(
        named=tuple(
            _parameter(each, hints.get(name, Any))
            for name, each in found.items()
            if each.kind not in (_ANY_POSITIONAL, _ANY_NAME) and name not in fixed
        ),
        others=read.get(_ANY_NAME),
    )


def _parameter(each: inspect.Parameter, annotation: Any) -> PythonParameter:
    kind, wrong = None, ""
    try:
        kind = ArgumentType(annotation)
    except (TypeError, RecursionError) as error:
        wrong = str(error).splitlines()[-1]
    by_position = each.kind is _POSITIONAL
    return PythonParameter(
        name=each.name, annotation=annotation, default=each.default, by_position=by_position, type=kind, wrong=wrong
    )


def _fixed(function: Callable[..., Any]) -> frozenset[str]:
    """Return the names of the parameters that a partial gives."""
    names: frozenset[str] = frozenset()
    while isinstance(function, functools.partial):
        names |= function.keywords.keys()
        function = function.func
    return names


def written_as(function: Callable[..., Any]) -> Any:
    """Return the ``def`` behind a callable: it has the docstring, and the names that annotations mean."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isclass(function):
        return function.__init__ if function.__init__ is not object.__init__ else function.__new__
    return function if inspect.isroutine(function) else type(function).__call__


def _evaluated(written: Mapping[str, Any], function: Callable[..., Any]) -> dict[str, Any]:
    """Return annotations as types. That of the result is not read: it may name what only a type checker imports."""
    owner = types.SimpleNamespace(__annotations__=dict(written), __wrapped__=inspect.unwrap(written_as(function)))
    try:
        return typing.get_type_hints(owner, include_extras=True)
    except Exception as error:  # an annotation is code, and may raise anything
        raise EntrypointError(
            f"the function's annotations cannot be read: {type(error).__name__}: {error}",
            "import at run time what the annotations name",
        ) from error
