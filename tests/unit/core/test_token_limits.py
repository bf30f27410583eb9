"""``limits.tokens``: what a run and its sub-flows have used is compared before each request to a model."""

import pytest

from flowrun.core.events import AskModel, ChildEnded, Event, Failed, Outcome, Replied, Slept, StartChild, Started
from flowrun.core.machine import fold
from flowrun.core.messages import Reply, ToolCall, Usage
from flowrun.core.token_limits import least_limits, limits_after, reached_limit, tokens_left
from flowrun.errors import Failure
from flowrun.spec.model import TokenLimits
from tests.flows import ADD, graph_of

BEGIN = Started(run="r", inputs={})

TWICE = """\
messages: [{role: user, content: Go.}]
states:
  one: {type: chat, next: two}
  two: {type: chat, messages: [{role: user, content: On.}], next: done}
  done: {type: end}
"""


def replied(step: int, prompt: int, completion: int, *, left: TokenLimits | None = None) -> Replied:
    usage = Usage(prompt_tokens=prompt, completion_tokens=completion)
    return Replied(step=step, reply=Reply(content="Yes.", usage=usage), tokens_left=left)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ("prompt: 100", "the run has used 100 prompt tokens, and limits.tokens.prompt gives it 100"),
        ("completion: 15", "the run has used 20 completion tokens, and limits.tokens.completion gives it 15"),
        ("total: 110", "the run has used 120 tokens, and limits.tokens.total gives it 110"),
        ("total: 110, prompt: 99", "the run has used 100 prompt tokens, and limits.tokens.prompt gives it 99"),
        ("total: 121, prompt: 101, completion: 21", None),
        ("total: null, prompt: 101", None),
    ],
    ids=str,
)
def test_a_limit_that_is_reached_ends_the_run_before_its_next_request(limits: str, message: str | None) -> None:
    transition = fold(graph_of(TWICE, f"limits: {{tokens: {{{limits}}}}}\n"), [BEGIN, replied(1, 100, 20)])
    if message is None:
        assert [type(effect) for effect in transition.effects] == [AskModel]
        return
    message += ": no model is asked any more"
    assert transition.run.outcome == Outcome(
        status="failed", error=Failure(name="limit.tokens", message=message, state="two")
    )
    assert transition.run.rounds == 1


def test_the_reply_that_reaches_the_limit_is_used_like_any_other() -> None:
    graph = graph_of(TWICE, "limits: {tokens: {total: 1000}}\n")
    run = fold(graph, [BEGIN, replied(1, 900, 99), replied(2, 50_000, 1)]).run
    assert run.outcome == Outcome(status="succeeded")
    assert run.usage == Usage(prompt_tokens=50_900, completion_tokens=100)


def test_it_can_be_caught_and_holds_afterwards() -> None:
    flow = TWICE.replace("next: done}", "next: done, catch: [{errors: [limit.tokens], to: three}]}").replace(
        "  done:", "  three: {type: chat, next: done}\n  done:"
    )
    run = fold(graph_of(flow, "limits: {tokens: {total: 10}}\n"), [BEGIN, replied(1, 5, 5)]).run
    assert run.outcome is not None
    assert run.outcome.error is not None
    assert (run.outcome.error.name, run.outcome.error.state, list(run.path)) == (
        "limit.tokens",
        "three",
        ["one", "two", "three"],
    )


def test_replies_that_failed_count_and_further_attempts_need_tokens() -> None:
    flow = TWICE.replace(
        "one: {type: chat,", "one: {type: chat, retry: {max_attempts: 5, errors: [model.*], delay: 0s},"
    )
    cut = Reply(content="Y", finish_reason="length", usage=Usage(prompt_tokens=60))
    events: list[Event] = [BEGIN, Replied(step=1, reply=cut), Slept(step=2), Replied(step=2, reply=cut), Slept(step=3)]
    run = fold(graph_of(flow, "limits: {tokens: {total: 100}}\n"), events).run
    assert run.outcome is not None
    assert run.outcome.error is not None
    assert run.outcome.error.message.startswith("the run has used 120 tokens")


def test_a_request_without_a_reply_has_used_nothing() -> None:
    flow = TWICE.replace("one: {type: chat,", "one: {type: chat, catch: [{to: two}],")
    failed = Failed(step=1, failure=Failure(name="backend.unavailable", message="away"))
    transition = fold(graph_of(flow, "limits: {tokens: {total: 1}}\n"), [BEGIN, failed])
    assert [type(effect) for effect in transition.effects] == [AskModel]


AGENT = """\
messages: [{role: user, content: Go.}]
states:
  work: {type: agent, retry: {delay: 0s, max_attempts: 3}, next: done}
  done: {type: end}
limits: {tokens: {total: 100}}
"""


def test_an_agent_asks_no_more_and_no_attempt_follows() -> None:
    call = ToolCall(id="", name="nobody", arguments="{}")
    asked = Replied(step=1, reply=Reply(tool_calls=(call,), usage=Usage(prompt_tokens=100)))
    run = fold(graph_of(ADD, AGENT), [BEGIN, asked]).run
    assert run.outcome is not None
    assert run.outcome.error is not None
    assert (run.outcome.error.name, run.outcome.error.state) == ("limit.tokens", "work")


DECIDE = """\
messages: [{role: user, content: Go.}]
states:
  one: {type: decide, prompt: Which?, choices: {a: first, b: second}, next: two}
  two: {type: decide, prompt: Which?, choices: {a: first, b: second}, next: done}
  done: {type: end}
limits: {tokens: {prompt: 40}}
"""


def test_decisions_count() -> None:
    reply = Reply(probabilities={"a": 0.9, "b": 0.1}, mass=1.0, usage=Usage(prompt_tokens=40, completion_tokens=1))
    run = fold(graph_of(DECIDE), [BEGIN, Replied(step=1, reply=reply)]).run
    assert run.outcome is not None
    assert run.outcome.error is not None
    assert (run.outcome.error.name, run.outcome.error.state) == ("limit.tokens", "two")


# --- sub-flows ----------------------------------------------------------------------------------------------------

PARENT = """\
states:
  go: {type: flow, flow: "#child", next: again}
  again: {type: flow, flow: "#child", next: done}
  done: {type: end}
flows:
  child:
    states: {end: {type: end}}
"""


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        ("{}", [None, None]),
        ("{tokens: {total: 50}}", [TokenLimits(total=50), TokenLimits(total=17)]),
        ("{tokens: {prompt: 20, total: 50}}", [TokenLimits(prompt=20, total=50), TokenLimits(prompt=0, total=17)]),
    ],
    ids=str,
)
def test_the_tokens_of_children_count(limits: str, left: list[TokenLimits | None]) -> None:
    graph = graph_of(PARENT, f"limits: {limits}\n")
    usage = Usage(prompt_tokens=30, completion_tokens=3)
    ended = ChildEnded(step=1, outcome=Outcome(status="succeeded"), usage=usage)
    effects = [*fold(graph, [BEGIN]).effects, *fold(graph, [BEGIN, ended]).effects]
    assert [effect.token_limits for effect in effects if isinstance(effect, StartChild)] == left


@pytest.mark.parametrize(
    ("own", "given", "least"),
    [
        (None, None, None),
        (TokenLimits(total=3), None, TokenLimits(total=3)),
        (None, TokenLimits(total=2), TokenLimits(total=2)),
        (TokenLimits(total=3), TokenLimits(total=2, prompt=1), TokenLimits(total=2, prompt=1)),
        (TokenLimits(completion=3), TokenLimits(total=0), TokenLimits(completion=3, total=0)),
    ],
)
def test_a_child_has_the_least_of_its_limits(
    own: TokenLimits | None, given: TokenLimits | None, least: TokenLimits | None
) -> None:
    assert least_limits(own, given) == least


def test_what_relatives_use_meanwhile_lowers_the_limits_of_a_child() -> None:
    begin = Started(run="r.1.0", inputs={}, token_limits=TokenLimits(total=1000))
    left = TokenLimits(total=30)
    events: list[Event] = [begin, replied(1, 100, 20, left=left)]
    run = fold(graph_of(TWICE), events).run
    assert (run.token_limits, run.state) == (TokenLimits(total=150), "two")
    nothing = fold(graph_of(TWICE), [begin, replied(1, 100, 20, left=TokenLimits(total=0))]).run
    assert nothing.outcome is not None
    assert nothing.outcome.error is not None
    assert nothing.outcome.error.message.startswith("the run has used 120 tokens, and limits.tokens.total gives it 120")


def test_arithmetic() -> None:
    used = Usage(prompt_tokens=100, completion_tokens=20, cached_tokens=90)
    limits = TokenLimits(prompt=90, total=130)
    assert tokens_left(limits, used) == TokenLimits(prompt=0, total=10)
    assert limits_after(used, TokenLimits(prompt=0, total=10)) == TokenLimits(prompt=100, total=130)
    assert reached_limit(TokenLimits(), used) is None
