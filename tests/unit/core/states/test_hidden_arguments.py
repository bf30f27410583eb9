"""Arguments that the spec gives: in the call, not in the declaration, the thread or the results."""

import pytest

from flowrun.core.events import AskModel, CallFunction, Replied, Returned, Started
from flowrun.core.machine import fold
from flowrun.core.messages import Reply, ToolCall
from tests.flows import graph_of

TOOL = """\
inputs: {customer: {}}
tools:
  refund:
    entrypoint: shop:refund
    parameters:
      type: object
      properties: {amount: {type: number}, customer: {type: string}}
      required: [amount, customer]
    with: {customer: "{{ inputs.customer }}"}
"""
FLOW = """\
messages: [{role: user, content: hi}]
states:
  ask: {type: chat, routes: [{when: reply.tool_calls, to: act}, {to: done}]}
  act: {type: tools, next: ask}
  done: {type: end, output: "{{ results }}"}
"""
GRAPH = graph_of(TOOL, FLOW)
BEGIN = Started(run="r", inputs={"customer": "c7"})


def called(arguments: str) -> Replied:
    return Replied(step=1, reply=Reply(tool_calls=(ToolCall(id="c", name="refund", arguments=arguments),)))


def test_the_model_does_not_see_them() -> None:
    (ask,) = fold(GRAPH, [BEGIN]).effects
    assert isinstance(ask, AskModel)
    assert ask.tools[0].parameters == {
        "type": "object",
        "properties": {"amount": {"type": "number"}},
        "required": ["amount"],
    }


def test_the_call_has_them_and_the_results_do_not() -> None:
    (call,) = fold(GRAPH, [BEGIN, called('{"amount": 5}')]).effects
    assert isinstance(call, CallFunction)
    assert call.arguments == {"amount": 5, "customer": "c7"}
    run = fold(GRAPH, [BEGIN, called('{"amount": 5}'), Returned(step=2, value="ok")]).run
    assert run.results is not None
    assert [result["arguments"] for result in run.results.data()] == [{"amount": 5}]
    assert "c7" not in str(list(run.threads["main"]))


@pytest.mark.parametrize("given", ['"c7"', '"c8"', "null"])
def test_a_model_cannot_give_one(given: str) -> None:
    run, effects, _ = fold(GRAPH, [BEGIN, called(f'{{"amount": 5, "customer": {given}}}')])
    assert [type(effect) for effect in effects] == [AskModel]
    assert run.results is not None
    assert [result["error"] for result in run.results.data()] == [
        {
            "name": "tool.invalid_arguments",
            "message": "Additional properties are not allowed ('customer' was unexpected)",
            "type": None,
        }
    ]


def test_one_that_does_not_match_fails_the_state() -> None:
    run = fold(GRAPH, [Started(run="r", inputs={"customer": 7}), called('{"amount": 5}')]).run
    assert run.outcome is not None
    assert run.outcome.error is not None
    assert (run.outcome.error.name, run.outcome.error.state) == ("template.failed", "act")
    assert run.outcome.error.message == (
        "the arguments that the spec gives to 'refund' do not match: customer: 7 is not of type \"string\""
    )
