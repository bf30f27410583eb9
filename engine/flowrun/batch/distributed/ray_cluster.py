"""The replicas of a batch as Ray actors. Only this module uses Ray; it imports Ray only when a batch runs on it.

Ray places the actors on hosts and restarts them when they die. The ``scheduler`` decides which rows they run.
"""

import asyncio
import logging
import math
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack, redirect_stdout, suppress
from typing import Any, Final, Self

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
_ENDED: Final = "Ray on the host of the batch has ended"


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


class Cluster:
    """The connection of this process to a cluster, as a context; ``LOCAL`` starts a cluster here, which ends with it.

    This process is connected by the Ray node of its host. That node ends when one of its agents does (the dashboard's,
    even without a dashboard, or that of the runtime environments), and all actors that were made over it, on any host,
    end with it for good. ``reconnect`` mends that.

    Attributes:
        connection: the number of the connection; actors that were made over an earlier one are lost.
    """

    def __init__(self, address: str, *, verbose: bool, say: Callable[[str], None]) -> None:
        self.connection = 0
        self._address = address
        self._verbose = verbose
        self._say = say
        self._calls: set[asyncio.Future[Any]] = set()
        self._failure: str | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Connect.

        Ray has no option that disables its output, and the pool reports what matters to the user; so stdout is
        discarded meanwhile, unless ``verbose`` is set.

        Raises:
            UsageError: Ray is not installed, or there is no cluster at the address.
        """
        os.environ.update({name: value for name, value in _SETTINGS.items() if name not in os.environ})
        try:
            import ray
        except ImportError as exc:
            raise UsageError(INSTALL) from exc
        with ExitStack() as stack:
            if not self._verbose:
                stack.enter_context(redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
            self._connect()
            stack.callback(ray.shutdown)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    @property
    def hosts(self) -> list[Host]:
        """Return the hosts that are up."""
        import ray

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return [Host(resources.get("CPU", 0.0), resources.get("GPU", 0.0)) for resources in nodes]

    def reconnect(self) -> int:
        """Connect again if the Ray node of this host has ended; return ``connection``.

        Blocks the event loop, for half a minute if there is none: any call to an actor meanwhile would start a Ray.

        Raises:
            BackendError: it has ended, and there is none to connect to, now or at an earlier attempt.
        """
        import ray

        if self._failure is None and not _is_node_alive():
            self._say(f"{_ENDED}: connecting again")
            self.connection += 1
            for call in self._calls:
                call.cancel()  # Ray does not end calls that are pending when it is shut down
            ray.shutdown()
            try:
                self._connect()
            except UsageError as exc:
                self._failure = f"{_ENDED}: {exc}; once there is one again, the same command continues the batch"
        if self._failure is not None:
            raise BackendError(self._failure)
        return self.connection

    def _connect(self) -> None:
        import ray

        level = logging.INFO if self._verbose else logging.ERROR
        local: dict[str, Any] = {"include_dashboard": False, "object_store_memory": _OBJECTS}
        _require_reachable(self._address)
        try:
            ray.init(
                self._address,
                log_to_driver=self._verbose,
                logging_level=level,
                **(local if self._address == LOCAL else {}),
            )
        except (ConnectionError, ValueError, RuntimeError) as exc:
            raise UsageError(f"--ray {self._address}: {' '.join(str(exc).split())}") from exc

    async def call(self, reference: Any) -> Any:
        """Wait for the result of a call to an actor, and return it.

        Raises:
            ReplicaLost: the actor died, or cannot be reached.
            Bug: the actor's method raised an exception.
        """
        from ray.exceptions import RayActorError, RayError, RayTaskError

        result = reference.as_future()
        self._calls.add(result)
        try:
            await asyncio.wait([result])
            if result.cancelled():
                raise ReplicaLost(_ENDED)
            return result.result()
        except RayTaskError as exc:
            raise Bug(str(exc)) from exc
        except RayActorError as exc:
            raise ReplicaLost("its process died, or cannot be reached") from exc
        except RayError as exc:
            raise ReplicaLost(f"{type(exc).__name__}: {str(exc).strip().partition(chr(10))[0]}") from exc
        finally:
            result.cancel()
            self._calls.discard(result)


def _is_node_alive() -> bool:
    """Return whether the Ray node by which this process is connected still belongs to its cluster, and that is there.

    A client (``ray://``) is connected by no node of its own.
    """
    import ray

    if ray.util.client.ray.is_connected():
        return True
    here = ray.get_runtime_context()
    try:
        _require_reachable(here.gcs_address)  # without it, Ray would wait for a minute, and end this process
    except UsageError:
        return False
    return any(node["NodeID"] == here.get_node_id() and node["Alive"] for node in ray.nodes())


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
    """The port ``ports.Replica`` over a Ray actor, which is made anew when the cluster was connected again."""

    def __init__(self, cluster: Cluster, make_actor: Callable[[], Any]) -> None:
        self._cluster = cluster
        self._make_actor = make_actor
        self._connection = cluster.connection
        self._actor = make_actor()
        self._session = 0
        self._started = False

    async def start(self) -> str:
        """See ``ports.Replica.start``."""
        if self._connection != self._cluster.reconnect():
            self._connection, self._actor, self._started = self._cluster.connection, self._make_actor(), False
        self._session += 1
        started = await self._cluster.call(self._actor.start.remote(self._session))
        if started.error is not None:
            raise BackendError(started.error)
        self._started = True
        return str(started.where)

    async def feed(self, rows: Sequence[Row]) -> None:
        """See ``ports.Replica.feed``."""
        self._require_connected()
        if not await self._cluster.call(self._actor.feed.remote(self._session, list(rows))):
            raise ReplicaLost("its process was started again")

    async def collect(self) -> ReplicaReport:
        """See ``ports.Replica.collect``."""
        self._require_connected()
        report: ReplicaReport = await self._cluster.call(self._actor.collect.remote(self._session))
        return report

    async def stop(self) -> None:
        """See ``ports.Replica.stop``."""
        import ray

        if self._connection != self._cluster.connection:
            return  # its actor ended with the connection
        if self._started:  # an actor that Ray could not place yet would not reply
            with suppress(ReplicaLost, TimeoutError):
                await asyncio.wait_for(self._cluster.call(self._actor.stop.remote()), _STOP_SECONDS)
        ray.kill(self._actor)

    def _require_connected(self) -> None:
        if self._connection != self._cluster.connection:
            raise ReplicaLost(_ENDED)


def make_replicas(
    cluster: Cluster, load: Load, config: ReplicaConfig, *, count: int, resources: dict[str, Any]
) -> list[RayReplica]:
    """Request actors from Ray, which starts each as soon as its resources are free."""
    import ray

    options = {**resources, "max_restarts": -1, "max_task_retries": 0, "scheduling_strategy": "SPREAD"}

    def make_actor() -> Any:
        actors: Any = ray.remote(HostedReplica)
        return actors.options(**options).remote(load, config)

    return [RayReplica(cluster, make_actor) for _ in range(count)]
