"""What made a result, as its record says: the flow with its version and digest, its models, sampling and tools."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Self

from flowrun.core.graph import Graph
from flowrun.runtime.snapshot import Snapshot, take_snapshot
from flowrun.spec import FlowTree, mask
from flowrun.spec.model import JSON, Model
from flowrun.spec.model_lock import LockedModel, key_of


class Origin:
    """What made the results of a flow, worked out once, when something needs it.

    Args:
        tree, graph: the flow as it was loaded and compiled. It does not hold the flow itself, whose engines stop once
            nobody holds it.
        secrets: what no record may hold.
    """

    def __init__(self, tree: FlowTree, graph: Graph, *, profile: str | None, secrets: Mapping[str, str]) -> None:
        self._tree = tree
        self._graph = graph
        self._profile = profile
        self._secrets = secrets

    @classmethod
    def known(cls, data: Mapping[str, JSON]) -> Self:
        """Return an origin of which only the data is known, as it comes from another process."""
        origin = cls.__new__(cls)
        origin.__dict__["data"] = data
        return origin

    @cached_property
    def snapshot(self) -> Snapshot:
        """The flow as it is now."""
        return take_snapshot(self._tree, self._graph, profile=self._profile)

    @cached_property
    def data(self) -> Mapping[str, JSON]:
        """The members ``flow``, ``models``, ``sampling`` and ``tools`` of a record, without secrets."""
        spec = self._tree.loaded.spec
        data: dict[str, JSON] = {
            "flow": {"name": spec.name, "version": spec.version, "digest": self.snapshot.digest},
            "models": {name: self._model(name, model) for name, model in spec.models.items()},
            "sampling": dict(spec.sampling),
            "tools": [tool.declaration.as_openai() for tool in self._graph.tools.values()],
        }
        return mask(data, self._secrets)

    def _model(self, name: str, model: Model) -> JSON:
        lock = self._tree.loaded.document.lock
        locked = None if lock is None else lock.find(key_of((), name), model)
        further: Mapping[str, JSON] = {
            "revision": model.revision,
            "adapter": model.adapter,
            "sampling": {**model.sampling},
            "locked": {} if locked is None else _locked(locked),
        }
        return {"backend": model.backend, "name": model.name, **{key: value for key, value in further.items() if value}}

    def __reduce__(self) -> tuple[Any, ...]:
        return Origin.known, (dict(self.data),)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Origin) and self.data == other.data


def _locked(model: LockedModel) -> dict[str, JSON]:
    """Return what the lock says of a model, short: a run says itself if it found anything else."""
    said = {"digest": model.digest, "commit": model.commit, "vllm": model.vllm}
    return {name: value for name, value in said.items() if value}
