"""What holds for any sequence of events whatever."""

from hypothesis import given
from hypothesis import strategies as st

from flowrun.core.events import (
    Answered,
    Cancelled,
    ChildEnded,
    Event,
    Failed,
    Outcome,
    Replied,
    Returned,
    Slept,
    Started,
    TimedOut,
)
from flowrun.core.machine import Run, advance, fold
from flowrun.core.messages import Reply, ToolCall
from flowrun.errors import FAILURES, Failure
from tests.flows import ADD, AGENT, graph_of

GRAPH = graph_of(
    ADD
    + AGENT.replace(
        "type: chat\n", "type: chat\n    timeout: 3s\n    retry: {max_attempts: 2}\n    catch: [{to: act}]\n"
    )
)

steps = st.integers(0, 8)
indexes = st.integers(0, 3)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
failures = st.builds(Failure, name=st.sampled_from(sorted(FAILURES)), message=st.text(max_size=5))
tool_calls = st.builds(
    ToolCall,
    id=st.sampled_from(["", "x"]),
    name=st.sampled_from(["add", "other"]),
    arguments=st.sampled_from(['{"a": 1, "b": 2}', "{", "", "NaN"]),
)
replies = st.builds(
    Reply,
    content=st.none() | st.text(max_size=5),
    tool_calls=st.lists(tool_calls, max_size=3).map(tuple),
    finish_reason=st.sampled_from(["stop", "length", "tool_calls"]),
    invalid_call=st.sampled_from([None, None, "broken"]),
)
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(Started, run=st.just("r"), inputs=st.sampled_from([{"question": "q"}, {}, {"question": 1}])),
    st.builds(Replied, step=steps, reply=replies),
    st.builds(Returned, step=steps, index=indexes, value=json_values),
    st.builds(Failed, step=steps, index=indexes, failure=failures),
    st.builds(ChildEnded, step=steps, index=indexes, outcome=st.just(Outcome(status="succeeded"))),
    st.builds(Answered, step=steps, value=json_values),
    st.builds(Slept, step=steps),
    st.builds(TimedOut, step=steps),
    st.builds(Cancelled, reason=st.text(max_size=3)),
)
sequences = st.lists(events, max_size=30).map(lambda rest: [Started(run="r", inputs={"question": "q"}), *rest])


@given(sequences)
def test_a_run_is_always_in_a_declared_state(sequence: list[Event]) -> None:
    run = Run()
    for event in sequence:
        run, effects, _ = advance(GRAPH, run, event)
        assert run.state in GRAPH.nodes
        assert run.rounds <= GRAPH.limits.max_rounds
        assert (run.outcome is not None) == (run.status != "running")
        assert all(getattr(effect, "step", run.step) == run.step for effect in effects)
        assert run.outcome is None or run.outcome.error is None or run.outcome.error.name in FAILURES


@given(sequences, st.integers(0, 30))
def test_a_run_is_the_fold_of_its_events(sequence: list[Event], cut: int) -> None:
    whole = fold(GRAPH, sequence)
    run = fold(GRAPH, sequence[:cut]).run
    for event in sequence[cut:]:
        run = advance(GRAPH, run, event).run
    assert run == whole.run


@given(sequences)
def test_an_earlier_run_is_not_changed_by_a_later_one(sequence: list[Event]) -> None:
    run = Run()
    runs = []
    for event in sequence:
        run = advance(GRAPH, run, event).run
        runs.append((run, [list(log) for log in run.threads.values()], list(run.path)))
    for kept, threads, path in runs:
        assert [list(log) for log in kept.threads.values()] == threads
        assert list(kept.path) == path


@given(st.lists(events, max_size=5).filter(lambda found: not any(isinstance(event, Started) for event in found)))
def test_nothing_happens_before_the_start(sequence: list[Event]) -> None:
    assert fold(GRAPH, sequence) == (Run(), (), ())
