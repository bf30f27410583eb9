"""The replicas of a batch as Ray's actors. The only module that knows Ray; it imports it when a batch asks for it.

Ray places the actors and starts them again when they die. What their rows are is decided by the ``pool``.
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

from flowrun.batch.distributed.pool import ReplicaLost, ReplicaReport
from flowrun.batch.distributed.replica import HostedReplica, Load, ReplicaConfig
from flowrun.batch.rows import Row
from flowrun.errors import BackendError, Bug, UsageError
from flowrun.runtime.prepare import Flow

LOCAL: Final = "local"
"""The address that means: start a Ray here, and end it with the batch."""

INSTALL: Final = 'Ray is not installed: pip install "flowrun[ray]"'

_SETTINGS: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nobody asked us to report what the user runs
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else it warns that it will behave so in future
}
_OBJECTS: Final = 256 << 20  # bytes of shared memory for a Ray of our own: rows and results are small
_END_SECONDS: Final = 15.0
_KNOCK_SECONDS: Final = 10.0


class Host(msgspec.Struct, frozen=True):
    """What a host of the cluster has."""

    cpus: float
    gpus: float


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica takes. ``in_process`` tells whether a model is in its process, so that it needs processors too."""

    gpus: int
    in_process: bool

    def count(self, hosts: Sequence[Host]) -> int:
        """Give how many replicas a cluster has place for, at least one."""
        if self.gpus and has_gpus(hosts):
            return max(1, sum(int(host.gpus) // self.gpus for host in hosts))
        if self.in_process:
            return max(1, sum(host.cpus >= 1 for host in hosts))
        return max(1, sum(int(host.cpus) for host in hosts))

    def resources(self, hosts: Sequence[Host], replicas: int) -> dict[str, Any]:
        """Give what each of so many replicas asks Ray for."""
        if self.gpus and has_gpus(hosts):
            return {"num_cpus": 1, "num_gpus": self.gpus}
        if not self.in_process:
            return {"num_cpus": 1, "num_gpus": 0}
        able = [host for host in hosts if host.cpus >= 1]
        # Ray lets a process use so many threads as it has processors, so an engine gets its share of the host.
        share = min((int(host.cpus) for host in able), default=1) // math.ceil(replicas / max(1, len(able)))
        return {"num_cpus": max(1, share), "num_gpus": 0}


def has_gpus(hosts: Sequence[Host]) -> bool:
    """Tell whether any host has a GPU."""
    return any(host.gpus for host in hosts)


def needs_of(flow: Flow) -> Needs:
    """Derive what a replica takes from the engine arguments of its models, which share its GPUs."""
    engines = [bound.model.engine for bound in flow.models.values() if bound.model.backend == "vllm"]
    return Needs(gpus=max((_gpus_of(engine) for engine in engines), default=0), in_process=bool(engines))


def _gpus_of(engine: Any) -> int:
    if "ray" in (engine.get("distributed_executor_backend"), engine.get("data_parallel_backend")):
        return 0  # vLLM asks Ray itself, for actors of its own
    sizes = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
    return math.prod(int(engine.get(size, 1)) for size in sizes)


@contextmanager
def cluster(address: str, *, verbose: bool) -> Iterator[list[Host]]:
    """Be connected to a cluster, and give its hosts; ``LOCAL`` starts one here, which ends with this.

    What Ray prints is shown only if ``verbose``: it has no switch for it, and what it is about is told by the pool.

    Raises:
        UsageError: Ray is not installed, or there is no cluster at the address.
    """
    os.environ.update({name: value for name, value in _SETTINGS.items() if name not in os.environ})
    try:
        import ray
    except ImportError as exc:
        raise UsageError(INSTALL) from exc
    quiet: dict[str, Any] = {"log_to_driver": verbose, "logging_level": logging.INFO if verbose else logging.ERROR}
    here: dict[str, Any] = {"include_dashboard": False, "object_store_memory": _OBJECTS}
    with ExitStack() as stack:
        if not verbose:
            stack.enter_context(redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        _knock(address)
        try:
            ray.init(address, **quiet, **(here if address == LOCAL else {}))
        except (ConnectionError, ValueError, RuntimeError) as exc:
            raise UsageError(f"--ray {address}: {' '.join(str(exc).split())}") from exc
        stack.callback(ray.shutdown)
        yield [
            Host(node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
            for node in ray.nodes()
            if node["Alive"]
        ]


def _knock(address: str) -> None:
    """Find out in seconds that nobody is at an address; Ray itself takes minutes.

    Raises:
        UsageError: nobody is there.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_SECONDS).close()
        except OSError as exc:
            raise UsageError(f"--ray {address}: nothing answers there: {exc.strerror or exc}") from exc


class RayReplica:
    """A ``pool.Replica`` in an actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self._session = 0
        self._started = False

    async def start(self) -> str:
        """See ``pool.Replica.start``."""
        self._session += 1
        started = await _asked(self._actor.start.remote(self._session))
        if started.error is not None:
            raise BackendError(started.error)
        self._started = True
        return str(started.where)

    async def feed(self, rows: Sequence[Row]) -> None:
        """See ``pool.Replica.feed``."""
        if not await _asked(self._actor.feed.remote(self._session, list(rows))):
            raise ReplicaLost("its process was started again")

    async def collect(self) -> ReplicaReport:
        """See ``pool.Replica.collect``."""
        answer: ReplicaReport = await _asked(self._actor.collect.remote(self._session))
        return answer

    async def stop(self) -> None:
        """See ``pool.Replica.stop``."""
        import ray

        if self._started:  # else Ray may have no place for it yet, and would not answer
            with suppress(ReplicaLost, TimeoutError):
                await asyncio.wait_for(_asked(self._actor.stop.remote()), _END_SECONDS)
        ray.kill(self._actor)


def make_replicas(load: Load, terms: ReplicaConfig, *, count: int, resources: dict[str, Any]) -> list[RayReplica]:
    """Ask Ray for actors; they are begun as soon as there is place for them."""
    import ray

    actors: Any = ray.remote(HostedReplica)
    options = {**resources, "max_restarts": -1, "max_task_retries": 0, "scheduling_strategy": "SPREAD"}
    return [RayReplica(actors.options(**options).remote(load, terms)) for _ in range(count)]


async def _asked(reference: Any) -> Any:
    """Await an actor's answer.

    Raises:
        ReplicaLost: the actor died, or cannot be reached.
        Bug: it raised.
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
