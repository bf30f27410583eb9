"""A batch on replicas that Ray places on the hosts of a cluster."""

import asyncio
import os
from functools import partial

import msgspec

from flowrun.batch.distributed.merge import Format, merge_parts
from flowrun.batch.distributed.pool import Pool
from flowrun.batch.distributed.ray_cluster import Host, cluster, make_replicas, needs_of
from flowrun.batch.distributed.replica import ReplicaConfig
from flowrun.batch.job import BatchJob, FlowReference
from flowrun.batch.sinks import Folder
from flowrun.core.ports import ModelBackend
from flowrun.runtime.backends import BackendSettings, calm_collector, make_backends
from flowrun.runtime.prepare import Flow


class RayOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says of Ray."""

    address: str
    replicas: int | None
    folder: Folder
    format: Format


def run_on_ray(job: BatchJob, rays: RayOptions) -> None:
    """Run a batch on the replicas of a cluster."""
    rays.folder.drop_merged()
    job.view.say("starting Ray here" if rays.address == "local" else f"connecting to Ray at {rays.address}")
    with cluster(rays.address, verbose=job.settings.verbose) as hosts:
        asyncio.run(_run(job, rays, hosts))


async def _run(job: BatchJob, rays: RayOptions, hosts: list[Host]) -> None:
    needs = needs_of(job.flow)
    count = rays.replicas or needs.count(hosts)
    resources = needs.resources(hosts, count)
    each = f"{resources['num_cpus']} CPU" + (f" and {needs.gpus} GPU" if resources["num_gpus"] else "")
    job.view.say(f"asking Ray for {count} replicas of {each} each; hosts there: {len(hosts)}")
    replicas = make_replicas(
        partial(load, job.origin, verbose=job.settings.verbose),
        ReplicaConfig(batch=job.results.batch, messages=job.options.messages, max_live=job.options.max_live),
        count=count,
        resources=resources,
    )
    pool = Pool(replicas, job.session.meter, job.view.say)
    try:
        await pool.start()
        here = msgspec.structs.replace(job.options, max_live=None)  # the replicas see to it, each for itself
        await msgspec.structs.replace(job, options=here).drive(pool.run_row, pool)
    finally:
        await pool.stop()


def load(origin: FlowReference, *, verbose: bool) -> tuple[Flow, dict[str, ModelBackend]]:
    """Prepare the flow on a replica's host: the spec as it was for the batch, functions and variables of this host."""
    flow = origin.kept.prepare(os.environ, max_calls=origin.max_tools)
    calm_collector()
    return flow, make_backends(flow, BackendSettings(verbose=verbose))


def merge(job: BatchJob, rays: RayOptions) -> None:
    """Bring all results into one file."""
    job.view.say(f"all results, in the rows' order: {merge_parts(rays.folder, rays.format)}")
