"""A condition of a route has the same value or error, whether it reads the run or what templates see of it."""

from collections.abc import Callable

import pytest

from flowrun.core.events import Replied, Returned, Started
from flowrun.core.machine import Run, fold
from flowrun.core.messages import Reply, ToolCall
from flowrun.core.run import RunScope, compile_route_condition, is_about_calls
from flowrun.templates import TemplateError, compile_condition
from tests.flows import ADD, AGENT, graph_of

GRAPH = graph_of(ADD, AGENT.replace("{question: {type: string}}", "{question: {type: string}, deep: {}}"))
START = Started(run="r", inputs={"question": "", "deep": {"list": [], "text": "x", "number": 3}})
CALL = Replied(step=1, reply=Reply(tool_calls=(ToolCall(id="", name="add", arguments='{"a": 1, "b": 2}'),)))
RUNS = {
    "new": Run(),
    "started": fold(GRAPH, [START]).run,
    "called": fold(GRAPH, [START, CALL]).run,
    "returned": fold(GRAPH, [START, CALL, Returned(step=2, value=3)]).run,
    "replied": fold(GRAPH, [START, Replied(step=1, reply=Reply(content="Hi."))]).run,
}


def test_the_runs_have_what_the_conditions_read() -> None:
    assert [run.status for run in RUNS.values()] == ["new", "running", "running", "running", "succeeded"]
    assert [run.reply is not None for run in RUNS.values()] == [False, False, True, True, True]


def value_or_error(holds: Callable[[], bool]) -> bool | str:
    try:
        return holds()
    except TemplateError as error:
        return str(error)


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize(
    "text",
    [
        *(
            "reply",
            "reply.tool_calls",
            " reply.tool_calls ",
            "reply.content",
            "reply.parsed",
            "reply.usage.prompt_tokens",
        ),
        *("reply.nothing", "results", "results.first", "error.name", "nothing", "nothing.at.all", "true"),
        *("inputs.question", "inputs.deep.list", "inputs.deep.text", "inputs.deep.number", "inputs.deep.text.upper"),
        *("outputs.ask", "outputs.ask.tool_calls", "outputs.ask.content", "outputs.act", "run.attempt", "run.state"),
        *(
            "reply is calling('add')",
            ' reply is calling( "add" ) ',
            "reply is calling('sub')",
            "reply is not calling('add')",
        ),
        *("outputs.ask is calling('add')", "results is calling('add')", "inputs.deep is calling('add')"),
        *("not reply.tool_calls", "vars", "vars.x", "inputs.deep.number > 2"),
    ],
)
def test_a_condition_is_the_same_with_and_without_a_scope(text: str, run: Run) -> None:
    in_scope = compile_condition(text)
    without = compile_route_condition(text)
    assert value_or_error(lambda: without(run)) == value_or_error(lambda: in_scope(RunScope(run)))
    if is_about_calls(text) and run.reply is not None:
        assert isinstance(without(run), bool)
