"""The page has the full transcript, loads nothing, and treats all content of a run as text."""

import base64
import hashlib
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Final

import pytest

from flowrun.errors import Failure
from flowrun.transcript import Transcript, build_transcript, render_html
from flowrun.transcript.model import Child
from flowrun.transcript.overlay import anchor
from tests.flows import ADD, AGENT, graph_of
from tests.unit.transcript.recording import Recording, World, calls, said
from tests.unit.transcript.runs import REVIEW, RUNS, agent, answered, family, waiting

VOID: Final = {"meta", "br", "hr", "img", "input", "link"}
SELF_CLOSED: Final = {"rect", "path", "circle", "line"}
NASTY: Final = [
    "</script><script>alert(1)</script>",
    "</style><style>*{display:none}</style>",
    '"><img src=x onerror=alert(1)>',
    "<svg onload=alert(1)>",
    "'-alert(1)-'",
    "{{ 7 * 7 }} {% raw %} &amp; &lt;",
    "]]> --> <!--",
    "javascript:alert(1)",
]


class Page(HTMLParser):
    """A page as it is nested: its elements with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.wrong: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        self.wrong += [f"<{tag}> is not closed" for tag in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in SELF_CLOSED:
            self.wrong.append(f"<{tag}/>")

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.wrong.append(f"</{tag}> closes something else")

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def with_tag(self, tag: str) -> list[dict[str, str]]:
        """Return the attributes of every element of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(recording: Recording) -> Page:
    return Page(render_html(recording.graph, transcript_of(recording)))


def transcript_of(recording: Recording) -> Transcript:
    return build_transcript(recording.graph, recording.recorded, recording.events)


def anchors(transcript: Transcript) -> list[str]:
    """Return the anchors of all visits of a run and its children."""
    found = []
    for visit in transcript.visits:
        found.append(anchor(transcript, visit))
        for activity in visit.activities:
            if isinstance(activity, Child) and activity.transcript is not None:
                found += anchors(activity.transcript)
    return found


every_run = pytest.mark.parametrize("run", [pytest.param(run, id=name) for name, run in RUNS.items()])


@every_run
def test_a_page_is_nested_well(run: Callable[[], Recording]) -> None:
    assert page_of(run()).wrong == []


@every_run
def test_a_page_has_every_step_once(run: Callable[[], Recording]) -> None:
    recording = run()
    steps = [a["id"] for a in page_of(recording).with_tag("details") if a.get("class", "").startswith("step ")]
    assert steps == anchors(transcript_of(recording))


@every_run
def test_every_id_is_there_once_and_every_link_leads_to_one(run: Callable[[], Recording]) -> None:
    page = page_of(run())
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    links = [attributes["href"] for attributes in page.with_tag("a")]
    assert len(ids) == len(set(ids))
    assert [link for link in links if link[0] != "#" or link[1:] not in ids] == []


# --- self-contained -----------------------------------------------------------------------------------------------


@every_run
def test_a_page_loads_nothing(run: Callable[[], Recording]) -> None:
    page = page_of(run())
    tags = {tag for tag, _ in page.elements}
    assert (
        tags & {"link", "img", "iframe", "object", "embed", "base", "form", "image", "use", "video", "audio"} == set()
    )
    names = {name for _, attributes in page.elements for name in attributes}
    assert {name for name in names if name.startswith("on")} | (names & {"src", "srcset", "style", "action"}) == set()
    style = "".join(re.findall(r"<style>(.*?)</style>", render_html(run().graph, transcript_of(run())), re.DOTALL))
    assert "url(" not in style
    assert "@import" not in style


def test_the_policy_lets_only_the_pages_own_style_and_script_run() -> None:
    recording = agent()
    text = render_html(recording.graph, transcript_of(recording))
    script_of_its_own(text)


def script_of_its_own(text: str) -> str:
    """Return the script of a page whose policy lets only this and its own style run."""
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    policy = next(meta["content"] for meta in Page(text).with_tag("meta") if "http-equiv" in meta)
    assert policy.split("; ") == [
        "default-src 'none'",
        f"style-src {digest(style)}",
        f"script-src {digest(script)}",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    return str(script)


def digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


# --- what was said in a run is text -------------------------------------------------------------------------------


def nasty_run(text: str) -> Recording:
    """A run with a text in every place where a run can have one."""
    world = World(
        replies=[calls(("add", '{"a": 1, "b": 2}'), (text, text)), said(text)],
        functions={"tools.numbers:add": (0.1, {text: [text, Failure(name="tool.failed", message=text).message]})},
    )
    return Recording(graph_of(ADD, AGENT), world, {"question": text}, run="r1")


@pytest.mark.parametrize("text", NASTY)
def test_whatever_is_said_stays_text(text: str) -> None:
    nasty, harmless = page_of(nasty_run(text)), page_of(nasty_run("harmless"))
    assert nasty.wrong == []
    assert [tag for tag, _ in nasty.elements] == [tag for tag, _ in harmless.elements]
    shown = "".join(nasty.text)
    assert shown.count(text) >= 4  # the question, the call's arguments, the answer, the output


@pytest.mark.parametrize("text", NASTY)
def test_the_runs_own_id_stays_text(text: str) -> None:
    recording = Recording(graph_of(REVIEW), World(), {"amount": 5}, run=text)
    assert page_of(recording).wrong == []
    assert [tag for tag, _ in page_of(recording).elements].count("script") == 1


def test_what_no_page_may_hold_is_marked() -> None:
    said_so = "a\x00b\x1b[31m \ud800 c\x85"
    recording = Recording(graph_of(ADD, AGENT), World(replies=[said(said_so)]), {"question": said_so})
    text = render_html(recording.graph, transcript_of(recording))
    mark = "\N{REPLACEMENT CHARACTER}"
    assert f"a{mark}b{mark}[31m {mark} c{mark}" in text
    assert text.encode().decode() == text


# --- what it shows ------------------------------------------------------------------------------------------------


def test_the_page_says_what_it_is_about() -> None:
    text = "".join(page_of(answered()).text)
    for part in ("test", "1.0.0", "succeeded", "2026-11-23 12:00:00 UTC", "Pay 150?", "when outputs.review.ok", "e-17"):
        assert part in text


def test_what_needs_somebody_is_on_top() -> None:
    text = " ".join(" ".join(page_of(waiting()).text).split())
    assert text.index("state review waits for an answer") < text.index("Steps")


def test_long_texts_are_folded_and_whole() -> None:
    long = "\n".join(f"line {number}" for number in range(100))
    world = World(replies=[said(long)])
    page = page_of(Recording(graph_of(ADD, AGENT), world, {"question": "?"}))
    assert long in page.text
    assert "line 0 line 1 " in "".join(page.text)


def test_a_long_run_is_folded() -> None:
    more = AGENT.replace("max_rounds: 3, max_steps: 20", "max_rounds: 30, max_steps: 90")
    replies = [*(calls(("add", '{"a": 1, "b": 2}')) for _ in range(25)), said("done")]
    world = World(replies=replies, functions={"tools.numbers:add": (0.1, 3)})
    page = page_of(Recording(graph_of(ADD, more), world, {"question": "?"}))
    steps = [a for a in page.with_tag("details") if a.get("class", "").startswith("step ")]
    assert (len(steps), [a["id"] for a in steps if "open" in a]) == (52, ["r1/52"])


def test_each_flow_is_drawn_once_with_all_its_runs() -> None:
    page = page_of(family())
    assert [figure["data-flow"] for figure in page.with_tag("figure")] == ["0", "1", "2"]
    assert len(page.with_tag("style")) == 1
    counts = [text for text in page.text if re.fullmatch(r"!? ?×\d+", text)]
    assert counts == ["! ×3", "×2", "×2", "×3", "×3", "×3"]  # the states of a flow, then its edges
