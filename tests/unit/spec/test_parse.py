"""Plain data becomes a ``Spec``: shorthands are expanded, durations are seconds, defaults are filled in."""

import pytest

from flowrun.errors import SpecError
from flowrun.spec import parse_text
from flowrun.spec.model import (
    ChatState,
    EndState,
    Limits,
    MessageTemplate,
    Model,
    Retry,
    Route,
    RouteState,
    Seconds,
    Size,
    Spec,
    ToolsState,
)
from flowrun.spec.parse import parse_duration, parse_size
from tests.unit.spec.specs import reported, spec_text


def test_a_flow_without_states_is_chat_and_tools_until_a_reply_without_calls() -> None:
    assert parse_text(spec_text("model: {name: m}\nmessages: [{role: user, content: hi}]\n")).spec == Spec(
        flowrun="v1",
        name="test",
        version="1.0.0",
        models={"default": Model(name="m")},
        threads={"main": (MessageTemplate(role="user", content="hi"),)},
        start="ask",
        states={
            "ask": ChatState(routes=(Route(when="reply.tool_calls", to="use_tools"), Route(to="done"))),
            "use_tools": ToolsState(routes=(Route(to="ask"),)),
            "done": EndState(output={"answer": "{{ reply.content }}"}),
        },
    )


def test_shorthands_become_entries_of_the_keys_that_they_are_short_for() -> None:
    spec = parse_text(
        spec_text(
            """\
            model: {name: a}
            models: {other: {name: b}}
            messages: []
            threads: {critic: []}
            states:
              first: {type: route, next: last}
              last: {type: end}
            """
        )
    ).spec
    assert spec == Spec(
        flowrun="v1",
        name="test",
        version="1.0.0",
        models={"other": Model(name="b"), "default": Model(name="a")},
        threads={"critic": (), "main": ()},
        start="first",
        states={"first": RouteState(routes=(Route(to="last"),)), "last": EndState()},
    )


def test_local_flows_are_specs_with_their_key_as_name() -> None:
    spec = parse_text(spec_text("flows: {a: {flows: {b: {limits: {max_rounds: 2}}}}}\n")).spec
    inner = spec.flows["a"].flows["b"]
    assert (inner.name, inner.version, inner.start, inner.limits) == ("b", "1.0.0", "ask", Limits(max_rounds=2))


@pytest.mark.parametrize(
    ("written", "seconds"),
    [(0, 0), (1.5, 1.5), ("500ms", 0.5), ("10s", 10), ("1.5m", 90), ("2h", 7200), ("1d", 86400), ("0s", 0)],
)
def test_durations_are_seconds(written: float | str, seconds: float) -> None:
    parsed = parse_duration(written)
    assert (type(parsed), parsed) == (Seconds, seconds)


@pytest.mark.parametrize("written", ["", "5", "5 s", "-5s", "5y", "s", "1e3s"])
def test_what_is_no_duration_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="is no duration: write a number of seconds"):
        parse_duration(written)


@pytest.mark.parametrize(
    ("written", "count"), [(1, 1), (500, 500), (8.0, 8), ("32KB", 32_000), ("1MB", 1_000_000), ("007KB", 7_000)]
)
def test_sizes_are_bytes(written: float | str, count: int) -> None:
    parsed = parse_size(written)
    assert (type(parsed), parsed) == (Size, count)
    spec = parse_text(
        spec_text(f"model: {{name: m}}\ntools: {{t: {{entrypoint: 'a:b', max_output: {written}}}}}\n")
    ).spec
    assert spec.tools["t"].max_output == count


@pytest.mark.parametrize("written", ["", "5", "5 KB", "-5KB", "1.5KB", "5kB", "5KiB", "KB", "1GB"])
def test_what_is_no_size_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="is no size: write a number of bytes"):
        parse_size(written)


def test_a_count_may_be_written_with_a_point() -> None:
    spec = parse_text(
        spec_text(
            "limits: {max_rounds: 8.0, timeout: 2.5}\n"
            "tools: {t: {entrypoint: 'a:b', max_concurrency: 4.0}}\n"
            "states: {a: {type: end}, b: {type: chat, retry: {max_attempts: 2.0, jitter: 0}, next: a}}\n"
        )
    ).spec
    state = spec.states["b"]
    assert spec.limits == Limits(max_rounds=8, timeout=Seconds(2.5))
    assert spec.tools["t"].max_concurrency == 4
    assert isinstance(state, ChatState)
    assert state.retry == Retry(max_attempts=2, jitter=0)


def test_what_only_the_types_object_to_is_an_issue_too() -> None:
    assert reported(spec_text('model: {name: m, timeout: "$${A}"}\n')) == [
        "1:1 FR203 models: models[...].timeout: '${A}' is no duration: write a number of seconds, or a number and "
        "ms, s, m, h or d; see 'flowrun schema' for what may stand here"
    ]


def test_the_error_holds_every_issue_sorted_by_place() -> None:
    with pytest.raises(SpecError) as caught:
        parse_text("a: 1\nb: 2\na: 3\n", "f")
    assert [str(issue.place) for issue in caught.value.issues] == ["f:1:1"] * 3 + ["f:2:1", "f:3:1"]
