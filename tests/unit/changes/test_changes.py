"""Each change of a spec has its impact, and a version number is raised enough for it or not."""

from typing import Any

import pytest

from flowrun.changes import Change, Side, VersionVerdict, classify, classify_sides, compare_version
from flowrun.changes.schemas import compare_schemas
from flowrun.spec import parse_text
from flowrun.spec.model import Spec
from tests.flows import spec_of

BASE = """\
description: Answers.
inputs:
  question: {type: string, default: Hello?}
  city: {type: string, enum: [Dallas, Oslo]}
sampling: {temperature: 0.0}
tools:
  look: {entrypoint: "tools.weather:look", description: Looks.}
messages:
  - {role: system, content: Be kind.}
  - {role: user, content: "{{ inputs.question }}"}
vars: {tries: 0}
states:
  ask:
    type: chat
    routes:
      - {when: reply.tool_calls, to: act}
      - {to: approve}
  act: {type: tools, next: ask}
  approve: {type: wait, prompt: Fine?, schema: {type: boolean}, routes: [{when: outputs.approve, to: done}, {to: gone}]}
  rate: {type: decide, prompt: Good?, choices: {good: "it is", bad: ""}, next: done}
  done: {type: end, output: {answer: "{{ reply.content }}", sources: ["{{ results }}"]}}
  gone: {type: end, status: failed}
flows:
  small:
    inputs: {word: {type: string}}
    messages: [{role: user, content: "{{ inputs.word }}"}]
limits: {max_rounds: 8}
"""


LOOK = '  look: {entrypoint: "tools.weather:look", description: Looks.}\n'


def changes(old: str, new: str) -> list[tuple[str, str, str]]:
    """Return the changes, as (impact, path, what), after a part of the text ``BASE`` is replaced."""
    assert old in BASE
    found = classify(spec_of(BASE), spec_of(BASE.replace(old, new, 1)))
    return [(change.impact, ".".join(map(str, change.path)), change.what) for change in found]


ASKED = """\
  look:
    entrypoint: tools.weather:look
    description: Looks.
    approve: true
    with: {hidden: 1}
    parameters:
      type: object
      properties: {city: {type: string}, hidden: {type: integer}}
      required: [city]
"""


def test_what_people_answer_about_calls_is_part_of_the_contract() -> None:
    def found(old: str, new: str) -> list[tuple[str, str, str]]:
        asked = BASE.replace(LOOK, ASKED)
        assert old in asked
        changed = classify(spec_of(asked), spec_of(asked.replace(old, new, 1)))
        return [(change.impact, ".".join(map(str, change.path)), change.what) for change in changed]

    assert found("    approve: true\n", "") == [
        ("breaking", "tools.look.approve", "approval removed: nobody is asked any more")
    ]
    assert found("approve: true", "approve: {when: call.arguments.city == 'Oslo'}") == [
        ("internal", "tools.look.approve.when", "added")
    ]
    assert found("required: [city]", "required: []") == [
        ("compatible", "tools.look.parameters.required", "'city' may be left out now")
    ]
    assert found("city: {type: string}", "city: {type: integer}") == [
        ("breaking", "tools.look.parameters.properties.city.type", "type changed")
    ]
    assert found("hidden: {type: integer}", "hidden: {type: number}") == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param(
            "  city: {type: string, enum: [Dallas, Oslo]}\n",
            "",
            [("breaking", "inputs.city", "input removed")],
            id="input removed",
        ),
        pytest.param(
            'choices: {good: "it is", bad: ""}',
            "choices: [good, bad, ugly]",
            [
                ("internal", "states.rate.choices.good", "changed"),
                ("internal", "states.rate.choices.ugly", "added"),
            ],
            id="choices of a decision",
        ),
        pytest.param(
            "description: Looks.}",
            "description: Looks., approve: true}",
            [("breaking", "tools.look.approve", "approval added: runs now pause for an answer")],
            id="approval added",
        ),
        pytest.param(
            "sampling:",
            "  day: {type: string}\nsampling:",
            [("breaking", "inputs.day", "required input added")],
            id="required input added",
        ),
        pytest.param(
            "sampling:",
            "  day: {type: string, default: today}\nsampling:",
            [("compatible", "inputs.day", "input with a default added")],
            id="input with default added",
        ),
        pytest.param(
            ", default: Hello?",
            "",
            [("breaking", "inputs.question.default", "default removed, so the input is required now")],
            id="default removed",
        ),
        pytest.param(
            "enum: [Dallas, Oslo]",
            "enum: [Dallas, Oslo], default: Oslo",
            [("compatible", "inputs.city.default", "default added, so the input may be left out now")],
            id="default added",
        ),
        pytest.param(
            "Hello?", "Hi?", [("compatible", "inputs.question.default", "default changed")], id="default changed"
        ),
        pytest.param(
            "[Dallas, Oslo]",
            "[Oslo]",
            [("breaking", "inputs.city.enum", "allowed values narrowed")],
            id="enum smaller",
        ),
        pytest.param(
            "[Dallas, Oslo]",
            "[Oslo, Dallas, Rome]",
            [("compatible", "inputs.city.enum", "allowed values widened")],
            id="enum larger",
        ),
        pytest.param(
            "answer:",
            "reply:",
            [
                ("breaking", "states.done.output.answer", "output removed"),
                ("compatible", "states.done.output.reply", "output added"),
            ],
            id="output's key renamed",
        ),
        pytest.param(
            "{{ reply.content }}",
            "It is {{ reply.content }}",
            [("internal", "states.done.output.answer", "output changed")],
            id="output's text changed",
        ),
        pytest.param(
            '{answer: "{{ reply.content }}", sources: ["{{ results }}"]}',
            '"{{ reply.content }}"',
            [("breaking", "states.done.output", "output is no longer of type object")],
            id="output's shape changed",
        ),
        pytest.param(
            '["{{ results }}"]', "[]", [("breaking", "states.done.output.sources.0", "output removed")], id="item gone"
        ),
        pytest.param(
            "gone: {type: end, status: failed}",
            "gone: {type: end, status: failed, output: {why: unknown}}",
            [("compatible", "states.gone.output", "output added")],
            id="output added",
        ),
        pytest.param(
            "status: failed", "status: succeeded", [("breaking", "states.gone.status", "status changed")], id="status"
        ),
        pytest.param("gone}]}", "done}]}", [("internal", "states.approve.routes.1.to", "changed")], id="route"),
        pytest.param(
            "  gone: {type: end, status: failed}",
            "  lost: {type: end, status: failed}",
            [("breaking", "states.gone", "end removed"), ("compatible", "states.lost", "end added")],
            id="end renamed",
        ),
        pytest.param(
            "gone: {type: end, status: failed}",
            "gone: {type: route, next: done}",
            [("breaking", "states.gone.type", "type changed")],
            id="end replaced by another state",
        ),
        pytest.param(
            "act: {type: tools, next: ask}",
            "act: {type: tools, next: more}\n  more: {type: chat, next: ask}",
            [("compatible", "states.more", "chat state added"), ("internal", "states.act.next", "changed")],
            id="state added",
        ),
        pytest.param(
            "act: {type: tools, next: ask}",
            "act: {type: tools, next: sure}\n  sure: {type: wait, prompt: Sure?, next: ask}",
            [
                ("breaking", "states.sure", "wait state added: runs now pause for an answer"),
                ("internal", "states.act.next", "changed"),
            ],
            id="wait state added",
        ),
        pytest.param(
            "schema: {type: boolean}",
            'schema: {type: [boolean, "null"]}',
            [("compatible", "states.approve.schema.type", "type widened")],
            id="answer widened",
        ),
        pytest.param("Fine?", "OK?", [("internal", "states.approve.prompt", "changed")], id="prompt of a wait state"),
        pytest.param("Be kind.", "Be brief.", [("internal", "messages.0.content", "changed")], id="prompt"),
        pytest.param(
            "  - {role: system, content: Be kind.}\n", "", [("internal", "messages.0", "removed")], id="message removed"
        ),
        pytest.param(
            "temperature: 0.0", "temperature: 1", [("internal", "sampling.temperature", "changed")], id="sampling"
        ),
        pytest.param("Looks.", "Looks well.", [("internal", "tools.look.description", "changed")], id="tool"),
        pytest.param("Answers.", "Answers!", [("internal", "description", "changed")], id="description"),
        pytest.param("tries: 0", "tries: false", [("internal", "vars.tries", "changed")], id="variable"),
        pytest.param("max_rounds: 8", "max_rounds: 9", [("internal", "limits.max_rounds", "changed")], id="limit"),
        pytest.param(
            "{max_rounds: 8}",
            "{max_rounds: 8, tokens: {total: 100}}",
            [("internal", "limits.tokens", "added")],
            id="limit of tokens",
        ),
        pytest.param(
            "{word: {type: string}}",
            "{term: {type: string}}",
            [
                ("internal", "flows.small.inputs.word", "input removed"),
                ("internal", "flows.small.inputs.term", "required input added"),
            ],
            id="local flow",
        ),
        pytest.param("temperature: 0.0", "temperature: 0", [], id="another notation of a number"),
        pytest.param("tools:\n", "# A comment.\ntools:\n", [], id="comment"),
        pytest.param(
            "{role: system, content: Be kind.}", "{content: 'Be kind.', role: system}", [], id="quotes and order"
        ),
    ],
)
def test_each_change_has_its_impact(old: str, new: str, expected: list[tuple[str, str, str]]) -> None:
    assert changes(old, new) == expected


def test_breaking_changes_come_first() -> None:
    old, new = spec_of(BASE), spec_of(BASE.replace("Be kind.", "Be.").replace("status: failed", "status: succeeded"))
    assert [change.impact for change in classify(old, new)] == ["breaking", "internal"]


def test_a_change_shows_the_values() -> None:
    old, new = spec_of(BASE), spec_of(BASE.replace("max_rounds: 8", "max_rounds: 9"))
    expected = Change(impact="internal", path=("limits", "max_rounds"), what="changed", old=8, new=9)
    assert classify(old, new) == [expected]


# --- schemas of inputs --------------------------------------------------------------------------------------------

OBJECT = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
TREE = {
    "$ref": "#/$defs/n",
    "$defs": {"n": {"type": "object", "properties": {"l": {"$ref": "#/$defs/n"}, "r": {"$ref": "#/$defs/n"}}}},
}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param({"type": "string"}, {"type": ["string", "null"]}, ["compatible type"], id="one more type"),
        pytest.param({"type": ["string", "null"]}, {"type": "string"}, ["breaking type"], id="one type less"),
        pytest.param({"type": "integer"}, {"type": "number"}, ["compatible type"], id="integers are numbers"),
        pytest.param({"type": "number"}, {"type": "integer"}, ["breaking type"], id="not all numbers are integers"),
        pytest.param({"type": "string"}, {}, ["compatible type"], id="any type"),
        pytest.param({}, {"type": "string"}, ["breaking type"], id="not any type"),
        pytest.param({"enum": ["a", "b"]}, {"type": "string", "enum": ["a", "b"]}, [], id="redundant type"),
        pytest.param({"const": 1}, {"enum": [1, 2]}, ["compatible enum"], id="constant to one of two"),
        pytest.param({"type": "string", "enum": ["a"]}, {"type": "string"}, ["compatible enum"], id="any text"),
        pytest.param({"minimum": 0}, {"minimum": 1}, ["breaking minimum"], id="minimum higher"),
        pytest.param({"minimum": 0}, {"minimum": -1}, ["compatible minimum"], id="minimum lower"),
        pytest.param({"minimum": 0}, {"minimum": 0.0}, [], id="the same minimum"),
        pytest.param({"minimum": 0}, {"exclusiveMinimum": 0}, ["breaking minimum"], id="minimum itself not allowed"),
        pytest.param({"exclusiveMaximum": 9}, {"maximum": 9}, ["compatible maximum"], id="maximum itself allowed"),
        pytest.param({"maximum": 9}, {"maximum": 8}, ["breaking maximum"], id="maximum lower"),
        pytest.param({}, {"maxLength": 8}, ["breaking maxLength"], id="length bounded"),
        pytest.param({"maxLength": 8}, {"maxLength": 9}, ["compatible maxLength"], id="longer texts"),
        pytest.param({"minItems": 1}, {}, ["compatible minItems"], id="fewer items"),
        pytest.param({"pattern": "a"}, {"pattern": "b"}, ["breaking pattern"], id="pattern changed"),
        pytest.param({"pattern": "a"}, {}, ["compatible pattern"], id="pattern removed"),
        pytest.param({"uniqueItems": False}, {}, [], id="flag without effect"),
        pytest.param({"multipleOf": 4}, {"multipleOf": 2}, ["compatible multipleOf"], id="multiples of a divisor"),
        pytest.param({"multipleOf": 2}, {"multipleOf": 3}, ["breaking multipleOf"], id="other multiples"),
        pytest.param(
            {"title": "a"}, {"title": "b", "description": "c"}, ["internal title", "internal description"], id="notes"
        ),
        pytest.param(OBJECT, {**OBJECT, "required": []}, ["compatible required"], id="nothing required"),
        pytest.param({**OBJECT, "required": []}, OBJECT, ["breaking required"], id="something required"),
        pytest.param(OBJECT, {**OBJECT, "additionalProperties": False}, ["breaking additionalProperties"], id="closed"),
        pytest.param(
            {**OBJECT, "additionalProperties": False}, OBJECT, ["compatible additionalProperties"], id="opened"
        ),
        pytest.param(OBJECT, {**OBJECT, "properties": {}}, ["compatible properties.a"], id="property not described"),
        pytest.param(
            {**OBJECT, "additionalProperties": False},
            {"type": "object", "properties": {}, "additionalProperties": False},
            ["compatible required", "breaking properties.a"],
            id="property refused",
        ),
        pytest.param(
            {"type": "array", "items": {"type": "string"}},
            {"type": "array", "items": {"type": "integer"}},
            ["breaking items.type"],
            id="other items",
        ),
        pytest.param(
            {"anyOf": [{"type": "string"}]}, {"anyOf": [{"type": "string"}, {}]}, ["compatible anyOf"], id="one more"
        ),
        pytest.param({"anyOf": [{"type": "string"}, {}]}, {"anyOf": [{}]}, ["breaking anyOf"], id="one less"),
        pytest.param(
            {"allOf": [{"minimum": 1}, {"type": "integer"}]},
            {"allOf": [{"minimum": 1}]},
            ["compatible allOf"],
            id="one requirement less",
        ),
        pytest.param(
            {"oneOf": [{"minimum": 1}]}, {"oneOf": [{"minimum": 2}]}, ["breaking oneOf.0.minimum"], id="option narrowed"
        ),
        pytest.param({"not": {"const": 1}}, {"not": {"const": 2}}, ["breaking not"], id="incomparable keyword"),
        pytest.param(
            {"$ref": "#/$defs/t", "$defs": {"t": {"type": "string"}}}, {"type": "string"}, [], id="a reference resolved"
        ),
        pytest.param(
            TREE,
            {**TREE, "$defs": {"n": {**TREE["$defs"]["n"], "maxProperties": 1}}},  # type: ignore[index]
            ["breaking maxProperties"],
            id="a schema that contains itself",
        ),
    ],
)
def test_schemas_are_narrower_or_wider(old: Any, new: Any, expected: list[str]) -> None:
    found = compare_schemas(old, new, ())
    assert [f"{change.impact} {'.'.join(map(str, change.path))}" for change in found] == expected


# --- profiles and the environment ---------------------------------------------------------------------------------

PROFILED = """\
flowrun: v1
name: test
version: 1.0.0
inputs: {q: {type: string, default: a}}
model: {name: "${MODEL:-m}"}
profiles:
  quick: {sampling: {temperature: 1}, inputs: {q: {default: b}}}
"""


def side(text: str) -> Side:
    """Parse one version of a spec as ``flowrun diff`` does."""
    plain = parse_text(text, require_environment=False)
    quick = parse_text(text, profile="quick") if "quick" in plain.document.value.get("profiles", {}) else None
    profiles = {} if quick is None else {"quick": Side(spec=quick.spec, written=quick.document.written)}
    return Side(spec=plain.spec, written=plain.document.written, profiles=profiles)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param(
            "temperature: 1", "temperature: 2", ["internal profiles.quick.sampling.temperature"], id="changed"
        ),
        pytest.param(
            "{q: {default: b}}", "{q: {default: null}}", ["breaking profiles.quick.inputs.q.default"], id="narrowed"
        ),
        pytest.param("default: a}}", "default: c}}", ["compatible inputs.q.default"], id="not of the profile"),
        pytest.param("  quick:", "  slow:", ["breaking profiles.quick"], id="removed"),
        pytest.param("${MODEL:-m}", "${NAME:-m}", ["internal model.name"], id="environment"),
    ],
)
def test_profiles_and_references_to_the_environment(old: str, new: str, expected: list[str]) -> None:
    found = classify_sides(side(PROFILED), side(PROFILED.replace(old, new)))
    assert [f"{change.impact} {'.'.join(map(str, change.path))}" for change in found] == expected


# --- versions -----------------------------------------------------------------------------------------------------


def test_a_verdict_names_the_version_that_is_needed() -> None:
    verdict = compare_version("1.2.3", "1.2.4", [Change(impact="breaking", path=("inputs", "a"), what="input removed")])
    assert verdict == VersionVerdict(old="1.2.3", new="1.2.4", impact="breaking", raised_enough=False, needed="2.0.0")
    assert verdict.sentence == "version 1.2.3 -> 1.2.4: a breaking change needs 2.0.0"


@pytest.mark.parametrize(
    ("old", "impact", "needed"),
    [
        ("1.2.3", "breaking", "2.0.0"),
        ("1.2.3", "compatible", "1.3.0"),
        ("1.2.3", "internal", "1.2.4"),
        ("0.2.3", "breaking", "0.3.0"),
        ("0.2.3", "compatible", "0.3.0"),
        ("0.2.3", "internal", "0.2.4"),
        ("2.0.0-rc.1", "breaking", "2.0.0"),
        ("1.2.3+build.5", "internal", "1.2.4"),
    ],
)
def test_each_impact_needs_its_version(old: str, impact: Any, needed: str) -> None:
    assert compare_version(old, old, [Change(impact=impact, path=(), what="changed")]).needed == needed


@pytest.mark.parametrize(
    ("old", "new", "impact", "enough"),
    [
        ("1.0.0", "1.0.0", None, True),
        ("1.0.0", "1.0.1", None, True),
        ("1.0.0", "0.9.0", None, False),
        ("1.0.0", "1.0.0", "internal", False),
        ("1.0.0", "1.0.1", "internal", True),
        ("1.0.0", "1.0.1", "compatible", False),
        ("1.0.0", "1.9.0", "breaking", False),
        ("1.0.0", "2.0.0", "breaking", True),
        ("1.0.0", "3.0.0", "breaking", True),
        ("1.0.0", "2.0.0-rc.1", "breaking", True),
        ("2.0.0-rc.1", "2.0.0-rc.2", "breaking", True),
        ("2.0.0-rc.2", "2.0.0-rc.10", "breaking", True),
        ("2.0.0-rc.2", "2.0.0-rc.2", "breaking", False),
        ("2.0.0-rc.1", "2.0.0", "breaking", True),
        ("2.0.0", "2.0.0-rc.1", "internal", False),
        ("1.0.0", "1.0.0+fixed", "internal", False),
        ("0.1.0", "0.2.0", "breaking", True),
    ],
)
def test_versions_are_raised_enough_or_not(old: str, new: str, impact: Any, enough: bool) -> None:
    found = [] if impact is None else [Change(impact=impact, path=(), what="changed")]
    assert compare_version(old, new, found).raised_enough is enough


def test_a_spec_equals_itself() -> None:
    spec: Spec = spec_of(BASE)
    assert classify(spec, spec) == []
