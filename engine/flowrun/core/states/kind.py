"""What a kind of state is, in one value. Each module of a kind defines one, and ``core.states`` lists them."""

from collections.abc import Callable, Mapping
from typing import Any, Generic, Literal, TypeVar

import msgspec

from flowrun.core.shapes import ANY, Shape
from flowrun.core.state_node import StateNode
from flowrun.core.states.compiler import Compiler
from flowrun.spec.model import ChatState, Spec, State

S = TypeVar("S", bound=State)


Outline = Literal[
    "rounded", "notched", "cut", "striped", "hexagon", "doubled", "stacked", "barred", "slanted", "pill", "dashed"
]
"""The outline of a state's box. ``drawing.outlines`` draws each in every format."""


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """The look of a state in drawings.

    Attributes:
        light: the fill and line colours on a light background.
        dark: the same on a dark background.
        title: the words for the state's kind, if they are not the name of the look.
        mark: the mark of the state in a listing.
    """

    outline: Outline
    light: tuple[str, str]
    dark: tuple[str, str]
    title: str = ""
    mark: str = "○"


class StateKind(msgspec.Struct, Generic[S], frozen=True, kw_only=True):
    """A kind of state.

    Attributes:
        struct: the state as a spec has it.
        compile: compiles a state, by its name.
        output: the words for ``outputs.<state>``, for the reference of the language; empty if there is no output.
        shape: returns the shape of this output, from the state and the sub-flows by the references to them.
        looks: the looks of the states by ``State.look``.
        extra: by property, the view of the names that its templates see besides the usual ones (``State.names_in``).
    """

    struct: type[S]
    compile: Callable[[str, S, Compiler], StateNode]
    output: str
    looks: Mapping[str, Look]
    shape: Callable[[S, Mapping[str, Spec]], Shape] = lambda state, flows: ANY
    extra: Mapping[str, Any] = {}

    def __post_init__(self) -> None:
        """Raise TypeError at import for mistakes in the struct that mypy cannot see."""
        if getattr(self.struct, "asks", None) is None:
            raise TypeError(f"{self.struct.__name__} must set 'asks'")
        if self.struct.result == "reply" and not issubclass(self.struct, ChatState):
            raise TypeError(f"{self.struct.__name__} gives a reply, so it must be a ChatState")

    @property
    def name(self) -> str:
        """The name of the kind, which a spec gives as ``type``."""
        return str(self.struct.__struct_config__.tag)
