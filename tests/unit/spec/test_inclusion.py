"""A text may stand in a file of its own: ``content: {file: PATH}``."""

import base64
from pathlib import Path

import pytest

from flowrun.errors import SpecError
from flowrun.spec import find_project, load_spec
from flowrun.spec.load import ParsedOnce, StoredFiles
from flowrun.spec.model import ChatState, ImagePart, MessageTemplate, RepeatedMessages, Said, TextPart

SPEC = """\
flowrun: v1
name: texts
version: 1.0.0
model: {backend: scripted, name: replies.yaml}
profiles:
  short: {messages: [{role: system, content: {file: prompts/short.md}}]}
x-said: &said {role: user, content: {file: prompts/said.md}}
messages:
  - {role: system, content: {file: prompts/long.md}}
  - {for_each: "[1]", messages: [*said, {role: assistant, content: {file: prompts/long.md}}]}
threads:
  side: [{role: tool, content: {file: ../shared/tool.txt}}]
states:
  ask:
    type: chat
    system: {file: prompts/long.md}
    messages: [*said]
    say: [*said, {thread: side, messages: [*said]}]
    set: {content: {file: prompts/none.md}}
    next: done
  done: {type: end, output: {content: {file: prompts/none.md}}}
flows:
  inner:
    messages: [{role: user, content: {file: prompts/said.md}}]
    states: {end: {type: end}}
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """Return a spec with files for its texts, in a project."""
    files = {
        "pyproject.toml": "",
        "specs/texts.yaml": SPEC,
        "specs/prompts/long.md": "Be kind.\n\nAlways.\n",
        "specs/prompts/short.md": "Kind.",
        "specs/prompts/said.md": "{{ inputs }}\r\nSo.\r\n",
        "shared/tool.txt": "é\n\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    return tmp_path / "specs" / "texts.yaml"


def test_texts_of_files_stand_where_the_spec_names_them(spec: Path) -> None:
    loaded = load_spec(spec)
    said = MessageTemplate(role="user", content="{{ inputs }}\nSo.")
    long = "Be kind.\n\nAlways."
    assert dict(loaded.spec.threads) == {
        "main": (
            MessageTemplate(role="system", content=long),
            RepeatedMessages(for_each="[1]", messages=(said, MessageTemplate(role="assistant", content=long))),
        ),
        "side": (MessageTemplate(role="tool", content="é\n"),),
    }
    ask = loaded.spec.states["ask"]
    assert isinstance(ask, ChatState)
    assert (ask.system, ask.messages, ask.say) == (long, (said,), (said, Said(thread="side", messages=(said,))))
    assert ask.set == {"content": {"file": "prompts/none.md"}}
    assert loaded.spec.flows["inner"].threads["main"] == (said,)
    assert loaded.issues == ()


def test_a_profile_has_texts_of_its_own(spec: Path) -> None:
    assert load_spec(spec, profile="short").spec.threads["main"] == (MessageTemplate(role="system", content="Kind."),)


def test_the_text_of_the_spec_is_not_changed(spec: Path) -> None:
    document = load_spec(spec).document
    assert document.text == SPEC
    assert {path: Path(one.file).name for path, one in document.included.items()} == {
        ("messages", 0, "content"): "long.md",
        ("messages", 1, "messages", 0, "content"): "said.md",
        ("messages", 1, "messages", 1, "content"): "long.md",
        ("threads", "side", 0, "content"): "tool.txt",
        ("states", "ask", "system"): "long.md",
        ("states", "ask", "messages", 0, "content"): "said.md",
        ("states", "ask", "say", 0, "content"): "said.md",
        ("states", "ask", "say", 1, "messages", 0, "content"): "said.md",
        ("flows", "inner", "messages", 0, "content"): "said.md",
    }


def test_a_file_outside_of_the_project_is_not_read(spec: Path) -> None:
    project = spec.parent
    with pytest.raises(SpecError) as refused:
        load_spec(spec, project=project)
    (issue,) = refused.value.issues
    assert (issue.code, str(issue.place)) == ("FR709", f"{spec}:12:39")
    assert issue.message == f"the file '../shared/tool.txt' lies outside of the project {project}"


def test_a_link_out_of_the_project_is_not_followed(spec: Path, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}.txt"
    outside.write_text("secret")
    (spec.parent / "prompts" / "said.md").unlink()
    (spec.parent / "prompts" / "said.md").symlink_to(outside)
    with pytest.raises(SpecError) as refused:
        load_spec(spec, project=find_project(spec))
    assert {issue.code for issue in refused.value.issues} == {"FR709"}
    assert "secret" not in str(refused.value)


def test_each_file_is_read_once_when_profiles_are_checked(spec: Path) -> None:
    files = ParsedOnce()
    first = load_spec(spec, files=files)
    (spec.parent / "prompts" / "long.md").write_text("changed")
    assert load_spec(spec, files=files).spec == first.spec
    assert load_spec(spec).spec != first.spec


def test_a_byte_order_mark_is_a_warning_and_no_part_of_the_text(spec: Path) -> None:
    file = spec.parent / "prompts" / "short.md"
    file.write_bytes(b"\xef\xbb\xbfKind.\n")
    loaded = load_spec(spec, profile="short")
    assert loaded.spec.threads["main"][0] == MessageTemplate(role="system", content="Kind.")
    assert [(issue.code, issue.severity, issue.place.file) for issue in loaded.issues] == [
        ("FR110", "warning", str(file))
    ]


PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)

IMAGES = """\
flowrun: v1
name: images
version: 1.0.0
model: {backend: openai, base_url: "http://localhost:8000/v1", name: some}
inputs: {photo: {type: string}}
messages:
  - role: user
    content:
      - {text: "What are {{ inputs.photo }}?"}
      - {image: pixel.png}
      - {image: "https://example.invalid/a.png"}
      - {image: "data:image/gif;base64,R0lGOA=="}
      - {image: "{{ inputs.photo }}"}
states: {ask: {type: chat, next: done}, done: {type: end}}
"""


def test_an_image_that_the_spec_names_is_a_data_uri(tmp_path: Path) -> None:
    spec = tmp_path / "images.yaml"
    spec.write_text(IMAGES)
    (tmp_path / "pixel.png").write_bytes(PIXEL)
    uri = f"data:image/png;base64,{base64.b64encode(PIXEL).decode()}"
    loaded = load_spec(spec)
    (message,) = loaded.spec.threads["main"]
    assert isinstance(message, MessageTemplate)
    assert message.content == (
        TextPart(text="What are {{ inputs.photo }}?"),
        ImagePart(image=uri),
        ImagePart(image="https://example.invalid/a.png"),
        ImagePart(image="data:image/gif;base64,R0lGOA=="),
        ImagePart(image="{{ inputs.photo }}"),
    )
    stored = {
        spec: IMAGES.encode(),
        tmp_path / "pixel.png": next(iter(loaded.document.included.values())).text.encode(),
    }
    assert load_spec(spec, files=StoredFiles(stored)).spec == loaded.spec


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        pytest.param(b"no image", "FR712", "the file 'pixel.png' is no image that models read", id="a text"),
        pytest.param(None, "FR706", "there is no file 'pixel.png'", id="no file"),
    ],
)
def test_a_file_that_is_no_image_is_refused(tmp_path: Path, content: bytes | None, code: str, message: str) -> None:
    spec = tmp_path / "images.yaml"
    spec.write_text(IMAGES)
    if content is not None:
        (tmp_path / "pixel.png").write_bytes(content)
    with pytest.raises(SpecError) as refused:
        load_spec(spec)
    (issue,) = refused.value.issues
    assert (issue.code, issue.message, str(issue.place)) == (code, message, f"{spec}:10:17")
