"""What made a result, as its record says: the flow with its version and digest, its models, sampling and tools."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from flowrun.core.graph import Graph
from flowrun.runtime.project import CompiledFlow
from flowrun.runtime.snapshot import take_snapshot
from flowrun.spec import FlowTree, mask
from flowrun.spec.model import JSON, Model


class _Parts(NamedTuple):
    tree: FlowTree
    graph: Graph
    profile: str | None
    secrets: Mapping[str, str]


class Origin:
    """What made the results of a flow, worked out once a result needs it.

    It does not hold the flow itself, whose engines stop once nobody holds it.
    """

    __slots__ = ("_data", "_parts")

    def __init__(self, flow: CompiledFlow) -> None:
        self._parts: _Parts | None = _Parts(flow.tree, flow.graph, flow.profile, flow.secrets)
        self._data: Mapping[str, JSON] = {}

    @classmethod
    def known(cls, data: Mapping[str, JSON]) -> Self:
        """Return an origin whose data is known already."""
        origin = cls.__new__(cls)
        origin._parts, origin._data = None, data
        return origin

    @property
    def data(self) -> Mapping[str, JSON]:
        """The members ``flow``, ``models``, ``sampling`` and ``tools`` of a record, without secrets."""
        if self._parts is not None:
            self._data, self._parts = _data_of(self._parts), None
        return self._data

    def __reduce__(self) -> tuple[Any, ...]:
        return Origin.known, (dict(self.data),)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Origin) and self.data == other.data

    def __hash__(self) -> int:
        return hash(tuple(self.data))


def _data_of(parts: _Parts) -> Mapping[str, JSON]:
    spec = parts.tree.loaded.spec
    digest = take_snapshot(parts.tree, parts.graph, profile=parts.profile).digest
    data: dict[str, JSON] = {
        "flow": {"name": spec.name, "version": spec.version, "digest": digest},
        "models": {name: _model(model) for name, model in spec.models.items()},
        "sampling": dict(spec.sampling),
        "tools": [tool.declaration.as_openai() for tool in parts.graph.tools.values()],
    }
    return mask(data, parts.secrets)


def _model(model: Model) -> JSON:
    known: dict[str, JSON] = {"backend": model.backend, "name": model.name}
    further: Mapping[str, JSON] = {"revision": model.revision, "adapter": model.adapter, "sampling": {**model.sampling}}
    return known | {name: value for name, value in further.items() if value}
