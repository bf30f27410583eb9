"""A text that spells a special token is set apart from the template's own; all others are as they are."""

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from flowrun.backends.vllm.special_texts import SpecialTexts

SPECIAL = SpecialTexts(["<|im_start|>", "<|im_end|>", "<s>", "<s>x", ""])
PIECES = [*SPECIAL.texts, "<|", "\U000f0000", "\U000f0003", "\U000f0004", "\U0010fffd", "x"]
TEXTS = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3)), max_size=8).map("".join)


def protected(text: str) -> str:
    (message,) = SPECIAL.protect([{"role": "user", "content": text}])
    return str(message["content"])


@given(TEXTS)
@example("<s><s>x<|im_start|>")
def test_a_protected_text_spells_nothing_and_is_restored(text: str) -> None:
    hidden = protected(text)
    assert not any(special in hidden for special in SPECIAL.texts)
    assert SPECIAL.restore(hidden) == text
    parts = list(SPECIAL.split(hidden))
    assert "".join(part if isinstance(part, str) else SPECIAL.texts[part] for part in parts) == text
    assert SPECIAL.stands_in(hidden) == any(special in text for special in SPECIAL.texts)


@given(TEXTS, TEXTS)
def test_a_longer_text_begins_as_the_shorter_one_between_messages(one: str, other: str) -> None:
    rendered = f"<|im_start|>{protected(one)}<|im_end|>"
    longer = f"{rendered}<|im_start|>{protected(other)}<|im_end|>"
    assert SPECIAL.restore(rendered) == f"<|im_start|>{one}<|im_end|>"
    assert SPECIAL.restore(longer) == f"<|im_start|>{one}<|im_end|><|im_start|>{other}<|im_end|>"


def test_messages_without_special_texts_are_the_same_objects() -> None:
    call = {"id": "a", "function": {"name": "look", "arguments": '{"at": "<s>"}'}}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "<b>Café</b> \N{GRINNING FACE}"},
        {"role": "assistant", "content": None, "reasoning": "<s>", "tool_calls": [call]},
        {"role": "tool", "content": "<|im_end|>", "tool_call_id": "a"},
    ]
    first, second, third = SPECIAL.protect(messages)
    assert first is messages[0]
    stand_in = second["reasoning"]
    assert SPECIAL.restore(stand_in) == "<s>"
    assert second["tool_calls"] == [{"id": "a", "function": {"name": "look", "arguments": f'{{"at": "{stand_in}"}}'}}]
    assert SPECIAL.restore(third["content"]) == "<|im_end|>"
    assert call["function"] == {"name": "look", "arguments": '{"at": "<s>"}'}
    assert SpecialTexts([]).protect(messages) == messages
