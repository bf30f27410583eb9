"""What models were asked, out of the events of a run: the very requests, each with its reply."""

import asyncio

import pytest

from flowrun.backends.scripted import ScriptedBackend
from flowrun.cli.show_prompt import describe_prompt, find_request
from flowrun.core.events import AskModel
from flowrun.core.messages import Reply
from flowrun.errors import UsageError
from flowrun.functions.python import PythonFunctions
from flowrun.runtime.prompt_reading import PromptRead
from flowrun.runtime.runner import Runner
from flowrun.testing.truncatable_journal import TruncatableJournal
from flowrun.transcript.requests import Asked, requests_of
from tests.flows import graph_of

FLOW = """\
messages: [{role: user, content: Go.}]
states:
  first: {type: chat, retry: {max_attempts: 2, errors: [model.*], delay: 0s, feedback: Again.}, next: each}
  each: {type: map, flow: "#ask", for_each: "[1, 2]", as: n, next: last}
  last: {type: chat, system: Be brief., history: {last: 1}, messages: [{role: user, content: On.}], next: done}
  done: {type: end}
flows:
  ask:
    inputs: {n: {type: integer}}
    messages: [{role: user, content: "{{ inputs.n }}"}]
    states: {chat: {type: chat, next: done}, done: {type: end}}
"""


def run() -> tuple[list[AskModel], list[Asked]]:
    """Return the requests that a backend had, and those that the journal gives."""
    cut = Reply(content="Y", finish_reason="length")
    backend = ScriptedBackend([cut, *(Reply(content=text) for text in ("Yes.", "One.", "Two.", "Bye."))])
    journal, graph = TruncatableJournal(), graph_of(FLOW)
    runner = Runner(backends={"default": backend}, functions=PythonFunctions({}), journal=journal)
    asyncio.run(runner.run(graph, {}, run_id="r"))
    return backend.requests, list(requests_of(graph, journal.records["r"], journal.records))


HAD, FOUND = run()


def test_they_are_the_requests_that_were_made_with_their_replies() -> None:
    def place(request: AskModel) -> tuple[str, int]:
        return request.run, request.step

    assert sorted((one.request for one in FOUND), key=place) == sorted(HAD, key=place)
    assert {place(one.request): one.reply.content for one in FOUND if one.reply is not None} == {
        ("r", 1): "Y",
        ("r", 2): "Yes.",
        ("r.3.0", 1): "One.",
        ("r.3.1", 1): "Two.",
        ("r", 4): "Bye.",
    }


@pytest.mark.parametrize(
    ("place", "run", "step"),
    [("1", "r", 1), ("4", "r", 4), ("3.1/1", "r.3.1", 1), ("r.3.1/1", "r.3.1", 1), ("r/2", "r", 2)],
)
def test_a_step_is_found_by_its_place(place: str, run: str, step: int) -> None:
    found = find_request(FOUND, "r", place).request
    assert (found.run, found.step) == (run, step)


@pytest.mark.parametrize(
    ("place", "where"),
    [
        ("3", "in step '3' of run r"),
        ("3.9/1", "in step '1' of run r.3.9"),
        ("first", "in 'first', which is no step"),
        ("", "in '', which is no step"),
    ],
)
def test_a_step_in_which_no_model_was_asked_is_refused_by_name(place: str, where: str) -> None:
    with pytest.raises(UsageError) as raised:
        find_request(FOUND, "r", place)
    known = "1 (first), 2 (first), 3.0/1 (chat), 3.1/1 (chat), 4 (last)"
    assert str(raised.value) == f"no model was asked {where}; one was in: {known}"


def test_a_flow_without_models_names_no_step() -> None:
    with pytest.raises(UsageError, match="one was in: no step at all"):
        find_request([], "r", "1")


@pytest.mark.parametrize(
    ("ids", "same", "sentence"),
    [
        (None, None, "what the server of m was sent"),
        ([1, 2], True, "2 tokens of m, the very ones that it read"),
        ([1, 2], None, "2 tokens of m, rendered anew: the run kept no tokens of this step to compare them with"),
        (
            [1, 2],
            False,
            "2 tokens of m, which are NOT those that it read: its chat template, its tokenizer or its engine has "
            "changed since",
        ),
    ],
)
def test_it_is_said_where_a_prompt_is_from(ids: list[int] | None, same: bool | None, sentence: str) -> None:
    prompt = PromptRead(
        run="r", step=1, state="s", model="m", backend="vllm", messages=[], tools=[], token_ids=ids, same=same
    )
    assert describe_prompt(prompt) == f"run r, step 1, state s: {sentence}"
