"""What a request gives a flow, and which texts of it are its answer."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from flowrun.runtime.project import Project
from flowrun.serving.api_errors import ApiError
from flowrun.serving.chat_request import parse_request
from flowrun.serving.served_flow import ServedFlow, serve_flow

ECHO = "states: {done: {type: end, output: done}}\n"


def served(folder: Path, *parts: str) -> ServedFlow:
    path = folder / "spec.yaml"
    path.write_text("flowrun: v1\nname: desk\nversion: 1.0.0\n" + "".join(parts))
    (folder / "replies.yaml").write_text("replies: [{content: x, repeat: true}]")
    return serve_flow(Project(environ={}).compile(path))


def inputs(flow: ServedFlow, *said: str, **members: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    messages = [{"role": roles[place % 2], "content": text} for place, text in enumerate(said or ("Hi",))]
    return flow.inputs_of(parse_request(msgspec.json.encode({"model": "desk", "messages": messages, **members})))


@pytest.mark.parametrize(
    ("declared", "metadata", "expected"),
    [
        pytest.param("q: {type: string}", {}, {"q": "Hi"}, id="the only input"),
        pytest.param("q: {}", {}, {"q": "Hi"}, id="one of any type"),
        pytest.param("q: {type: string}, n: {type: integer, default: 1}", {}, {"q": "Hi"}, id="the only text"),
        pytest.param("q: {type: string}, s: {type: string, default: a}", {}, {"q": "Hi"}, id="the only one needed"),
        pytest.param("q: {type: string}, n: {type: integer}", {"n": "7"}, {"n": 7, "q": "Hi"}, id="metadata as text"),
        pytest.param("q: {type: string}, n: {type: integer}", {"n": 7}, {"n": 7, "q": "Hi"}, id="metadata"),
        pytest.param("q: {type: string}", {"trace": "x"}, {"q": "Hi"}, id="metadata that is no input"),
        pytest.param("q: {type: string}", {"q": "other"}, {"q": "Hi"}, id="the message counts"),
    ],
)
def test_the_message_is_the_only_input_that_it_can_be(
    tmp_path: Path, declared: str, metadata: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert inputs(served(tmp_path, f"inputs: {{{declared}}}\n", ECHO), metadata=metadata) == expected


@pytest.mark.parametrize(
    ("declared", "said", "metadata", "message"),
    [
        pytest.param("a: {type: string}, b: {type: string}", ["Hi"], {}, "has no input that the last", id="two texts"),
        pytest.param("n: {type: integer}", ["Hi"], {}, "has no input that the last", id="no text"),
        pytest.param("q: {type: string}", ["A", "B", "C"], {}, "takes one message", id="history"),
        pytest.param("q: {type: string, maxLength: 1}", ["Hi"], {}, "do not match what desk declares", id="schema"),
        pytest.param("q: {type: string}, n: {type: integer}", ["Hi"], {}, "'n'|\"n\"", id="missing"),
        pytest.param(
            "q: {type: string}, n: {type: integer}", ["Hi"], {"n": "x"}, "metadata.n is no JSON", id="no JSON"
        ),
    ],
)
def test_a_flow_that_cannot_honour_a_request_says_so(
    tmp_path: Path, declared: str, said: list[str], metadata: dict[str, Any], message: str
) -> None:
    flow = served(tmp_path, f"inputs: {{{declared}}}\n", ECHO)
    with pytest.raises(ApiError, match=message) as raised:
        inputs(flow, *said, metadata=metadata)
    assert raised.value.status == 400
    assert str(tmp_path) not in str(raised.value)


HISTORY = "inputs: {q: {type: string, default: ''}, h: {type: array, default: []}, c: {default: 0}}\n"


@pytest.mark.parametrize(
    ("serve", "expected"),
    [
        pytest.param('q: "{{ request.content }}", h: "{{ request.messages }}"', {"q": "C", "h": "AB"}, id="both"),
        pytest.param('h: "{{ request.messages }}"', {"h": "ABC"}, id="all messages"),
        pytest.param(
            'q: "{{ request.content | upper }}", h: "{{ request.messages }}", c: "{{ request.metadata.c }}"',
            {"q": "C", "h": "AB", "c": "x"},
            id="metadata",
        ),
    ],
)
def test_each_message_reaches_a_flow_once(tmp_path: Path, serve: str, expected: dict[str, Any]) -> None:
    given = inputs(
        served(tmp_path, HISTORY, f"serve: {{inputs: {{{serve}}}}}\n", ECHO), "A", "B", "C", metadata={"c": "x"}
    )
    given["h"] = "".join(message["content"] for message in given["h"])
    assert given == expected


def test_metadata_that_a_template_needs_is_named(tmp_path: Path) -> None:
    serve = 'serve: {inputs: {q: "{{ request.content }}", c: "{{ request.metadata.customer }}"}}\n'
    with pytest.raises(ApiError, match=r"serve\.inputs of desk: .*customer"):
        inputs(served(tmp_path, HISTORY, serve, ECHO))


def test_images_are_refused_where_only_the_text_is_taken(tmp_path: Path) -> None:
    flow = served(tmp_path, "inputs: {q: {type: string}}\n", ECHO)
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    message = {"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]}
    with pytest.raises(ApiError, match="it has images"):
        flow.inputs_of(parse_request(msgspec.json.encode({"model": "desk", "messages": [message]})))


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        pytest.param("a: {type: chat, next: end}, end: {type: end, output: '{{ reply.content }}'}", {"a"}, id="text"),
        pytest.param(
            "a: {type: chat, next: end}, end: {type: end, output: {x: '{{reply.content}}'}}", {"a"}, id="member"
        ),
        pytest.param(
            "a: {type: agent, next: end}, end: {type: end, output: '{{ outputs.a.content }}'}", {"a"}, id="agent"
        ),
        pytest.param(
            "a: {type: chat, next: b}, b: {type: chat, next: end}, end: {type: end, output: '{{ reply.content }}'}",
            {"b"},
            id="the last",
        ),
        pytest.param(
            "a: {type: chat, next: b}, b: {type: chat, next: end}, end: {type: end, output: '{{ outputs.a.content }}'}",
            set(),
            id="an earlier one",
        ),
        pytest.param("a: {type: chat, next: end}, end: {type: end, output: '{{ reply.content }}!'}", set(), id="more"),
        pytest.param(
            "a: {type: chat, response_format: {type: json_object}, next: end}, "
            "end: {type: end, output: '{{ reply.content }}'}",
            set(),
            id="a form",
        ),
        pytest.param(
            "a: {type: chat, next: end}, end: {type: end, status: failed, output: '{{ reply.content }}'}",
            set(),
            id="failed",
        ),
    ],
)
def test_the_text_of_chats_that_give_the_answer_is_the_answer(tmp_path: Path, states: str, expected: set[str]) -> None:
    model = "model: {backend: scripted, name: replies.yaml}\nmessages: [{role: user, content: Hi}]\n"
    assert served(tmp_path, model, f"states: {{{states}}}\n").answering == expected
