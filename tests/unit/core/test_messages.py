"""Logs behave as tuples, and the newest version shares its storage with the older ones."""

import math
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrun.core.messages import Log, Message, Reply, Role, Tokens, ToolCall, as_openai, has_open_calls, last_calls

ITEMS = st.lists(st.integers(), max_size=3)


@given(ITEMS, st.lists(st.tuples(st.integers(0, 99), st.booleans(), ITEMS), max_size=40))
def test_every_version_is_as_a_tuple_of_its_own(items: list[int], additions: list[tuple[int, bool, list[int]]]) -> None:
    """Items are appended to any version, the newest or not."""
    versions = [(Log(items), tuple(items))]
    for which, one_by_one, more in additions:
        log, plain = versions[which % len(versions)]
        if one_by_one:
            for item in more:
                log = log.appended(item)
        else:
            log = log.extended(more)
        versions.append((log, (*plain, *more)))
    for log, plain in versions:
        assert (tuple(log), len(log), log.last) == (plain, len(plain), plain[-1] if plain else None)
        assert ([log[i] for i in range(-len(plain), len(plain))], log[1:]) == ([*plain, *plain], plain[1:])
        for _, other in versions:
            assert (log == other) == (plain == other)
        with pytest.raises(IndexError):
            log[len(plain)]


def extended(log: Log[Any], item: Any) -> Log[Any]:
    return log.extended([item])


@pytest.mark.parametrize("append", [Log.appended, extended], ids=["appended", "extended"])
def test_what_is_appended_to_the_newest_version_copies_nothing(append: Callable[[Log[Any], Any], Log[Any]]) -> None:
    item = object()
    versions = [Log([item])]
    before = sys.getrefcount(item)
    for number in range(500):
        versions.append(append(versions[-1], number))
    assert sys.getrefcount(item) == before
    assert [list(log) for log in versions[:3]] == [[item], [item, 0], [item, 0, 1]]


def test_texts_of_a_model_are_made_valid_unicode() -> None:
    mark = "\N{REPLACEMENT CHARACTER}"
    call = ToolCall(id="a\ud800", name="b\udfff", arguments='{"c": "é\ud800"}')
    assert (call.id, call.name, call.arguments) == (f"a{mark}", f"b{mark}", '{"c": "é\\ud800"}')
    assert ToolCall(id="é", name="ü", arguments="{}").name == "ü"
    fields = ("content", "reasoning", "finish_reason", "invalid_call", "refusal", "text")
    for field in fields:
        reply = Reply(**{"content": "x", field: f"{field} \ud800"})  # type: ignore[arg-type]
        assert getattr(reply, field) == f"{field} {mark}"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        pytest.param(Message(role="user", content="Hi."), {"role": "user", "content": "Hi."}, id="a text"),
        pytest.param(
            Message(
                role="assistant",
                reasoning="Hm.",
                tool_calls=(ToolCall(id="c1", name="add", arguments='{"a": 1}'),),
                tokens=Tokens(vocabulary=1, ids=b"", end=0, digest=0),
            ),
            {
                "role": "assistant",
                "content": None,
                "reasoning": "Hm.",
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}},
                ],
            },
            id="a call",
        ),
        pytest.param(
            Message(role="tool", content="3", tool_call_id="c1", name="add"),
            {"role": "tool", "content": "3", "tool_call_id": "c1", "name": "add"},
            id="a result",
        ),
    ],
)
def test_messages_in_the_form_of_openai(message: Message, expected: dict[str, Any]) -> None:
    assert as_openai(message) == expected


A, B = (ToolCall(id=name, name="add", arguments="{}") for name in "ab")


@pytest.mark.parametrize(
    ("answers", "answered", "waiting"),
    [
        pytest.param("", set(), (A, B), id="none"),
        pytest.param("a", {0}, (B,), id="the first"),
        pytest.param("b", {1}, (A,), id="the second"),
        pytest.param("ab", {0, 1}, (), id="all"),
        pytest.param("ba", {0, 1}, (), id="all, in another order"),
        pytest.param("ac", {0}, (B,), id="one that is no answer"),
    ],
)
def test_the_last_calls_are_answered_by_the_tool_messages_after_them(
    answers: str, answered: set[int], waiting: tuple[ToolCall, ...]
) -> None:
    asked = Message(role="assistant", tool_calls=(A, B))
    thread = Log([Message(role="user"), asked, *(Message(role="tool", tool_call_id=id_) for id_ in answers)])
    last = last_calls(thread)
    assert (last.at, last.calls, set(last.answered), last.open) == (1, (A, B), answered, waiting)
    if "c" not in answers:  # no thread of a run has such a message
        assert has_open_calls(thread) == bool(waiting)


@pytest.mark.parametrize("roles", [(), ("user",), ("system", "user"), ("user", "assistant"), ("tool",)])
def test_a_thread_without_calls_has_no_open_ones(roles: tuple[Role, ...]) -> None:
    assert not has_open_calls(Log(Message(role=role, tool_call_id="a") for role in roles))


@pytest.mark.parametrize(
    ("reply", "shown"),
    [
        pytest.param(Reply(content="Hi"), "Hi", id="a text"),
        pytest.param(Reply(), "", id="nothing"),
        pytest.param(Reply(probabilities={"low": 0.25, "high": 0.75}), "high 0.750, low 0.250", id="probabilities"),
        pytest.param(Reply(probabilities={"a": 1.0, "b": 0.0}, mass=0.5), "a 1.000, b 0.000 (mass 0.500)", id="mass"),
    ],
)
def test_what_a_reply_says_to_people(reply: Reply, shown: str) -> None:
    assert reply.shown == shown


def test_a_reply_holds_no_number_that_json_lacks() -> None:
    reply = Reply(probabilities={"a": math.nan, "b": math.inf, "c": 0.5}, mass=math.nan)
    assert (reply.probabilities, reply.mass) == ({"c": 0.5}, 0.0)
