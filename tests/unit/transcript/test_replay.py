"""The current spec is compared with a recorded run; the first divergence is reported."""

from collections.abc import Sequence

import pytest

from flowrun.core.graph import Graph
from flowrun.errors import Failure
from flowrun.transcript import Divergence, render_divergence, replay
from flowrun.transcript.replay import Difference
from tests.flows import ADD, AGENT, graph_of
from tests.unit.transcript.recording import NOON, Recording, World, calls, said
from tests.unit.transcript.runs import FAMILY, RETRY, REVIEW, RUNS, answered, caught, family, retried

ASKED = {"question": "2 + 3?"}


def agent_run(*, add: object = 5) -> Recording:
    world = World(
        replies=[calls(("add", '{"a": 2, "b": 3}'), seconds=0.75), said("5")],
        functions={"tools.numbers:add": (0.25, add)},
    )
    return Recording(graph_of(ADD, AGENT), world, ASKED)


def against(recording: Recording, new: Graph) -> Divergence | None:
    return replay(recording.graph, new, recording.recorded, recording.events)


def changed(text: str, *changes: tuple[str, str]) -> str:
    """Return a spec's text with changes, each of which must change the text."""
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize("name", RUNS)
def test_the_same_spec_goes_the_same_way(name: str) -> None:
    recording = RUNS[name]()
    assert against(recording, recording.graph) is None


@pytest.mark.parametrize(
    ("old", "new", "seq", "differences"),
    [
        pytest.param(
            'content: "{{ inputs.question }}"',
            'content: "Compute: {{ inputs.question }}"',
            0,
            [
                Difference(
                    what="prompt",
                    old=1,
                    new=1,
                    lines=("@@ -1 +1 @@", "-user: 2 + 3?", "+user: Compute: 2 + 3?"),
                )
            ],
            id="another prompt",
        ),
        pytest.param(
            "    type: chat\n",
            "    type: chat\n    sampling: {temperature: 0.5}\n",
            0,
            [Difference(what="sampling", old={}, new={"temperature": 0.5})],
            id="other sampling",
        ),
        pytest.param(
            "    type: chat\n",
            "    type: chat\n    tool_choice: required\n",
            0,
            [Difference(what="tool_choice", old="auto", new="required")],
            id="another tool choice",
        ),
        pytest.param(
            "{when: reply.tool_calls, to: act}",
            "{when: reply.tool_calls | length > 1, to: act}",
            1,
            [Difference(what="path", old=["act"], new=["done"])],
            id="another state",
        ),
        pytest.param(
            "act: {type: tools, next: ask}",
            "act: {type: tools, next: done}",
            3,
            [Difference(what="path", old=["ask"], new=["done"])],
            id="another route",
        ),
        pytest.param(
            "answer:",
            "sum:",
            4,
            [Difference(what="output", old={"answer": "5"}, new={"sum": "5"})],
            id="another output",
        ),
    ],
)
def test_an_agent_that_changed(old: str, new: str, seq: int, differences: Sequence[Difference]) -> None:
    divergence = against(agent_run(), graph_of(ADD, changed(AGENT, (old, new))))
    assert divergence is not None
    assert (divergence.seq, list(divergence.differences)) == (seq, list(differences))


def test_a_divergence_has_its_place() -> None:
    divergence = against(agent_run(), graph_of(ADD, changed(AGENT, ("next: ask", "next: done"))))
    assert divergence == Divergence(
        run="r1",
        seq=3,
        at=NOON + 1,
        event="Returned",
        state="act",
        step=2,
        differences=(Difference(what="path", old=["ask"], new=["done"]),),
    )


def test_a_tool_with_other_parameters_is_declared_otherwise() -> None:
    divergence = against(agent_run(), graph_of(changed(ADD, ("Add two", "Add up two")), AGENT))
    assert divergence is not None
    (difference,) = divergence.differences
    assert difference.what == "tools"
    assert '-    "description": "Add two integers.",' in difference.lines
    assert '+    "description": "Add up two integers.",' in difference.lines


def test_a_call_with_other_arguments() -> None:
    new = graph_of(
        changed(REVIEW, ('with: {amount: "{{ inputs.amount }}"}', 'with: {amount: "{{ inputs.amount * 2 }}"}'))
    )
    divergence = against(answered(), new)
    assert divergence is not None
    assert divergence.differences == (Difference(what="arguments", old={"amount": 150}, new={"amount": 300}),)


def test_an_answer_that_is_not_awaited_any_more() -> None:
    stricter = changed(
        REVIEW, ("{ok: {type: boolean}}", "{ok: {type: boolean}, by: {type: string}}"), ("[ok]", "[ok, by]")
    )
    asked_alike = against(answered(), graph_of(stricter))
    assert asked_alike is not None
    assert [difference.what for difference in asked_alike.differences] == ["schema"]
    without_timeout = changed(REVIEW, ("    timeout: 7d\n", ""))
    divergence = against(RUNS["unanswered"](), graph_of(without_timeout))
    assert divergence is not None
    assert (divergence.event, divergence.differences) == (
        "TimedOut",
        (Difference(what="event", old="taken", new="not awaited"),),
    )


def test_another_attempt_where_there_was_none() -> None:
    divergence = against(retried(), graph_of(changed(RETRY, ("max_attempts: 2", "max_attempts: 1"))))
    assert divergence is not None
    assert divergence.differences == (Difference(what="path", old=[], new=["sorry"]),)
    slower = against(caught(), graph_of(changed(RETRY, ("delay: 2s", "delay: 3s"))))
    assert slower is not None
    assert slower.differences == (Difference(what="pause", old=2.0, new=3.0),)


def test_only_the_name_of_a_failure_counts() -> None:
    recording = Recording(
        graph_of(RETRY), World(replies=[(0.1, Failure(name="model.invalid_call", message="[")), said("")])
    )
    assert against(recording, graph_of(RETRY)) is None


def test_inputs_that_are_new_get_their_defaults() -> None:
    more = changed(AGENT, ("inputs: {question: {type: string}}", "inputs: {question: {type: string}, n: {default: 1}}"))
    assert against(agent_run(), graph_of(ADD, more)) is None


def test_inputs_that_are_gone_are_refused() -> None:
    fewer = changed(REVIEW, ("amount: {type: number}", "sum: {type: number}"), ("inputs.amount", "inputs.sum"))
    divergence = against(answered(), graph_of(fewer))
    assert divergence is not None
    assert (divergence.seq, divergence.state, divergence.differences[0].what) == (0, "", "path")


# --- children -----------------------------------------------------------------------------------------------------


def test_a_child_differs_before_its_parent_does() -> None:
    new = graph_of(changed(FAMILY, ("You are the {{", "You are a {{")))
    divergence = against(family(), new)
    assert divergence is not None
    assert (divergence.run, divergence.seq, [one.what for one in divergence.differences]) == ("r1.2.0", 0, ["prompt"])


def test_a_child_that_is_started_otherwise_is_its_parents_divergence() -> None:
    new = graph_of(changed(FAMILY, ("with: {role: chair}", "with: {role: judge}")))
    divergence = against(family(), new)
    assert divergence is not None
    assert (divergence.run, divergence.differences) == (
        "r1",
        (Difference(what="inputs", old={"role": "chair"}, new={"role": "judge"}),),
    )


# --- as text ------------------------------------------------------------------------------------------------------


def test_as_text() -> None:
    new = changed(AGENT, ('content: "{{ inputs.question }}"', 'content: "Compute: {{ inputs.question }}"'))
    assert render_divergence(against(agent_run(), graph_of(ADD, new))) == (
        "run r1 differs at the start (event 0, Started)\n"
        "  prompt:\n"
        "    @@ -1 +1 @@\n"
        "    -user: 2 + 3?\n"
        "    +user: Compute: 2 + 3?\n"
    )
    assert render_divergence(against(agent_run(), graph_of(ADD, changed(AGENT, ("next: ask", "next: done"))))) == (
        'run r1 differs after step 2, state act (event 3, Returned)\n  path: ["ask"] now ["done"]\n'
    )
    assert render_divergence(None) == "today's spec does the same, to the last recorded event\n"


def test_a_terminal_gets_nothing_to_obey() -> None:
    new = graph_of(ADD, changed(AGENT, ('"{{ reply.content }}"', '"\\x1b[31m{{ reply.content }}"')))
    assert "\x1b" not in render_divergence(against(agent_run(), new))
