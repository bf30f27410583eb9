"""The content of a reply while vLLM writes it: by the family's parser, and put right at the end."""

import asyncio
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from flowrun.backends.text_pieces import TextPieces
from flowrun.backends.vllm.chat import VllmChat
from flowrun.backends.vllm.reader import VllmReader
from flowrun.backends.vllm.written_text import WrittenText
from flowrun.core.messages import Reply
from tests.conftest import SMALL_MODEL, SPECS
from tests.unit.backends.contract import WEATHER, Live, ask, said_in, seen_of
from tests.unit.backends.vllm.test_backend import dallas

CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Dallas"}}\n</tool_call>'


class Shouting:
    """A parser in whose family all is an answer but what is in capital letters. It has its troubles with digits."""

    def parse_delta(self, text: str, ids: list[int], request: Any, prompt: list[int], *, finished: bool) -> Any:
        assert (request, prompt, len(ids)) == ("request", [7], len(text))
        if text.isdigit():
            raise RuntimeError("no digits")
        return None if text.isupper() else SimpleNamespace(content=text, reasoning=None)


def outputs(*texts: str) -> list[Any]:
    """Return vLLM's outputs after each of the texts; a letter is a token."""
    written = ["".join(texts[: number + 1]) for number in range(len(texts))]
    ends = [None] * (len(texts) - 1) + ["stop"]
    return [
        SimpleNamespace(outputs=[SimpleNamespace(text=text, token_ids=[*range(len(text))], finish_reason=end)])
        for text, end in zip(written, ends, strict=True)
    ]


@pytest.mark.parametrize(
    ("parser", "texts", "content", "passed"),
    [
        pytest.param(None, ["It ", "is", " fair."], "It is fair.", ["It", " is", " fair."], id="no parser"),
        pytest.param(Shouting(), ["Hi. ", "CALL"], "Hi.", ["Hi."], id="a call"),
        pytest.param(
            Shouting(), ["It is ", "85", " degrees."], "It is 85 degrees.", ["It is", " 85 degrees."], id="lost"
        ),
        pytest.param(Shouting(), ["<ca", "ll>"], None, ["<ca", "ll>", None], id="a call was taken for text"),
    ],
)
def test_pieces(parser: Any, texts: Sequence[str], content: str | None, passed: Sequence[str | None]) -> None:
    seen: list[str | None] = []
    pieces = TextPieces(seen.append)
    written = WrittenText(pieces, parser=parser, request="request", prompt=[7])
    for output in outputs(*texts):
        written.receive(output)
    pieces.finish(Reply(content=content))
    assert seen == passed


@pytest.fixture(scope="module")
def chat(needs_vllm: None) -> Iterator[VllmChat]:
    """The tokenizer, the template and the parsers of the small model, without an engine."""
    with asyncio.Runner() as runner:
        reader = VllmReader(SMALL_MODEL, base_dir=SPECS)
        runner.run(reader.start())
        yield reader._started()
        runner.run(reader.stop())


@pytest.mark.vllm
@pytest.mark.parametrize(
    ("text", "least"),
    [
        pytest.param("It is fair, and 85 degrees.", 3, id="answer"),
        pytest.param(CALL, 0, id="call"),
        pytest.param(f"Let me look.\n{CALL}", 2, id="both"),
        pytest.param(f"{CALL}\n{CALL.replace('Dallas', 'Boston')}", 0, id="two calls"),
        pytest.param("Is 1 < 2, or <b>not</b>?", 3, id="like a call"),
    ],
)
def test_the_parser_of_a_family(chat: VllmChat, text: str, least: int) -> None:
    rendered = asyncio.run(chat.render(ask(tools=(WEATHER,))))
    tokenizer = chat._renderer.tokenizer
    ids = tokenizer.encode(text, add_special_tokens=False)
    seen: list[str | None] = []
    pieces = TextPieces(seen.append)
    parser = chat.parser_of(rendered)
    written = WrittenText(pieces, parser=parser, request=rendered.request, prompt=rendered.token_ids)
    for end in range(3, len(ids) + 3, 3):
        reason = "stop" if end >= len(ids) else None
        said = SimpleNamespace(text=tokenizer.decode(ids[:end]), token_ids=ids[:end], finish_reason=reason)
        written.receive(SimpleNamespace(outputs=[said]))
    reply = pieces.finish(chat.read(rendered, text))
    assert said_in(seen) == (reply.content or "")
    assert None not in seen
    assert len(seen) >= least


@pytest.mark.vllm
def test_a_watched_reply_is_the_same_and_comes_in_many_pieces(small_model: Live) -> None:
    request = dallas(tool_choice="none")
    reply, pieces = small_model.watch(request)
    assert len(pieces) > 5
    assert said_in(pieces) == reply.content
    assert seen_of(reply) == seen_of(small_model.reply(request))
    called, nothing = small_model.watch(dallas())
    assert ([call.name for call in called.tool_calls], nothing) == (["get_current_weather"], [])
    assert msgspec.json.decode(called.tool_calls[0].arguments)["city"] == "Dallas"
