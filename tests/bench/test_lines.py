"""The programs in LangGraph do what the specs do: on a spec's tests both end alike, and their models read the same."""

import asyncio
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

import pytest

import flowrun
from flowrun.core.messages import as_openai
from flowrun.spec.yaml.reader import read_document
from flowrun.testing import ScriptedModel
from tests.bench.lines import FLOWS, SPECS

OTHERWISE = {
    "the order is not the model's to choose": "LangGraph asks about it as the model wrote it, and drops the order",
    "nobody answers within a week": "an interrupt of LangGraph has no time limit",
    "finds the query among other calls": "LangGraph puts the rows between the results of the calls",
    "what is no conversation is no input": "a run of LangGraph does not fail: it raises",
}
"""The tests of the specs that do not hold for LangGraph, and why."""

Requests = list[tuple[dict[str, str], list[dict[str, Any]]]]
"""For each request the tools, by name with their descriptions, and the messages in the form of the OpenAI chat API."""


def cases() -> Iterable[Any]:
    for name in FLOWS:
        file: Any = read_document((SPECS / f"{name}.test.yaml").read_bytes(), name).value
        for test in file["tests"]:
            marks = [pytest.mark.skip(OTHERWISE[test["name"]])] if test["name"] in OTHERWISE else []
            yield pytest.param(name, test, marks=marks, id=f"{name}: {test['name']}")


class InOrder:
    """Answers questions with what a test says, in order."""

    def __init__(self, answers: Iterable[Any]) -> None:
        self.left = list(answers)

    async def answer(self, request: flowrun.InputRequest) -> Any:
        if not self.left:
            raise flowrun.NoResponderError
        return self.left.pop(0)


async def run_spec(name: str, test: Mapping[str, Any], answers: list[Any]) -> tuple[flowrun.RunResult, Requests]:
    model = ScriptedModel(test["replies"])
    flow = flowrun.load(SPECS / f"{name}.yaml").with_model("default", model)
    async with flowrun.Session(human_input=InOrder(answers)) as session:
        result = await session.run(flow, test.get("inputs"))
    return result, list(map(read_request, model.requests))


def read_request(request: flowrun.AskModel) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Return a request; the question of a decision is a tool, as structured output has it, and not the last message."""
    messages: list[dict[str, Any]] = list(map(as_openai, request.messages))
    if request.labels:
        return {"Choice": messages[-1]["content"].partition("\n")[0]}, messages[:-1]
    return {tool.name: tool.description or "" for tool in request.tools}, messages


def in_common(requests: Requests) -> list[Any]:
    """Return what both sides word alike: not the results of tools, nor what a docstring says of arguments."""
    return [
        (
            {name: description.partition("\n")[0] for name, description in tools.items()},
            [(each["role"], "" if each["role"] == "tool" else each.get("content") or "") for each in messages],
        )
        for tools, messages in requests
    ]


@pytest.mark.parametrize(("name", "test"), list(cases()))
def test_a_program_in_langgraph_does_what_the_spec_does(name: str, test: Mapping[str, Any]) -> None:
    pytest.importorskip("langgraph_swarm", reason="LangGraph is not installed: docs/langgraph.md says how")
    converse = import_module("tests.bench.engines.langgraph_flows.converse").converse
    answers = [answer["value"] for answer in test.get("answers", ())]
    result, read = asyncio.run(run_spec(name, test, answers))
    inputs = dict(result.inputs)
    question = {"role": "user", "content": inputs.pop("message", None) or inputs.pop("question")}
    inputs["messages"] = [*inputs.pop("history", []), question]
    state, also_read = converse(name, inputs, test["replies"], answers)
    assert in_common(also_read) == in_common(read)
    assert ("__interrupt__" in state) == (result.status == "waiting")
    if result.status != "waiting":
        output = {"answer": state["messages"][-1].content} | state
        assert {key: output[key] for key in result.output} == result.output
        assert result.output == test["expect"].get("output", result.output)
