"""Each mistake is one issue in plain words with a remedy. The files in tests/cases/invalid have many more."""

import pytest

from tests.unit.spec.specs import reported, spec_text

STATE = "states: {a: {type: chat, next: a, %s}}\n"


@pytest.mark.parametrize(
    ("part", "issues"),
    [
        pytest.param(
            "modle: {name: m}\n",
            ["4:1 FR201 modle: 'modle' is not a property of a flow; did you mean 'model'?"],
            id="misspelt property",
        ),
        pytest.param(
            "max_rounds: 3\n",
            ["4:1 FR201 max_rounds: 'max_rounds' is not a property of a flow; did you mean 'limits.max_rounds'?"],
            id="property of a property",
        ),
        pytest.param(
            STATE % "status: failed",
            ["4:35 FR201 states.a.status: 'status' is not a property of a chat state; end states have it"],
            id="property of another state",
        ),
        pytest.param(
            STATE % "wibble: 1",
            [
                "4:35 FR201 states.a.wibble: 'wibble' is not a property of a chat state; the properties are: catch, "
                "description, history, messages, model, next, response_format, retry, routes, sampling, say, set, "
                "system, thread, timeout, tool_choice, tools, type"
            ],
            id="property of nothing",
        ),
        pytest.param(
            "tools: {t: {entrypont: 'a:b'}}\n",
            ["4:13 FR201 tools.t.entrypont: 'entrypont' is not a property of a tool; did you mean 'entrypoint'?"],
            id="misspelt and so missing",
        ),
        pytest.param(
            "tools: {t: {timeout: 5s}}\n",
            [
                "4:9 FR208 tools.t: a tool needs 'entrypoint' or 'result'; "
                "add 'entrypoint: tools.weather:get_current_weather'"
            ],
            id="missing",
        ),
        pytest.param(
            "states: {a: {typ: chat, next: a}}\n",
            ["4:10 FR202 states.a: a state needs 'type'; is 'typ' meant to be 'type'?"],
            id="missing, and something like it there",
        ),
        pytest.param(
            "states: {a: {type: chat, nxt: a}}\n",
            ["4:26 FR201 states.a.nxt: 'nxt' is not a property of a chat state; did you mean 'next'?"],
            id="a misspelt next",
        ),
        pytest.param(
            "limits: {max_rounds: '8'}\n",
            ["4:22 FR203 limits.max_rounds: max_rounds must be an integer, and is the text '8'; delete the quotes"],
            id="number in quotes",
        ),
        pytest.param(
            "description: 5\n",
            ["4:14 FR203 description: description must be a text, and is the number 5; put it in quotes"],
            id="number without quotes",
        ),
        pytest.param(
            STATE % "timeout: true",
            [
                "4:44 FR203 states.a.timeout: timeout must be a duration above zero (a number of seconds, or a number "
                "and ms, s, m, h or d; or a template), and is true; write it like 30s"
            ],
            id="no duration",
        ),
        pytest.param(
            STATE % "tools: [a, a]",
            ["4:42 FR207 states.a.tools: tools has the same item twice; delete one of them"],
            id="twice",
        ),
        pytest.param(
            STATE % "catch: [{errors: [tool.fail], to: a}]",
            [
                "4:53 FR204 states.a.catch[0].errors[0]: errors[0] must be an error's name, or a family of them such "
                "as tool.*, and is the text 'tool.fail'; did you mean 'tool.failed'?"
            ],
            id="unknown error",
        ),
        pytest.param(
            'name: "x\\n"\n',
            [
                "4:1 FR115 : the key 'name' is there already, in line 2; delete one of them",
                '4:7 FR210 name: "x\\n" does not match "^[A-Za-z0-9_][A-Za-z0-9_.-]*$"; '
                "see 'flowrun schema' for what may stand here",
            ],
            id="what only the compiled validator finds",
        ),
        pytest.param(
            "inputs: {a: {type: object, properties: {b: {items: {type: text}}}}}\n",
            [
                "4:59 FR204 inputs.a.properties.b.items.type: type must be one of string, integer, number, boolean, "
                "object, array, null, and is the text 'text'; write one of string, integer, number, boolean, object, "
                "array, null"
            ],
            id="deep in a JSON Schema",
        ),
        pytest.param(
            "x-shared: &s {type: chatt, next: a}\nstates: {a: *s, b: *s}\n",
            [
                "4:21 FR204 states.a.type: type must be one of chat, decide, tools, agent, call, route, flow, map, "
                "parallel, wait, pause, end, and is the text 'chatt'; did you mean 'chat'?"
            ],
            id="a mistake that aliases repeat",
        ),
        pytest.param("x-anything: [5, {a: b}]\n", [], id="keys that are ignored"),
    ],
)
def test_a_mistake_is_one_issue(part: str, issues: list[str]) -> None:
    assert reported(spec_text(part)) == issues
