"""Images go to servers in the form of their API; in this process they are refused by name."""

import pytest

from flowrun.backends.chat_api import server_messages
from flowrun.backends.vllm.chat import VllmChat
from flowrun.core.messages import Image, Message, as_openai
from flowrun.errors import ModelError
from tests.unit.backends.contract import ask

SHOWN = Message(role="user", content="What?\n[image]", parts=("What?", Image("data:image/png;base64,AA==")))
PARTS = [
    {"type": "text", "text": "What?"},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
]


def test_a_server_gets_the_parts() -> None:
    assert server_messages([SHOWN]) == [{"role": "user", "content": PARTS}]


@pytest.mark.parametrize(
    ("turns", "content"),
    [
        pytest.param(
            [Message(role="user", content="First."), SHOWN],
            [{"type": "text", "text": "First."}, *PARTS],
            id="text before",
        ),
        pytest.param(
            [SHOWN, Message(role="user", content="Then.")], [*PARTS, {"type": "text", "text": "Then."}], id="text after"
        ),
        pytest.param([SHOWN, SHOWN], [*PARTS, *PARTS], id="both with images"),
    ],
)
def test_turns_in_a_row_keep_their_images(turns: list[Message], content: list[object]) -> None:
    assert server_messages(turns) == [{"role": "user", "content": content}]


def test_results_and_transcripts_show_a_mark() -> None:
    assert as_openai(SHOWN) == {"role": "user", "content": "What?\n[image]"}


def test_in_this_process_they_are_refused() -> None:
    with pytest.raises(ModelError) as refused:
        VllmChat._check(object(), ask([SHOWN]))  # type: ignore[arg-type]  # nothing of the model is asked before
    assert refused.value.failure().name == "model.request_refused"
    assert refused.value.message == (
        "vLLM in this process cannot be shown images for now: ask a model behind a server (backend: openai)"
    )
