"""A batch on replicas that Ray places on the hosts of a cluster."""

import asyncio
import os
from functools import partial

import msgspec

from flowrun.batch.distributed.merge import Format, merge_shards
from flowrun.batch.distributed.pool import Pool
from flowrun.batch.distributed.ray_cluster import Cluster, make_replicas, needs_of
from flowrun.batch.distributed.replica import ReplicaConfig
from flowrun.batch.job import BatchJob
from flowrun.batch.sinks import Folder
from flowrun.collector import calm_collector
from flowrun.runtime.project import CompiledFlow
from flowrun.runtime.stored_flow import StoredFlow


class RayOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a batch on Ray.

    Attributes:
        address: the cluster's address; ``local`` starts a Ray on this machine.
        replicas: the number of replicas; None: as many as the cluster has resources for.
        format: the format of the merged results.
    """

    address: str
    replicas: int | None
    folder: Folder
    format: Format


def run_on_ray(job: BatchJob, options: RayOptions) -> None:
    """Run a batch on the replicas of a cluster.

    Raises:
        BatchStopped: the batch ended early; see ``Batch.run``.
        UsageError: Ray is not installed, or there is no cluster at the address.
        FlowrunError: no replica can start, or a replica failed in a way that affects all rows.
    """
    options.folder.drop_merged()
    job.view.say("starting Ray here" if options.address == "local" else f"connecting to Ray at {options.address}")
    with Cluster(options.address, verbose=job.settings.verbose, say=job.view.say) as cluster:
        asyncio.run(_run(job, options, cluster))


async def _run(job: BatchJob, options: RayOptions, cluster: Cluster) -> None:
    needs, hosts = needs_of(job.flow), cluster.hosts
    count = options.replicas or needs.count(hosts)
    resources = needs.resources(hosts, count)
    each = f"{resources['num_cpus']} CPU" + (f" and {needs.gpus} GPU" if resources["num_gpus"] else "")
    job.view.say(f"asking Ray for {count} replicas of {each} each; hosts there: {len(hosts)}")
    replicas = make_replicas(
        cluster,
        partial(load, job.stored),
        ReplicaConfig(
            batch=job.results.batch,
            messages=job.options.messages,
            max_live=job.options.max_live,
            max_tools=job.max_tools,
            verbose=job.settings.verbose,
            watched=True,
            stall=job.settings.stall,
            locked=job.settings.locked,
            keeps_tokens=job.settings.keeps_tokens,
        ),
        count=count,
        resources=resources,
    )
    pool = Pool(replicas, job.totals.meter, job.view.say)
    try:
        await pool.start()
        unlimited = msgspec.structs.replace(job.options, max_live=None)  # each replica applies the limit itself
        await msgspec.structs.replace(job, options=unlimited).run_rows(pool.run_row, pool)
    finally:
        await pool.stop()


def load(stored: StoredFlow) -> CompiledFlow:
    """Compile the flow on a replica's host.

    The spec is the one that the batch began with; functions and environment variables are those of this host.
    """
    flow = stored.prepare(os.environ)
    calm_collector()
    return flow


def merge(job: BatchJob, options: RayOptions) -> None:
    """Merge the shards of the results into one file."""
    job.view.progress("merging the results")
    job.view.say(f"all results, in the rows' order: {merge_shards(options.folder, options.format, job.samples)}")
