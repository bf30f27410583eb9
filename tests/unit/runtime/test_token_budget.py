"""``limits.tokens`` of runs whose sub-flows run at once: all of them use up the same limits, also after a crash."""

import asyncio
from textwrap import indent

import pytest

from flowrun.backends.scripted import ScriptedBackend
from flowrun.core.events import AskModel, Recorded, Replied, Started
from flowrun.core.graph import Graph
from flowrun.core.machine import Run
from flowrun.core.messages import Reply, Usage
from flowrun.functions.python import PythonFunctions
from flowrun.runtime.runner import Runner
from flowrun.runtime.token_budget import NO_TOKENS, TokenBudget
from flowrun.spec.model import TokenLimits
from flowrun.testing.truncatable_journal import TruncatableJournal
from flowrun.transcript.replay import replay
from tests.flows import graph_of

CHILD = """\
flows:
  ask:
    inputs: {n: {type: integer}}
    messages: [{role: user, content: "{{ inputs.n }}"}]
    states:
      chat: {type: chat, routes: [{when: run.rounds < 10, to: chat}, {to: done}]}
      done: {type: end}
"""
"""Asks ten times, and each request uses 10 tokens."""


def map_of(flow: str, wide: int, limits: str) -> str:
    """Return the states and limits of a flow that runs a sub-flow for each item."""
    return f"""\
inputs: {{items: {{type: array}}}}
messages: [{{role: user, content: Go.}}]
states:
  each:
    type: map
    flow: "#{flow}"
    for_each: inputs.items
    as: n
    on_item_error: collect
    max_concurrency: {wide}
    next: done
  done: {{type: end, output: "{{{{ outputs.each }}}}"}}
limits: {{max_rounds: 1000{limits}}}
"""


def graph(total: int, wide: int = 8) -> Graph:
    return graph_of(map_of("ask", wide, f", tokens: {{total: {total}}}"), CHILD)


def runner(journal: TruncatableJournal | None = None) -> Runner:
    async def reply(request: AskModel) -> Reply:
        await asyncio.sleep(0)
        return Reply(content="Yes.", usage=Usage(prompt_tokens=7, completion_tokens=3))

    backend = ScriptedBackend.from_function(reply)
    return Runner(backends={"default": backend}, functions=PythonFunctions({}), journal=journal)


def tokens_of(run: Run) -> int:
    return run.usage.prompt_tokens + run.usage.completion_tokens


def used(graph: Graph, items: int) -> tuple[int, int]:
    """Return the tokens that a run used, and how many of its items failed."""
    run = asyncio.run(runner().run(graph, {"items": list(range(items))}, run_id="r")).run
    assert run.outcome is not None
    assert run.outcome.status == "succeeded"
    return tokens_of(run), sum(one["error"] is not None for one in run.outcome.output)


@pytest.mark.parametrize("wide", [1, 3, 8, 100])
def test_items_that_run_at_once_go_over_the_limit_by_one_request_each(wide: int) -> None:
    assert used(graph(100_000, wide), 20) == (2000, 0)
    tokens, failed = used(graph(500, wide), 20)
    assert 500 <= tokens <= 500 + 10 * wide
    assert failed >= 20 - 6


@pytest.mark.parametrize(("outer", "inner", "least"), [(600, 400, 600), (10_000, 100, 500), (150, 400, 150)])
def test_a_limit_holds_for_the_items_of_items(outer: int, inner: int, least: int) -> None:
    nested = """\
  inner:
    inputs: {n: {type: integer}}
    states:
      each: {type: map, flow: "#ask", for_each: "[1, 2, 3, 4]", as: n, on_item_error: collect, next: done}
      done: {type: end}
"""
    limits = f"    limits: {{max_rounds: 1000, tokens: {{total: {inner}}}}}\n"
    flow = graph_of(
        map_of("inner", 1, f", tokens: {{total: {outer}}}"), CHILD + nested + limits + indent(CHILD, "    ")
    )
    tokens, _ = used(flow, 5)
    assert least <= tokens <= least + 5 * 4 * 10


def test_runs_that_are_not_limited_record_nothing_of_it() -> None:
    journal = TruncatableJournal()
    flow = graph_of(map_of("ask", 4, ""), CHILD)
    asyncio.run(runner(journal).run(flow, {"items": [1, 2]}, run_id="r"))
    events = [one.event for run in ("r", "r.1.0", "r.1.1") for one in journal.records[run]]
    assert not any(isinstance(event, Replied) and event.tokens_left is not None for event in events)
    assert not any(isinstance(event, Started) and event.token_limits is not None for event in events)


def journal_of(total: int, items: int) -> TruncatableJournal:
    journal = TruncatableJournal()
    asyncio.run(runner(journal).run(graph(total), {"items": list(range(items))}, run_id="r"))
    return journal


COMPLETE = journal_of(150, 3)


@pytest.mark.parametrize("count", range(1, len(COMPLETE.order) + 1))
def test_wherever_it_crashes_the_limit_holds(count: int) -> None:
    journal = COMPLETE.cut(count)
    run = asyncio.run(runner(journal).resume(graph(150), "r")).run
    assert 150 <= tokens_of(run) <= 150 + 3 * 10


def test_a_replay_decides_as_the_run_did_and_sees_another_limit() -> None:
    children = {run: tuple(COMPLETE.records[run]) for run in ("r.1.0", "r.1.1", "r.1.2")}
    recorded: tuple[Recorded, ...] = tuple(COMPLETE.records["r"])
    assert replay(graph(150), graph(150), recorded, children) is None
    divergence = replay(graph(150), graph(100_000), recorded, children)
    assert divergence is not None
    assert divergence.run.startswith("r.1.")


def test_a_budget_counts_for_all_above() -> None:
    root = TokenBudget(None, TokenLimits(total=100), NO_TOKENS)
    child = TokenBudget(root, TokenLimits(prompt=60), Usage(prompt_tokens=10))
    other = TokenBudget(root, None, Usage(completion_tokens=5))
    assert (root.left_above(), root.left()) == (None, TokenLimits(total=85))
    assert child.left_above() == TokenLimits(total=85)
    assert child.left() == TokenLimits(prompt=50, total=85)
    other.add(Usage(prompt_tokens=200))
    assert child.left_above() == TokenLimits(total=0)
