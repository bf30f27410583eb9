"""Every output format draws the full graph, and no text of a spec breaks the format."""

import xml.etree.ElementTree as ElementTree
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from flowrun.drawing import DRAWERS, draw
from flowrun.drawing.layers import make_layers
from flowrun.drawing.layout import Size, lay_out
from flowrun.drawing.picture import Arrow, Box, Mark, Picture, build_picture
from flowrun.drawing.style_sheet import PATH_STYLE
from flowrun.drawing.svg import draw_svg
from flowrun.drawing.widths import code_width, text_width
from flowrun.excerpts import one_line as shorten
from flowrun.spec import load_spec
from flowrun.spec.model import STATES, Spec
from tests.flows import AGENT, spec_of

ROOT = Path(__file__).parents[3]
EVERY_STATE = ROOT / "tests" / "cases" / "valid" / "every_state.yaml"
SVG = "{http://www.w3.org/2000/svg}"

NASTY = """\
states:
  end:
    type: chat
    description: "A <b>\\"bold\\"</b> & ]]> one"
    routes:
      - {when: "vars.a == \\"x|y\\" and '[z](u)' != `q` ; %%{init}%% #35;", to: default}
      - {when: "vars.a == '天気' or \\"ünï\\" in vars.a\\n  and true", to: call}
      - {to: end}
  default: {type: route, next: subgraph, catch: [{to: default}]}
  subgraph: {type: tools, next: nowhere, catch: [{errors: [tool.*], to: call}]}
  call: {type: end, status: failed}
"""


@pytest.fixture(scope="module")
def every_state() -> Spec:
    """Return the flow that has every kind of state."""
    return load_spec(EVERY_STATE).spec


def test_a_picture_has_every_state_and_every_edge() -> None:
    picture = build_picture(spec_of(AGENT))
    assert picture == Picture(
        name="test",
        version="1.0.0",
        description="",
        start="ask",
        boxes=(
            Box(name="ask", kind="chat"),
            Box(name="act", kind="tools"),
            Box(name="done", kind="succeeded"),
        ),
        arrows=(
            Arrow(source="ask", target="act", label="reply.tool_calls", number=1),
            Arrow(source="ask", target="done", label="else", number=2),
            Arrow(source="act", target="ask"),
        ),
    )


def test_every_kind_of_state_is_drawn_here(every_state: Spec) -> None:
    assert {type(state) for state in every_state.states.values()} == set(STATES.values())


def test_a_box_names_what_its_state_uses(every_state: Spec) -> None:
    assert {box.name: box.caption for box in build_picture(every_state).boxes} == {
        "gather": "parallel · facts: #facts, weather: #facts",
        "cities": "map · #facts for each city in inputs.cities",
        "write": "chat",
        "act": "tools",
        "judge": "chat · model judge · thread critic",
        "decide": "route",
        "urgent": "decide · now / later · model judge",
        "weekday": "decide · monday / friday",
        "review": "wait",
        "check": "flow · sub_flow.yaml",
        "announce": "agent · model by template · tools by template · thread critic · stops at publish",
        "print": "call · tools.press:publish",
        "rest": "pause · for {{ 2 * 3 }}s",
        "published": "end · succeeded",
        "refused": "end · failed",
        "apologise": "end · succeeded",
    }


def test_the_edge_of_a_caught_error_is_marked(every_state: Spec) -> None:
    caught = [arrow for arrow in build_picture(every_state).arrows if arrow.caught]
    assert caught == [
        Arrow(source="gather", target="apologise", label="state.timeout, flow.*", caught=True),
        Arrow(source="write", target="apologise", label="any error", caught=True),
        Arrow(source="announce", target="apologise", label="limit.rounds", caught=True),
    ]


def test_an_undefined_state_is_shown_as_missing() -> None:
    assert build_picture(spec_of(NASTY)).boxes[-1] == Box(name="nowhere", kind="missing")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("short", "short"),
        ("one\n  two\ta", "one two a"),
        ("a" * 20, "aaaaaaaaa…"),
        ("12345678 0abc", "12345678…"),
        ("red \x1b[31m", "red \N{REPLACEMENT CHARACTER}[31m"),
    ],
)
def test_long_texts_are_shortened_to_one_line(text: str, expected: str) -> None:
    assert shorten(text, 10) == expected


# --- formats ------------------------------------------------------------------------------------------------------


def test_as_text() -> None:
    assert draw(spec_of("description: Asks and looks up.\n", AGENT), "text") == (
        "test 1.0.0\n"
        "Asks and looks up.\n"
        "\n"
        "▶ ask   chat\n"
        "    1 → act  when reply.tool_calls\n"
        "    2 → done  else\n"
        "\n"
        "○ act   tools\n"
        "    → ask  ↑\n"
        "\n"
        "■ done  end · succeeded\n"
    )


def test_as_text_with_caught_errors_and_missing_states() -> None:
    assert draw(spec_of(NASTY), "text").splitlines()[6:] == [
        "",
        "○ default   route",
        "    → subgraph",
        "    ⇢ default  on any error  ↑",
        "",
        "○ subgraph  tools",
        "    → nowhere",
        "    ⇢ call  on tool.*",
        "",
        "✗ call      end · failed",
        "",
        "? nowhere   no such state",
    ]


def test_as_mermaid() -> None:
    assert draw(spec_of(AGENT), "mermaid") == (
        "---\n"
        'title: "test 1.0.0"\n'
        "---\n"
        "flowchart TD\n"
        "    begin((( )))\n"
        '    s_ask("<b>ask</b><br/>chat")\n'
        '    s_act[/"<b>act</b><br/>tools"\\]\n'
        '    s_done(["<b>done</b><br/>end · succeeded"])\n'
        "    begin --> s_ask\n"
        '    s_ask -->|"1#58; reply.tool_calls"| s_act\n'
        '    s_ask -->|"2#58; else"| s_done\n'
        "    s_act --> s_ask\n"
        "    classDef k_chat fill:#e8f1fd,stroke:#3b7ddd,color:#1f2328\n"
        "    classDef k_tools fill:#fff3dc,stroke:#c98a12,color:#1f2328\n"
        "    classDef k_succeeded fill:#e3f6e6,stroke:#2e9d4a,color:#1f2328\n"
        "    class s_ask k_chat\n"
        "    class s_act k_tools\n"
        "    class s_done k_succeeded\n"
    )


def test_mermaid_labels_hold_no_mermaid_syntax() -> None:
    lines = draw(spec_of(NASTY), "mermaid").splitlines()
    assert [line.strip() for line in lines if "-->|" in line or "-.->" in line] == [
        's_end -->|"1#58; vars.a == #34;x#124;y#34; and '
        "'#91;z#93;(u)' != #96;q#96; #59; #37;#37;#123;init#125;#37;#37; #35;35#59;\"| s_default",
        "s_end -->|\"2#58; vars.a == '天気' or #34;ünï#34; in vars.a and true\"| s_call",
        's_end -->|"3#58; else"| s_end',
        's_default -.->|"any error"| s_default',
        's_subgraph -.->|"tool.#42;"| s_call',
    ]


def test_as_dot() -> None:
    assert draw(spec_of(AGENT), "dot").splitlines() == [
        'digraph "test" {',
        '    graph [label="test 1.0.0", labelloc=t, rankdir=TB, fontname=Helvetica]',
        '    node [fontname=Helvetica, fontsize=11, margin="0.18,0.08"]',
        "    edge [fontname=Courier, fontsize=10]",
        '    "(start)" [label="", shape=circle, style=filled, fillcolor=black, width=0.15, fixedsize=true]',
        '    "ask" [label="ask\\nchat", shape="box", style="rounded,filled", fillcolor="#e8f1fd", color="#3b7ddd", '
        'tooltip="chat"]',
        '    "act" [label="act\\ntools", shape="octagon", style="filled", fillcolor="#fff3dc", color="#c98a12", '
        'tooltip="tools"]',
        '    "done" [label="done\\nend · succeeded", shape="box", style="rounded,filled,bold", fillcolor="#e3f6e6", '
        'color="#2e9d4a", tooltip="end · succeeded"]',
        '    "(start)" -> "ask"',
        '    "ask" -> "act" [label=" 1: reply.tool_calls ", labeltooltip="1: reply.tool_calls"]',
        '    "ask" -> "done" [label=" 2: else ", labeltooltip="2: else"]',
        '    "act" -> "ask"',
        "}",
    ]


def test_dot_strings_are_escaped() -> None:
    spec = spec_of(
        'states:\n  a: {type: route, routes: [{when: "vars.a == \'\\\\\\\\N\\"\'", to: b}]}\n  b: {type: end}\n'
    )
    assert 'label=" vars.a == \'\\\\\\\\N\\"\' "' in draw(spec, "dot")


@pytest.mark.parametrize("form", DRAWERS)
def test_every_format_names_every_state(form: str, every_state: Spec) -> None:
    drawn = draw(every_state, form)
    assert [name for name in every_state.states if name not in drawn] == []


# --- svg ----------------------------------------------------------------------------------------------------------


def svg_of(spec: Spec) -> ElementTree.Element:
    """Draw a spec and parse the picture as XML."""
    return ElementTree.fromstring(draw(spec, "svg"))


def test_svg_is_accessible_and_self_contained(every_state: Spec) -> None:
    root = svg_of(every_state)
    assert (root.get("role"), root.get("aria-labelledby")) == ("img", "title description")
    assert root.findtext(f"{SVG}title") == "every_state 1.0.0"
    assert root.findtext(f"{SVG}desc") == every_state.description
    tags = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert tags == {"svg", "title", "desc", "style", "rect", "g", "path", "circle", "text"}
    style = root.findtext(f"{SVG}style") or ""
    assert "prefers-color-scheme: dark" in style
    assert "url(" not in style
    assert "@import" not in style


def test_svg_shows_the_full_condition_in_its_tooltip() -> None:
    condition = "reply.parsed.kind in ['question', 'complaint'] and reply.parsed.confidence > 0.85"
    root = svg_of(
        spec_of(f'states:\n  a:\n    type: chat\n    routes: [{{when: "{condition}", to: b}}]\n  b: {{type: end}}\n')
    )
    (label,) = root.findall(f".//{SVG}g[@class='label']")
    assert label.findtext(f"{SVG}title") == f"a → b when {condition}"
    assert label.findtext(f"{SVG}text") == "reply.parsed.kind in ['question', 'complain…"


def test_svg_holds_any_text() -> None:
    root = svg_of(spec_of(NASTY))
    titles = [element.findtext(f"{SVG}title") for element in root.findall(f".//{SVG}g[@class='node chat']")]
    assert titles == ['end: chat\nA <b>"bold"</b> & ]]> one']


Rectangle = tuple[float, float, float, float]


def boxes_of(root: ElementTree.Element) -> list[Rectangle]:
    """Return the outer rectangle of every node and label, as (left, top, right, bottom)."""
    found = []
    for group in root.iter(f"{SVG}g"):
        if (group.get("class") or "").partition(" ")[0] not in ("node", "label"):
            continue
        x, y = map(float, str(group.get("transform")).removeprefix("translate(").removesuffix(")").split())
        rectangles = [
            {key: float(rect.get(key, 0)) for key in ("x", "y", "width", "height")} for rect in group.iter(f"{SVG}rect")
        ]
        if not rectangles:  # a polygon: its size follows from its corners
            paths = [str(path.get("d")) for path in group.iter(f"{SVG}path")]
            corners = [tuple(map(float, pair.split())) for pair in paths[0][1:-2].split(" L")]
            left, top = (min(corner[n] for corner in corners) for n in (0, 1))
            found.append((x + left, y + top, x - left, y - top))
            continue
        found.append(
            (
                x + min(r["x"] for r in rectangles),
                y + min(r["y"] for r in rectangles),
                x + max(r["x"] + r["width"] for r in rectangles),
                y + max(r["y"] + r["height"] for r in rectangles),
            )
        )
    return found


def overlap(one: Rectangle, other: Rectangle) -> bool:
    """Return whether two rectangles share an area, not only a border."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@pytest.mark.parametrize("name", ["every_state", "weather", "nasty"])
def test_no_two_boxes_or_labels_overlap(name: str, every_state: Spec) -> None:
    specs = {
        "every_state": every_state,
        "weather": load_spec(ROOT / "specs" / "weather.yaml").spec,
        "nasty": spec_of(NASTY),
    }
    root = svg_of(specs[name])
    boxes = boxes_of(root)
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    assert [pair for pair in combinations(boxes, 2) if overlap(*pair)] == []
    assert [box for box in boxes if box[0] < -24 or box[1] < -24 or box[2] > width or box[3] > height] == []


# --- a run's path -------------------------------------------------------------------------------------------------


def walked_agent(**marks: Mark) -> Picture:
    """Return the agent's picture with a run that entered ``act`` twice and ended there."""
    picture = build_picture(spec_of(AGENT))
    visits, taken = {"ask": 2, "act": 2}, {"act": 2}
    return structs.replace(
        picture,
        boxes=tuple(
            structs.replace(box, visits=visits.get(box.name, 0), mark=marks.get(box.name), link=f"#{box.name}")
            for box in picture.boxes
        ),
        arrows=tuple(structs.replace(arrow, taken=taken.get(arrow.target, 0)) for arrow in picture.arrows),
    )


def test_svg_shows_what_a_run_visited_and_what_it_did_not() -> None:
    root = ElementTree.fromstring(draw_svg(walked_agent(act="broken")))
    classes = {
        group.findtext(f"{SVG}title"): group.get("class") for group in root.iter(f"{SVG}g") if group.get("class")
    }
    assert {title: kind for title, kind in classes.items() if title} == {
        "ask: chat": "node chat",
        "act: tools": "node tools broken",
        "done: end · succeeded": "node succeeded unseen",
        "start → ask": "edge taken",
        "ask → act when reply.tool_calls": "label taken",
        "ask → done (else)": "label unseen",
        "act → ask": "edge unseen",
    }
    counts = [group.findtext(f"{SVG}text") for group in root.iter(f"{SVG}g") if group.get("class") == "count"]
    assert counts == ["×2", "! ×2"]
    labels = [
        group.findtext(f"{SVG}text") for group in root.iter(f"{SVG}g") if (group.get("class") or "")[:5] == "label"
    ]
    assert labels == ["1: reply.tool_calls ×2", "2: else"]
    assert [link.get("href") for link in root.iter(f"{SVG}a")] == ["#ask", "#act", "#done"]


def test_svg_inside_a_page_has_no_style_sheet() -> None:
    picture = walked_agent(ask="paused")
    root = ElementTree.fromstring(draw_svg(picture, part="flow-1"))
    assert (root.get("role"), root.get("aria-labelledby")) == ("group", "flow-1-title flow-1-description")
    assert {element.get("id") for element in root.iter() if element.get("id")} == {"flow-1-title", "flow-1-description"}
    assert root.findall(f"{SVG}style") == []
    assert PATH_STYLE in (ElementTree.fromstring(draw_svg(picture)).findtext(f"{SVG}style") or "")


def test_svg_without_a_run_has_no_marks_of_a_run(every_state: Spec) -> None:
    picture = build_picture(every_state)
    drawn = draw_svg(picture)
    assert "unseen" not in drawn
    assert "taken" not in drawn
    assert "<a " not in drawn


def test_urls_of_states_are_escaped() -> None:
    picture = structs.replace(build_picture(spec_of(AGENT)), boxes=(Box(name='a"b', kind="chat", link='#"><x y="'),))
    picture = structs.replace(picture, start='a"b', arrows=())
    (link,) = ElementTree.fromstring(draw_svg(picture)).iter(f"{SVG}a")
    assert dict(link.attrib) == {"href": '#"><x y="', "data-state": 'a"b'}


# --- layout -------------------------------------------------------------------------------------------------------


def test_layers_follow_the_edges_and_the_edges_that_close_a_cycle_are_reversed() -> None:
    layering = make_layers(["a", "b", "c"], [("a", "b"), ("b", "c"), ("c", "a"), ("b", "b")])
    nodes = [[cell.node for cell in layer if cell.edge is None] for layer in layering.layers]
    assert nodes == [["a"], [], ["b"], [], ["c"]]
    assert layering.reversed_edges == {2, 3}
    assert sorted(layering.chains) == [0, 1, 2]
    assert [cell.layer for cell in layering.chains[2]] == [0, 1, 2, 3, 4]


def test_an_edge_back_to_an_earlier_state_ends_at_its_target() -> None:
    sizes = {"a": Size(100, 40), "b": Size(100, 40)}
    layout = lay_out(sizes, [("a", "b"), ("b", "a")], [Size(50, 20), Size(0, 0)])
    down, up = layout.edge_lines[0].points, layout.edge_lines[1].points
    assert down[0][1] < down[-1][1]
    assert up[0][1] > up[-1][1]
    assert up[-1][1] == layout.nodes["a"][1] + 20


graphs = st.integers(1, 12).flatmap(
    lambda count: st.tuples(
        st.just([f"n{number}" for number in range(count)]),
        st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=24),
    )
)


@settings(max_examples=60, deadline=None)
@given(graphs)
def test_any_graph_is_laid_out_without_overlaps(graph: Any) -> None:
    nodes, pairs = graph
    edges = [(f"n{source}", f"n{target}") for source, target in pairs]
    sizes = {node: Size(80 + 10 * place, 40) for place, node in enumerate(nodes)}
    layout = lay_out(sizes, edges, [Size(60, 20)] * len(edges))
    found = [(*layout.nodes[node], sizes[node]) for node in nodes]
    found += [(*line.label, Size(60, 20)) for line in layout.edge_lines.values()]
    boxes = [
        (x - s.width / 2 + 1, y - s.height / 2 + 1, x + s.width / 2 - 1, y + s.height / 2 - 1) for x, y, s in found
    ]
    assert [pair for pair in combinations(boxes, 2) if overlap(*pair)] == []
    assert sorted(layout.edge_lines) == [index for index, (source, target) in enumerate(edges) if source != target]


def test_a_long_chain_of_states_is_drawn() -> None:
    states = [f"s{number}: {{type: route, next: s{number + 1}}}" for number in range(1100)]
    spec = spec_of("states:\n  " + "\n  ".join([*states, "s1100: {type: end}"]) + "\n")
    assert draw(spec, "svg").count('class="node') == 1101


def test_widths_follow_the_characters() -> None:
    assert text_width("iiii", 10) < text_width("aaaa", 10) < text_width("WWWW", 10) < text_width("天気天気", 10) + 5
    assert code_width("iiii", 10) == code_width("WWWW", 10) == pytest.approx(24.4)
    assert code_width("e\N{COMBINING ACUTE ACCENT}", 10) == code_width("e", 10)
