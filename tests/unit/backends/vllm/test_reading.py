"""Threads that are read in part, or that begin anew, on the real vLLM: each prompt that extends none is counted."""

from pathlib import Path

import pytest

from flowrun.core.events import Notice, Replied
from flowrun.functions.python import PythonFunctions
from flowrun.runtime.project import Project
from flowrun.runtime.runner import Runner
from tests.unit.backends.contract import Live

SPEC = """\
flowrun: v1
name: reading
version: 1.0.0
model: {name: some/model}
sampling: {temperature: 0, max_tokens: 32}
vars: {turns: 0}
messages:
  - {role: system, content: You answer.}
  - {role: user, content: Is it warm?}
states:
  ask:
    type: chat
    history: {last: 4}
    response_format: &short {schema: {enum: ["yes", "no"]}}
    set: {turns: "{{ vars.turns + 1 }}"}
    say: [{role: user, content: "And now, in hour {{ vars.turns }}?"}]
    routes: [{when: vars.turns == 8, to: judge}, {to: ask}]
  judge: {type: chat, system: You judge., response_format: *short, next: anew}
  anew:
    type: route
    say: [{replace: true, messages: [{role: user, content: "It was {{ threads.main | length }}. Good?"}]}]
    next: last
  last: {type: chat, response_format: *short, next: again}
  again: {type: chat, messages: [{role: user, content: Sure?}], response_format: *short, next: alone}
  alone:
    type: chat
    history: none
    messages: [{role: user, content: "Is {{ threads.main[0].content }} a question?"}]
    response_format: *short
    next: done
  done: {type: end, output: "{{ threads.main | length }}"}
"""


class Rounds:
    """An observer that keeps how each round counted."""

    def __init__(self) -> None:
        self.rerendered: list[tuple[str, int]] = []
        self._state = ""

    def notify(self, notice: Notice) -> None:
        if isinstance(notice.event, Replied):
            self.rerendered.append((self._state, notice.event.reply.usage.rerendered))
        self._state = notice.state


@pytest.mark.vllm
def test_a_prompt_that_extends_none_is_counted(small_model: Live, tmp_path: Path) -> None:
    spec = tmp_path / "reading.yaml"
    spec.write_text(SPEC)
    flow = Project().compile(spec)
    rounds = Rounds()
    backends = dict.fromkeys(flow.models, small_model.backend)
    runner = Runner(backends=backends, functions=PythonFunctions(flow.functions), observers=[rounds])
    run = small_model.run(runner.run(flow.graph, {}, run_id="reading")).run
    assert run.outcome is not None
    assert (run.outcome.error, run.outcome.output) == (None, 6)
    asks = [("ask", cut) for cut in (0, 0, 0, 0, 0, 1, 0, 1)]
    assert rounds.rerendered == [*asks, ("judge", 1), ("last", 1), ("again", 0), ("alone", 1)]
    assert run.usage.rerendered == 5
