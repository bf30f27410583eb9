"""The replicas of a batch as Ray actors. Only this module uses Ray; it imports Ray only when a batch runs on it.

Ray places the actors on hosts and restarts them when they die. The ``scheduler`` decides which rows they run.
"""

import asyncio
import logging
import math
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from typing import Any, Final

import msgspec

from flowrun.batch.distributed.ports import ReplicaLost, ReplicaReport
from flowrun.batch.distributed.replica import HostedReplica, Load, ReplicaConfig
from flowrun.batch.rows import Row
from flowrun.errors import BackendError, Bug, UsageError, install_extra
from flowrun.runtime.project import CompiledFlow

LOCAL: Final = "local"
"""The address that starts a Ray on this machine, which ends with the batch."""

INSTALL: Final = f"Ray is not installed: {install_extra('ray')}"

_SETTINGS: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",  # usage reports need the user's consent
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's future default; else it prints a warning
}
_OBJECTS: Final = 256 << 20  # bytes of shared memory for a Ray that we start: rows and results are small
_STOP_SECONDS: Final = 15.0
_CONNECT_SECONDS: Final = 10.0


class Host(msgspec.Struct, frozen=True):
    """The resources of a host of the cluster: the numbers of its processors and GPUs."""

    cpus: float
    gpus: float


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """The resources that a replica needs.

    Attributes:
        in_process: a model runs in the replica's process, so the replica needs processors too.
    """

    gpus: int
    in_process: bool

    def count(self, hosts: Sequence[Host]) -> int:
        """Return how many replicas fit on a cluster, at least one."""
        if self.gpus and has_gpus(hosts):
            return max(1, sum(int(host.gpus) // self.gpus for host in hosts))
        if self.in_process:
            return max(1, sum(host.cpus >= 1 for host in hosts))
        return max(1, sum(int(host.cpus) for host in hosts))

    def resources(self, hosts: Sequence[Host], replicas: int) -> dict[str, Any]:
        """Return the resource options of a Ray actor for each of ``replicas`` replicas."""
        if self.gpus and has_gpus(hosts):
            return {"num_cpus": 1, "num_gpus": self.gpus}
        if not self.in_process:
            return {"num_cpus": 1, "num_gpus": 0}
        able = [host for host in hosts if host.cpus >= 1]
        # Ray limits a process to as many threads as it requests processors, so an engine requests a share of its host.
        share = min((int(host.cpus) for host in able), default=1) // math.ceil(replicas / max(1, len(able)))
        return {"num_cpus": max(1, share), "num_gpus": 0}


def has_gpus(hosts: Sequence[Host]) -> bool:
    """Return whether any host has a GPU."""
    return any(host.gpus for host in hosts)


def needs_of(flow: CompiledFlow) -> Needs:
    """Compute the resources of a replica from the engine arguments of its models, which share its GPUs."""
    engines = [bound.model.engine for bound in flow.models.values() if bound.model.capabilities.in_process]
    return Needs(gpus=max((_gpus_of(engine) for engine in engines), default=0), in_process=bool(engines))


def _gpus_of(engine: Any) -> int:
    if "ray" in (engine.get("distributed_executor_backend"), engine.get("data_parallel_backend")):
        return 0  # vLLM requests the GPUs from Ray itself, for its own actors
    sizes = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
    return math.prod(int(engine.get(size, 1)) for size in sizes)


@contextmanager
def cluster(address: str, *, verbose: bool) -> Iterator[list[Host]]:
    """Connect to a cluster and yield its hosts; ``LOCAL`` starts a cluster here, which ends with the context.

    Ray has no option that disables its output, and the pool reports what matters to the user; so stdout is discarded
    meanwhile, unless ``verbose`` is set.

    Raises:
        UsageError: Ray is not installed, or there is no cluster at the address.
    """
    os.environ.update({name: value for name, value in _SETTINGS.items() if name not in os.environ})
    try:
        import ray
    except ImportError as exc:
        raise UsageError(INSTALL) from exc
    quiet: dict[str, Any] = {"log_to_driver": verbose, "logging_level": logging.INFO if verbose else logging.ERROR}
    local: dict[str, Any] = {"include_dashboard": False, "object_store_memory": _OBJECTS}
    with ExitStack() as stack:
        if not verbose:
            stack.enter_context(redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        _require_reachable(address)
        try:
            ray.init(address, **quiet, **(local if address == LOCAL else {}))
        except (ConnectionError, ValueError, RuntimeError) as exc:
            raise UsageError(f"--ray {address}: {' '.join(str(exc).split())}") from exc
        stack.callback(ray.shutdown)
        yield [
            Host(node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
            for node in ray.nodes()
            if node["Alive"]
        ]


def _require_reachable(address: str) -> None:
    """Connect to an address once, to detect within seconds that nothing listens there; Ray itself waits for minutes.

    Raises:
        UsageError: nothing answers at the address.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
        except OSError as exc:
            raise UsageError(f"--ray {address}: nothing answers there: {exc.strerror or exc}") from exc


class RayReplica:
    """The port ``ports.Replica`` over a Ray actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self._session = 0
        self._started = False

    async def start(self) -> str:
        """See ``ports.Replica.start``."""
        self._session += 1
        started = await _call(self._actor.start.remote(self._session))
        if started.error is not None:
            raise BackendError(started.error)
        self._started = True
        return str(started.where)

    async def feed(self, rows: Sequence[Row]) -> None:
        """See ``ports.Replica.feed``."""
        if not await _call(self._actor.feed.remote(self._session, list(rows))):
            raise ReplicaLost("its process was started again")

    async def collect(self) -> ReplicaReport:
        """See ``ports.Replica.collect``."""
        report: ReplicaReport = await _call(self._actor.collect.remote(self._session))
        return report

    async def stop(self) -> None:
        """See ``ports.Replica.stop``."""
        import ray

        if self._started:  # an actor that Ray could not place yet would not reply
            with suppress(ReplicaLost, TimeoutError):
                await asyncio.wait_for(_call(self._actor.stop.remote()), _STOP_SECONDS)
        ray.kill(self._actor)


def make_replicas(load: Load, config: ReplicaConfig, *, count: int, resources: dict[str, Any]) -> list[RayReplica]:
    """Request actors from Ray, which starts each as soon as its resources are free."""
    import ray

    actors: Any = ray.remote(HostedReplica)
    options = {**resources, "max_restarts": -1, "max_task_retries": 0, "scheduling_strategy": "SPREAD"}
    return [RayReplica(actors.options(**options).remote(load, config)) for _ in range(count)]


async def _call(reference: Any) -> Any:
    """Await the result of a call to an actor.

    Raises:
        ReplicaLost: the actor died, or cannot be reached.
        Bug: the actor's method raised an exception.
    """
    from ray.exceptions import RayActorError, RayError, RayTaskError

    try:
        return await reference
    except RayTaskError as exc:
        raise Bug(str(exc)) from exc
    except RayActorError as exc:
        raise ReplicaLost("its process died, or cannot be reached") from exc
    except RayError as exc:
        raise ReplicaLost(f"{type(exc).__name__}: {str(exc).strip().partition(chr(10))[0]}") from exc
