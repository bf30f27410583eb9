"""Whether all replies of a flow are the likeliest ones: only an explicit temperature of 0, of every chat, is that."""

from pathlib import Path

import pytest

import flowrun

ONE = """\
model: {backend: scripted, name: a.yaml}
messages: [{role: user, content: "?"}]
states: {ask: {type: chat, next: e}, e: {type: end}}
"""
CHOSEN = """\
inputs: {which: {type: string}}
models: {a: {backend: scripted, name: a.yaml, sampling: {temperature: 0}}, b: {backend: scripted, name: b.yaml}}
messages: [{role: user, content: "?"}]
states: {ask: {type: chat, model: "{{ inputs.which }}", next: e}, e: {type: end}}
"""
SUB_FLOW = """\
model: {backend: scripted, name: a.yaml}
sampling: {temperature: 0}
flows:
  sub:
    messages: [{role: user, content: "?"}]
    sampling: {}
    states: {ask: {type: agent, max_rounds: 2, next: e}, e: {type: end}}
states: {go: {type: flow, flow: "#sub", next: e}, e: {type: end}}
"""
DECIDES = """\
model: {backend: scripted, name: a.yaml}
messages: [{role: user, content: "?"}]
states: {pick: {type: decide, prompt: "?", choices: [a, b], next: e}, e: {type: end}}
"""
TWO = ONE.replace("next: e}", "next: again}, again: {type: chat, messages: [{role: user, content: More}], next: e}", 1)
COLD = "sampling: {temperature: 0}\n"


@pytest.mark.parametrize(
    ("text", "greedy"),
    [
        pytest.param(ONE, False, id="not given"),
        pytest.param(COLD + ONE, True, id="of the spec"),
        pytest.param("sampling: {temperature: 0.0, top_p: 0.5}\n" + ONE, True, id="0.0"),
        pytest.param("sampling: {temperature: 0.01}\n" + ONE, False, id="0.01"),
        pytest.param(ONE.replace("a.yaml}", "a.yaml, sampling: {temperature: 0}}"), True, id="of the model"),
        pytest.param(COLD + ONE.replace("a.yaml}", "a.yaml, sampling: {temperature: 1}}"), False, id="model over spec"),
        pytest.param(ONE.replace("chat,", "chat, sampling: {temperature: 0},"), True, id="of the state"),
        pytest.param(COLD + ONE.replace("chat,", "chat, sampling: {temperature: 1},"), False, id="state over spec"),
        pytest.param(COLD + TWO, True, id="two chats"),
        pytest.param(TWO.replace("chat,", "chat, sampling: {temperature: 0},", 1), False, id="one of two chats"),
        pytest.param(CHOSEN, False, id="a template chooses the model"),
        pytest.param(CHOSEN.replace("b.yaml}", "b.yaml, sampling: {temperature: 0}}"), True, id="all have it"),
        pytest.param(SUB_FLOW, True, id="an agent of a sub-flow"),
        pytest.param(SUB_FLOW.replace("sampling: {}", "sampling: {temperature: 1}"), False, id="a warm sub-flow"),
        pytest.param(COLD + DECIDES, False, id="no chat"),
    ],
)
def test_a_flow_is_greedy_if_all_its_chats_are(text: str, greedy: bool, tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("replies: []\n")
    spec = tmp_path / "spec.yaml"
    spec.write_text(f"flowrun: v1\nname: flow\nversion: 1.0.0\n{text}")
    assert flowrun.load(spec).is_greedy == greedy
