"""The resources that replicas request from Ray, from the engine arguments of the spec's models."""

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flowrun.batch.distributed.ray_cluster import Cluster, Host, Needs, needs_of
from flowrun.errors import UsageError
from flowrun.runtime.project import BoundModel, CompiledFlow
from flowrun.spec.model import Model

GPUS = [Host(32, 8), Host(32, 8), Host(8, 0)]
CPUS = [Host(16, 0), Host(8, 0)]


def flow_of(*models: Model) -> CompiledFlow:
    fields: Any = dict.fromkeys(CompiledFlow.__struct_fields__)
    bound = {str(number): BoundModel(model, Path()) for number, model in enumerate(models)}
    return msgspec.structs.replace(CompiledFlow(**fields), models=bound, secrets={})


def vllm(**engine: Any) -> Model:
    return Model(name="m", engine=engine)


@pytest.mark.parametrize(
    ("models", "gpus"),
    [
        pytest.param([vllm()], 1, id="one"),
        pytest.param([vllm(tensor_parallel_size=2, pipeline_parallel_size=2)], 4, id="parallel"),
        pytest.param([vllm(tensor_parallel_size=2, data_parallel_size=4)], 8, id="data parallel"),
        pytest.param([vllm(tensor_parallel_size=2), vllm()], 2, id="two models share"),
        pytest.param([vllm(tensor_parallel_size=16, distributed_executor_backend="ray")], 0, id="vLLM asks Ray"),
        pytest.param([Model(backend="openai", name="m")], 0, id="a server"),
    ],
)
def test_gpus(models: list[Model], gpus: int) -> None:
    assert needs_of(flow_of(*models)).gpus == gpus


@pytest.mark.parametrize(
    ("needs", "hosts", "count", "resources"),
    [
        pytest.param(Needs(gpus=2, in_process=True), GPUS, 8, {"num_cpus": 1, "num_gpus": 2}, id="GPUs"),
        pytest.param(Needs(gpus=3, in_process=True), GPUS, 4, {"num_cpus": 1, "num_gpus": 3}, id="GPUs of one host"),
        pytest.param(Needs(gpus=16, in_process=True), GPUS, 1, {"num_cpus": 1, "num_gpus": 16}, id="too many GPUs"),
        pytest.param(Needs(gpus=1, in_process=True), CPUS, 2, {"num_cpus": 8, "num_gpus": 0}, id="an engine a host"),
        pytest.param(Needs(gpus=0, in_process=False), CPUS, 24, {"num_cpus": 1, "num_gpus": 0}, id="no engine"),
        pytest.param(Needs(gpus=1, in_process=True), [Host(1, 0)], 1, {"num_cpus": 1, "num_gpus": 0}, id="one CPU"),
    ],
)
def test_number_and_resources_of_replicas(
    needs: Needs, hosts: list[Host], count: int, resources: dict[str, int]
) -> None:
    assert needs.count(hosts) == count
    assert needs.resources(hosts, count) == resources


def test_more_engines_than_hosts_share_the_processors() -> None:
    assert Needs(gpus=1, in_process=True).resources(CPUS, 4) == {"num_cpus": 4, "num_gpus": 0}
    assert Needs(gpus=1, in_process=True).resources([Host(2, 0)], 2) == {"num_cpus": 1, "num_gpus": 0}


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r'pip install "\.\[ray\]"'), Cluster("local", verbose=False, say=print):
        pass
