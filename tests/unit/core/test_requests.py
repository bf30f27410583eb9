"""What a model reads of a thread: ``system``, ``history`` and extra messages."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrun.core.conversations import faults_of_conversation
from flowrun.core.messages import Log, Message, ToolCall
from flowrun.core.requests import messages_of_request, window
from flowrun.spec.model import History, Window

ROLES = {"s": "system", "d": "developer", "u": "user", "a": "assistant", "t": "tool"}


def thread_of(letters: str) -> Log[Message]:
    """Return a thread, a message a letter; an assistant makes a call for each tool message behind it."""
    messages: list[Message] = []
    for at, letter in enumerate(letters):
        tools = len(letters[at + 1 :]) - len(letters[at + 1 :].lstrip("t"))
        calls = tuple(ToolCall(id=f"{at + 1 + n}", name="look", arguments="{}") for n in range(tools))
        messages.append(
            Message(
                role=ROLES[letter],  # type: ignore[arg-type]
                content=str(at),
                tool_calls=calls if letter == "a" else (),
                tool_call_id=str(at) if letter == "t" else None,
            )
        )
    return Log(messages)


def letters_of(messages: Sequence[Message]) -> str:
    return "".join(message.role[0] for message in messages)


def contents(messages: Sequence[Message]) -> list[str | None]:
    return [message.content for message in messages]


def test_the_thread_itself_is_read_when_nothing_else_is_asked_for() -> None:
    thread = thread_of("sua")
    assert messages_of_request(thread) is thread
    assert messages_of_request(thread, own=1, history="all", extra=()) is thread


@pytest.mark.parametrize(
    ("letters", "history", "own", "read"),
    [
        pytest.param("su", "all", 1, ["S", "1"], id="in place of the system message"),
        pytest.param("sdu", "all", 1, ["S", "2"], id="in place of all leading ones"),
        pytest.param("u", "all", 1, ["S", "0"], id="before the first message"),
        pytest.param("suas", "all", 1, ["S", "1", "2", "3"], id="a late one stays"),
        pytest.param("suau", "none", 1, ["S", "3"], id="without history"),
        pytest.param("", "none", 0, ["S"], id="alone"),
        pytest.param("suauaua", Window(last=1), 0, ["S", "1", "6"], id="before the head"),
    ],
)
def test_system_stands_in_place_of_the_leading_ones(letters: str, history: History, own: int, read: list[str]) -> None:
    assert contents(messages_of_request(thread_of(letters), own=own, system="S", history=history)) == read


@pytest.mark.parametrize(
    ("letters", "own", "read"),
    [
        pytest.param("suau", 1, ["3"], id="its message"),
        pytest.param("suausu", 2, ["4", "5"], id="all of its messages"),
        pytest.param("su", 0, [], id="no message of its own"),
    ],
)
def test_without_history_a_model_reads_the_state_s_own_messages(letters: str, own: int, read: list[str]) -> None:
    assert contents(messages_of_request(thread_of(letters), own=own, history="none")) == read


@pytest.mark.parametrize(
    ("letters", "last", "read"),
    [
        pytest.param("suau", 2, "suau", id="short"),
        pytest.param("su" + "auau", 2, "suauau", id="twice as many are left"),
        pytest.param("su" + "auaua", 2, "suaua", id="one more: back to an assistant's"),
        pytest.param("su" + "atata", 2, "suata", id="back to the call"),
        pytest.param("su" + "attttatttta", 2, "suatttta", id="back over all answers of a reply"),
        pytest.param("s" + "auaua", 1, "sa", id="the last one"),
        pytest.param("s" + "auaua", 2, "sua", id="a head without a user: a user's turn follows it"),
        pytest.param("su", 1, "su", id="nobody has replied"),
        pytest.param("", 1, "", id="empty"),
    ],
)
def test_the_head_and_the_last_messages_are_read(letters: str, last: int, read: str) -> None:
    thread = thread_of(letters)
    found = messages_of_request(thread, history=Window(last=last))
    assert letters_of(found) == read
    assert contents(found)[-1:] == contents(thread)[-1:]


def test_extra_messages_follow() -> None:
    thread = thread_of("sua")
    extra = [Message(role="assistant", content="x"), Message(role="user", content="y")]
    assert list(messages_of_request(thread, extra=extra)) == [*thread, *extra]
    assert thread == thread_of("sua")


turns = st.sampled_from(["u", "a", "at", "att", "atttt", "s", "uu"])
talks = st.tuples(st.text("sd", max_size=2), st.text("u", max_size=2), st.lists(turns, max_size=30)).map(
    lambda parts: parts[0] + parts[1] + "".join(parts[2])
)
lasts = st.integers(min_value=1, max_value=6)


@given(talks, lasts)
def test_laws_of_a_cut(letters: str, last: int) -> None:
    thread = thread_of(letters)
    head, start = window(thread, last)
    read = messages_of_request(thread, history=Window(last=last))
    assert list(read) == [*thread[:head], *thread[start:]]
    assert all(message.role != "assistant" for message in thread[:head])
    assert len(thread) - start >= min(last, len(thread) - head)
    assert not list(faults_of_conversation(read))
    if start > head:
        assert thread[start].role in ("assistant", "user")
        assert (thread[head - 1].role, thread[start].role) != ("user", "user") or head == 0


@given(talks, lasts)
def test_a_cut_only_moves_on_and_seldom(letters: str, last: int) -> None:
    cuts = [window(thread_of(letters[:length]), last) for length in range(len(letters) + 1)]
    starts = [start for head, start in cuts if start > head]
    assert starts == sorted(starts)
    moves = len(set(starts))
    assert moves <= max(len(letters) - last, 0) // (last + 1)


@given(talks, lasts)
def test_between_two_cuts_a_prompt_extends_the_one_before(letters: str, last: int) -> None:
    before: list[Message] = []
    cut = (-1, -1)
    for length in range(len(letters) + 1):
        thread = thread_of(letters)[:length]
        now = window(Log(thread), last)
        read = list(messages_of_request(Log(thread), history=Window(last=last)))
        if now[1] == cut[1] and now[0] == cut[0]:
            assert read[: len(before)] == before
        before, cut = read, now
