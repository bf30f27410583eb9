"""What a model writes, as ``Session.stream`` yields it: without secrets, and with what is void said to be void."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

import flowrun
from flowrun.backends.scripted import ScriptedBackend
from flowrun.core.ports import OnText
from flowrun.errors import ModelError
from flowrun.testing import ScriptedModel
from tests.unit.api.api_flows import ASK_TO_ADD, agent, write

SECRET = "Sesame-open-Sesame"

ASK = """\
name: ask
secrets: [TOKEN]
model: {backend: scripted, name: replies.yaml}
messages: [{role: user, content: Well?}]
states:
  ask: {type: chat, ASK, next: done}
  done: {type: end, output: "{{ reply.content }}"}
"""

RACE = """\
name: race
model: {backend: scripted, name: replies.yaml}
flows:
  one:
    messages: [{role: user, content: Well?}]
    states: {say: {type: chat, next: e}, e: {type: end, output: "{{ reply.content }}"}}
  two:
    messages: [{role: user, content: Well?}]
    states: {say: {type: chat, next: e}, e: {type: end, output: "{{ reply.content }}"}}
states:
  race: {type: parallel, UNTIL branches: {a: {flow: "#one"}, b: {flow: "#two"}}, next: done}
  done: {type: end}
"""


class Writer(ScriptedBackend):
    """A model that writes its pieces, one at a time; None is the end of an attempt, a failure that of the reply."""

    def __init__(self, *replies: Sequence[str | ModelError | None]) -> None:
        super().__init__(())
        self._texts = list(replies)
        self.watched: list[bool] = []

    async def reply(self, request: flowrun.AskModel, *, on_text: OnText | None = None) -> flowrun.Reply:
        self.watched.append(on_text is not None)
        said = ""
        for piece in self._texts.pop(0):
            await asyncio.sleep(0)
            if isinstance(piece, ModelError):
                raise piece
            said = "" if piece is None else said + piece
            if on_text is not None:
                on_text(piece)
        return flowrun.Reply(content=said)


def events_of(flow: flowrun.Flow, inputs: Any = None, **options: Any) -> list[Any]:
    async def go() -> list[Any]:
        async with flowrun.Session(**options) as session, session.stream(flow, inputs, run_id="r") as stream:
            return [event async for event in stream]

    return asyncio.run(go())


def texts_of(events: Sequence[Any]) -> list[Any]:
    """Return the texts with their run, state and step; None for what makes them void."""
    kinds = (flowrun.TextDelta, flowrun.TextDiscarded)
    found = [event for event in events if isinstance(event, kinds)]
    return [(event.run, event.state, event.step, getattr(event, "text", None)) for event in found]


def asking(folder: Path, model: Any, more: str = "thread: main", environ: Any = None) -> flowrun.Flow:
    spec = write(folder, ASK.replace("ASK", more))
    return flowrun.load(spec, environ=environ or {"TOKEN": SECRET}).with_model("default", model)


def test_a_secret_that_comes_in_pieces_is_masked(tmp_path: Path) -> None:
    flow = asking(tmp_path, Writer(["It is Ses", "ame-open", "-Ses", "ame. Or Sesa", "me."]))
    texts = [text for *_, text in texts_of(events_of(flow))]
    assert texts == ["It is ", "${TOKEN}. Or ", "Sesame."]


def test_what_is_held_back_comes_before_the_state_is_left(tmp_path: Path) -> None:
    events = events_of(asking(tmp_path, Writer(["Say Sesame"])))
    assert [type(event).__name__ for event in events] == [
        "StateEntered",
        *["TextDelta"] * 2,
        *["StateLeft", "StateEntered", "StateLeft", "RunEnded"],
    ]
    assert [text for *_, text in texts_of(events)] == ["Say ", "Sesame"]


def test_an_attempt_that_failed_is_void(tmp_path: Path) -> None:
    flow = asking(tmp_path, Writer(["It is c", None, "It is f", "air."]))
    assert texts_of(events_of(flow)) == [("r", "ask", 1, text) for text in ("It is c", None, "It is f", "air.")]


def test_what_was_held_back_is_not_said_to_be_void(tmp_path: Path) -> None:
    flow = asking(tmp_path, Writer(["Ses", None, "Ses", "ame."]))
    assert [text for *_, text in texts_of(events_of(flow))] == ["Sesame."]


def test_a_reply_that_failed_is_void_before_its_state_is_tried_again(tmp_path: Path) -> None:
    lost = ModelError("backend.unavailable", "it is off")
    flow = asking(tmp_path, Writer(["It is", lost], ["It is fair."]), "retry: {max_attempts: 2, delay: 0s}")
    events = events_of(flow)
    assert texts_of(events) == [("r", "ask", 1, "It is"), ("r", "ask", 1, None), ("r", "ask", 2, "It is fair.")]
    assert [type(event).__name__ for event in events[1:5]] == [
        "TextDelta",
        "TextDiscarded",
        "StateLeft",
        "StateEntered",
    ]


def test_a_reply_that_is_not_accepted_is_void(tmp_path: Path) -> None:
    form = "response_format: {type: json_schema, schema: {type: integer}}"
    events = events_of(asking(tmp_path, Writer(["It is"]), form))
    assert texts_of(events) == [("r", "ask", 1, "It is"), ("r", "ask", 1, None)]
    assert events[-1].error.name == "model.invalid_output"


def test_children_are_watched_and_what_a_loser_wrote_is_void(tmp_path: Path) -> None:
    class Racer(Writer):
        async def reply(self, request: flowrun.AskModel, *, on_text: OnText | None = None) -> flowrun.Reply:
            assert on_text is not None
            on_text(f"I am {request.flow}.")
            await asyncio.sleep(0.01 if request.flow == "one" else 30)
            return flowrun.Reply(content=f"I am {request.flow}.")

    spec = write(tmp_path, RACE.replace("UNTIL", "until: first,"))
    texts = texts_of(events_of(flowrun.load(spec).with_model("default", Racer())))
    assert texts == [
        ("r.1.0", "say", 1, "I am one."),
        ("r.1.1", "say", 1, "I am two."),
        ("r.1.1", "say", 1, None),
    ]


def test_a_model_that_does_not_know_of_watchers_gives_its_text_in_one_piece(tmp_path: Path) -> None:
    class Former(ScriptedBackend):
        async def reply(self, request: flowrun.AskModel) -> flowrun.Reply:  # type: ignore[override]
            return flowrun.Reply(content="It is fair.")

    assert texts_of(events_of(asking(tmp_path, Former(())))) == [("r", "ask", 1, "It is fair.")]


def test_a_run_or_a_batch_that_nobody_watches_asks_for_no_pieces(tmp_path: Path) -> None:
    model = Writer(["a"], ["b"], ["c"])
    flow = asking(tmp_path, model)

    async def go() -> None:
        async with flowrun.Session() as session:
            await session.run(flow)
            _ = [result async for result in session.batch(flow, [{}])]
            async with session.stream(flow) as stream:
                _ = [event async for event in stream]

    asyncio.run(go())
    assert model.watched == [False, False, True]


def test_an_observer_with_notify_text_watches_all_runs(tmp_path: Path) -> None:
    class Watcher:
        def __init__(self) -> None:
            self.texts: list[str | None] = []

        def notify(self, notice: flowrun.Notice) -> None:
            """Ignore all else."""

        def notify_text(self, written: Any) -> None:
            self.texts.append(written.text)

    watcher = Watcher()

    async def go() -> None:
        async with flowrun.Session(observers=[watcher]) as session:
            await session.run(asking(tmp_path, ScriptedModel(["It is fair."])))

    asyncio.run(go())
    assert watcher.texts == ["It", " is", " fair."]


def test_a_journal_holds_no_pieces(tmp_path: Path) -> None:
    async def events(watch: bool) -> list[Any]:
        flow = agent(tmp_path).with_model("default", ScriptedModel([ASK_TO_ADD, "It is 3."]))
        async with flowrun.Session(journal=tmp_path / f"{watch}.sqlite") as session:
            if watch:
                async with session.stream(flow, {"question": "?"}, run_id="r") as stream:
                    _ = [event async for event in stream]
            else:
                await session.run(flow, {"question": "?"}, run_id="r")
            return [msgspec.to_builtins(one.event) for one in session.journal.history.events("r")]

    assert asyncio.run(events(True)) == asyncio.run(events(False))
