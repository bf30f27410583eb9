"""A pause sleeps for a duration, or until a point in time; durations may be templates."""

from typing import Any

import pytest

from flowrun.core.events import Answered, Cancelled, Event, Failed, Outcome, Sleep, Slept, Started, TimedOut
from flowrun.core.machine import Run, fold
from flowrun.errors import Failure
from tests.flows import graph_of

NO = Failure(name="tool.failed", message="no")


def paused(given: str, value: Any = None, *events: Event) -> tuple[Run, tuple[Any, ...]]:
    flow = f"""
    inputs: {{v: {{default: null}}}}
    states:
      nap: {{type: pause, {given}, catch: [{{to: caught}}], next: done}}
      caught: {{type: end, output: "{{{{ error.name }}}}: {{{{ error.message }}}}"}}
      done: {{type: end, output: "{{{{ outputs.nap }}}}"}}
    """
    run, effects, _ = fold(graph_of(flow), [Started(run="r", inputs={"v": value}), *events])
    return run, effects


@pytest.mark.parametrize(
    ("given", "value", "sleep"),
    [
        pytest.param("for: 90", None, Sleep(step=1, seconds=90.0), id="a number"),
        pytest.param("for: 2h", None, Sleep(step=1, seconds=7200.0), id="a duration"),
        pytest.param("for: 0s", None, Sleep(step=1, seconds=0.0), id="no time"),
        pytest.param('for: "{{ inputs.v }}m"', 3, Sleep(step=1, seconds=180.0), id="a text"),
        pytest.param('for: "{{ inputs.v * 2 }}"', 1.5, Sleep(step=1, seconds=3.0), id="a native number"),
        pytest.param(
            'until: "1970-01-01T02:00:10+02:00"', None, Sleep(step=1, seconds=0.0, until=10.0), id="a point in time"
        ),
        pytest.param(
            'until: "{{ inputs.v }}"',
            "1970-01-02T00:00:00.5Z",
            Sleep(step=1, seconds=0.0, until=86400.5),
            id="of a template",
        ),
    ],
)
def test_a_run_sleeps(given: str, value: Any, sleep: Sleep) -> None:
    run, effects = paused(given, value)
    assert (run.status, run.state, effects) == ("sleeping", "nap", (sleep,))


@pytest.mark.parametrize(
    ("given", "value", "why"),
    [
        pytest.param('for: "{{ inputs.v }}"', "soon", "gave no duration", id="no duration"),
        pytest.param('for: "{{ inputs.v }}"', "30", "gave no duration", id="a text without a unit"),
        pytest.param('for: "{{ inputs.v }}"', -1, "-1, which is not a duration", id="negative"),
        pytest.param('for: "{{ inputs.v }}"', True, "True, which is not a duration", id="a boolean"),
        pytest.param('for: "{{ inputs.v }}"', None, "None, which is not a duration", id="null"),
        pytest.param('for: "{{ inputs.v }}"', 10**400, "which is not a duration", id="huge"),
        pytest.param('until: "{{ inputs.v }}"', "2030-01-31", "no point in time", id="a date"),
        pytest.param('until: "{{ inputs.v }}"', "2030-01-31T09:00:00", "no point in time", id="without its offset"),
        pytest.param('until: "{{ inputs.v }}"', "2030-02-31T09:00:00Z", "no point in time", id="no such day"),
        pytest.param('until: "{{ inputs.v }}"', 17, "no point in time", id="a number"),
        pytest.param('for: 1s, timeout: "{{ inputs.v }}"', 0, "not a duration above zero", id="a time limit of zero"),
    ],
)
def test_what_is_no_time_fails_by_name(given: str, value: Any, why: str) -> None:
    run, _ = paused(given, value)
    assert run.outcome is not None
    assert run.outcome.output.startswith("template.failed: ")
    assert why in run.outcome.output


def test_a_run_wakes_and_goes_on() -> None:
    run, effects = paused("for: 1h", None, Slept(step=1))
    assert (run.status, list(run.path), effects) == ("succeeded", ["nap", "done"], (Outcome(status="succeeded"),))


@pytest.mark.parametrize(
    ("event", "status", "output"),
    [
        pytest.param(Slept(step=2), "sleeping", None, id="another pause ends"),
        pytest.param(Answered(step=1, value=1), "sleeping", None, id="an answer"),
        pytest.param(Failed(step=1, failure=NO), "sleeping", None, id="a failure of nothing"),
        pytest.param(Cancelled(reason="enough"), "cancelled", None, id="cancelled"),
        pytest.param(
            TimedOut(step=1),
            "succeeded",
            "state.timeout: state 'nap' took longer than its timeout, 60 s",
            id="too long",
        ),
    ],
)
def test_what_comes_in_a_pause(event: Event, status: str, output: Any) -> None:
    run, _ = paused("for: 1h, timeout: 1m", None, event)
    assert (run.status, run.outcome and run.outcome.output) == (status, output)


# --- durations of other states ------------------------------------------------------------------------------------


def test_a_time_limit_is_rendered_when_the_state_is_entered_and_kept() -> None:
    graph = graph_of("""
    inputs: {v: {}}
    vars: {minutes: "{{ inputs.v }}"}
    states:
      first: {type: wait, prompt: A?, timeout: "{{ vars.minutes }}m", set: {minutes: 7}, next: second}
      second: {type: wait, prompt: B?, timeout: 30s, next: third}
      third: {type: wait, prompt: C?, timeout: "{{ vars.minutes }}m", next: done}
      done: {type: end}
    """)
    events: list[Event] = [Started(run="r", inputs={"v": 2})]
    limits = []
    for step in (1, 2, 3):
        run = fold(graph, events).run
        limits.append((run.state, graph.nodes[run.state].timeout_of(run)))
        events.append(Answered(step=step, value=1))
    assert limits == [("first", 120.0), ("second", 30.0), ("third", 420.0)]


def test_a_time_limit_that_could_not_be_rendered_is_rendered_by_the_next_attempt() -> None:
    graph = graph_of("""
    states:
      ask: {type: wait, prompt: A?, timeout: "{{ 60 // (run.attempt - 1) }}s", retry: {delay: 0s}, next: done}
      done: {type: end}
    """)
    run, effects, _ = fold(graph, [Started(run="r", inputs={})])
    assert effects == (Sleep(step=2, seconds=0.0, jitter=0.1),)
    run = fold(graph, [Started(run="r", inputs={}), Slept(step=2)]).run
    assert (run.status, graph.nodes["ask"].timeout_of(run)) == ("waiting", 60.0)


def test_the_pause_before_another_attempt_reads_the_error() -> None:
    graph = graph_of("""
    states:
      fetch: {type: call, entrypoint: "m:f", retry: {delay: "{{ error.message }}", jitter: 0}, next: done}
      done: {type: end}
    """)
    failed = Failed(step=1, failure=Failure(name="tool.failed", message="20s"))
    assert fold(graph, [Started(run="r", inputs={}), failed]).effects == (Sleep(step=2, seconds=20.0),)
