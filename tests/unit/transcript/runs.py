"""Recorded runs for tests, by name: each with a flow, its stubs, and the events from outside."""

from collections.abc import Callable, Mapping
from typing import Final

from flowrun.core.events import Answered, Cancelled
from flowrun.core.messages import Reply, Usage
from flowrun.errors import Failure
from tests.flows import ADD, AGENT, graph_of
from tests.unit.transcript.recording import Recording, World, calls, said

RETRY: Final = """\
messages: [{role: user, content: Hello.}]
states:
  ask:
    type: chat
    retry: {max_attempts: 2, errors: [backend.unavailable, model.truncated], delay: 2s, jitter: 0}
    catch: [{errors: [tool.*], to: sorry}, {errors: [backend.*], to: sorry}]
    next: done
  done: {type: end, output: "{{ reply.content }}"}
  sorry: {type: end, status: failed, output: "{{ error.name }}"}
"""

REVIEW: Final = """\
inputs: {amount: {type: number}}
vars: {asked: 0}
states:
  decide:
    type: route
    set: {asked: "{{ vars.asked + 1 }}"}
    routes:
      - {when: inputs.amount > 100, to: review}
      - {to: pay}
  review:
    type: wait
    prompt: "Pay {{ inputs.amount }}?"
    schema: {type: object, properties: {ok: {type: boolean}}, required: [ok]}
    timeout: 7d
    catch: [{errors: [wait.timeout], to: nobody}]
    routes:
      - {when: outputs.review.ok, to: pay}
      - {to: nobody}
  pay: {type: call, entrypoint: "tools.payments:pay", with: {amount: "{{ inputs.amount }}"}, next: paid}
  paid: {type: end, output: {entry: "{{ outputs.pay }}"}}
  nobody: {type: end, status: failed}
"""

FAMILY: Final = """\
inputs: {cities: {type: array, items: {type: string}}}
states:
  gather: {type: map, flow: "#facts", for_each: inputs.cities, as: city, on_item_error: collect, next: opinions}
  opinions:
    type: parallel
    branches:
      banker: {flow: "#adviser", with: {role: banker}}
      lawyer: {flow: "#adviser", with: {role: lawyer}}
    next: check
  check: {type: flow, flow: "#adviser", with: {role: chair}, next: done}
  done: {type: end, output: "{{ outputs }}"}
flows:
  facts:
    inputs: {city: {type: string}}
    messages: [{role: user, content: "Tell me about {{ inputs.city }}."}]
    states:
      ask: {type: chat, next: done}
      done: {type: end, output: "{{ reply.content }}"}
  adviser:
    inputs: {role: {type: string}}
    messages: [{role: user, content: "You are the {{ inputs.role }}."}]
    states:
      ask: {type: chat, next: done}
      done: {type: end, output: "{{ reply.content }}"}
"""

SLOW: Final = """\
states:
  both:
    type: parallel
    timeout: 5s
    branches: {one: {flow: "#ask"}, two: {flow: "#ask"}}
    catch: [{errors: [state.timeout], to: late}]
    next: done
  done: {type: end}
  late: {type: end, output: late}
flows:
  ask:
    states:
      question: {type: wait, prompt: "Well?", next: done}
      done: {type: end}
"""

TEAM: Final = """\
messages: [{role: user, content: Add.}]
states:
  team:
    type: agent
    on_error: raise
    retry: {max_attempts: 2, errors: [tool.failed], delay: 2s, jitter: 0}
    set: {sum: "{{ results[0].value }}"}
    next: done
  done: {type: end, output: "{{ vars.sum }}"}
"""

DECIDE: Final = """\
inputs: {mail: {type: string}}
messages: [{role: user, content: "{{ inputs.mail }}"}]
states:
  answer: {type: chat, next: urgent}
  urgent:
    type: decide
    prompt: How urgent was it?
    choices: {high: needs an answer today, low: can wait}
    routes:
      - {when: outputs.urgent.probabilities.high > 0.8, to: thank}
      - {to: done}
  thank: {type: chat, messages: [{role: user, content: Thanks!}], next: done}
  done: {type: end, output: "{{ outputs.urgent }}"}
"""

WRONG: Final = '{"a": 2}'
DOWN: Final = Failure(name="backend.unavailable", message="connection refused")


def agent() -> Recording:
    """A model that calls tools well and badly, and answers."""
    wishes = calls(("add", '{"a": 2, "b": 3}'), ("add", WRONG), ("multiply", "{}"), ("add", '{"a": 0, "b": 0}'))
    world = World(replies=[wishes, said("The sum is 5.", cached=16)], functions={"tools.numbers:add": _add})
    return Recording(graph_of(ADD, AGENT), world, {"question": "What is 2 + 3?"})


def _add(a: int, b: int) -> tuple[float, object]:
    failed = Failure(name="tool.failed", message="ValueError: nothing to add\nat numbers.py")
    return (0.2, a + b) if a else (0.1, failed)


def team() -> Recording:
    """An agent of three turns; a call of the second fails at first."""
    tries = iter([(0.1, Failure(name="tool.failed", message="no")), (0.3, 5), (0.2, 7)])
    replies = [calls(("add", '{"a": 1, "b": 4}')), calls(("add", '{"a": 2, "b": 5}')), said("It is 7.")]
    world = World(replies=replies, functions={"tools.numbers:add": lambda **arguments: next(tries)})
    return Recording(graph_of(ADD, TEAM), world)


def team_in_doubt() -> Recording:
    """An agent whose process died while a call of its second turn ran."""
    replies = [calls(("add", '{"a": 1, "b": 4}')), calls(("sub", '{"a": 2, "b": 5}'))]
    tools = ADD + ADD.partition("\n")[2].replace("add", "sub")
    return Recording(graph_of(tools, TEAM), World(replies=replies, functions={"tools.numbers:add": (0.1, 5)}))


def retried() -> Recording:
    """A backend that is unavailable at first."""
    return Recording(graph_of(RETRY), World(replies=[(0.25, DOWN), said("Hello!")]))


def caught() -> Recording:
    """A backend that stays unavailable."""
    return Recording(graph_of(RETRY), World(replies=[(0.25, DOWN), (0.5, DOWN)]))


def waiting() -> Recording:
    """A question that nobody has answered."""
    recording = Recording(graph_of(REVIEW), World(), {"amount": 150})
    return recording.cut("TimedOut")


def answered() -> Recording:
    """A question that was answered after two hours."""
    world = World(answers={"review": (7200.0, {"ok": True})}, functions={"tools.payments:pay": (0.4, "e-17")})
    return Recording(graph_of(REVIEW), world, {"amount": 150})


def unanswered() -> Recording:
    """A question that nobody answered within its week."""
    return Recording(graph_of(REVIEW), World(), {"amount": 150})


def in_doubt() -> Recording:
    """A payment that began, and then the process died."""
    return Recording(graph_of(REVIEW), World(), {"amount": 50})


def cancelled() -> Recording:
    """A run that was cancelled."""
    recording = Recording(graph_of(REVIEW), World(), {"amount": 150}).cut("TimedOut")
    recording.add(Cancelled(reason="no longer needed"), 60.0)
    recording.add(Answered(step=2, value={"ok": True}), 60.0)
    return recording


def family() -> Recording:
    """Children of three kinds of states; one of them fails."""
    too_long = Failure(name="model.context_overflow", message="the prompt has 5,120 tokens")
    replies = [
        said("Oslo is the capital.", seconds=1.2),
        (0.6, too_long),
        said("It rains in Bergen.", seconds=1.9),
        said("It costs a lot.", seconds=0.8),
        said("It may be forbidden.", seconds=1.4),
        said("Do it."),
    ]
    return Recording(graph_of(FAMILY), World(replies=replies), {"cities": ["Oslo", "Atlantis", "Bergen"]})


def given_up() -> Recording:
    """Children that wait when their parent times out."""
    return Recording(graph_of(SLOW), World())


def decided() -> Recording:
    """A decision between two chats of a thread."""
    decision = Reply(
        probabilities={"low": 0.0625, "high": 0.9375},
        usage=Usage(prompt_tokens=40, completion_tokens=1, cached_tokens=16),
    )
    replies = [said("We will come."), (0.5, decision), said("You are welcome.")]
    return Recording(graph_of(DECIDE), World(replies=replies), {"mail": "Water in the cellar!"})


def refused_inputs() -> Recording:
    """Inputs that the flow does not accept."""
    return Recording(graph_of(REVIEW), World(), {"amount": "much"})


RUNS: Final[Mapping[str, Callable[[], Recording]]] = {
    run.__name__: run
    for run in (
        agent,
        team,
        team_in_doubt,
        retried,
        caught,
        waiting,
        answered,
        unanswered,
        in_doubt,
        cancelled,
        family,
        given_up,
        decided,
        refused_inputs,
    )
}
"""Every run that has its expected text."""
