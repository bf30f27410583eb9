"""Events as text: all of them are restored unchanged, and large texts are stored once."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from flowrun.core.events import (
    Answered,
    CallStarted,
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
from flowrun.core.messages import Reply, ToolCall, Usage
from flowrun.errors import Failure, StoreError
from flowrun.journal import SqliteJournal
from flowrun.journal.bodies import LARGE, Body, decode, encode, split
from flowrun.spec.model import JSON
from tests.unit.journal.sample_runs import append, begin, count, events, new_run, started

VALUE: JSON = {"text": 'é\x00\u2028"\\', "numbers": [0, -(2**63), 2**64 - 1, 1e300, 0.1], "none": None, "empty": {}}
CALLS = (ToolCall(id="call00001", name="look", arguments='{"city": "Dallas"}'),)

EVENTS: list[Event] = [
    Started(run="r", inputs=VALUE, max_rounds=3, max_steps=9),
    Replied(step=1, reply=Reply(content="c", reasoning="r", tool_calls=CALLS, usage=Usage(prompt_tokens=7), text="t")),
    Replied(step=1, reply=Reply(invalid_call="no JSON", finish_reason="length")),
    CallStarted(step=2, index=3),
    Returned(step=2, index=3, value=VALUE),
    Failed(step=2, index=1, failure=Failure(name="tool.failed", message="it broke", state="ask")),
    ChildEnded(step=3, outcome=Outcome(status="succeeded", output=VALUE), rounds=2, steps=5),
    ChildEnded(step=3, outcome=Outcome(status="failed", error=Failure(name="flow.failed", message="no"))),
    Answered(step=4, value=[VALUE]),
    Answered(step=4, index=2, value=[VALUE]),
    Slept(step=5),
    TimedOut(),
    TimedOut(step=6),
    Cancelled(reason="enough"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_every_event_is_restored_unchanged(event: Event) -> None:
    assert decode(encode(event), None) == event


def test_an_answer_of_before_there_were_several_questions_is_that_of_the_only_one() -> None:
    assert decode('{"kind":"Answered","step":4,"value":true}', None) == Answered(step=4, index=0, value=True)
    assert encode(Answered(step=4, value=True)) == '{"kind":"Answered","step":4,"value":true}'


def test_every_kind_of_event_is_tested() -> None:
    kinds = msgspec.inspect.type_info(Event)
    assert isinstance(kinds, msgspec.inspect.UnionType)
    tested = {type(event) for event in EVENTS}
    known = {kind.cls for kind in kinds.types if isinstance(kind, msgspec.inspect.StructType)}
    assert tested == known


def test_an_event_of_a_newer_flowrun_is_reported() -> None:
    with pytest.raises(StoreError, match="an event of the journal cannot be read: Invalid value 'Dreamt'"):
        decode('{"kind":"Dreamt"}', None)


def test_large_texts_are_stored_once(path: Path) -> None:
    large, other = "x" * 100_000, "é" * (LARGE // 2 + 1)
    first = Returned(step=1, value={"page": large, "tail": "\x00 like a mark", "small": "y"})
    second = Replied(step=2, reply=Reply(content=large, text=other))

    async def write() -> None:
        async with SqliteJournal(path) as journal:
            await begin(journal, new_run("r"))
            await begin(journal, new_run("s"))
            await append(journal, "r", [first, second])
            await append(journal, "s", [second])

    asyncio.run(write())
    assert events(path, "r") == [started("r"), first, second]
    assert events(path, "s") == [started("s"), second]
    assert path.stat().st_size < 2 * len(large)
    assert count(path, "large_values") == 3


@pytest.mark.parametrize(
    "value",
    ["x" * LARGE, ["x" * 100] * 100, "\x00" * 100, "é" * (LARGE // 2)],
    ids=["just no larger", "large only in all", "marks in a small one", "just no larger in bytes"],
)
def test_smaller_texts_stay_where_they_are(value: object) -> None:
    text = encode(Returned(step=1, value=value))
    assert split(text) == Body(text, {})
