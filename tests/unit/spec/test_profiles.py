"""A profile is merged over its spec, and the positions of its values are lines of the profile."""

from typing import Any

import pytest

from flowrun.errors import Place, UsageError
from flowrun.spec import parse_text, place_of
from flowrun.spec.profiles import merge_profile
from flowrun.spec.yaml.reader import read_yaml
from tests.unit.spec.specs import reported, spec_text


def merged(base: str, profile: str) -> Any:
    document, _ = merge_profile(read_yaml(f"{base}\nprofiles: {{p: {profile}}}\n", "f"), "p")
    return {key: value for key, value in document.value.items() if key != "profiles"}


@pytest.mark.parametrize(
    ("base", "profile", "value"),
    [
        pytest.param("a: {b: 1, c: 2}", "{a: {b: 3, d: 4}}", {"a": {"b": 3, "c": 2, "d": 4}}, id="mappings merge"),
        pytest.param("a: [1, 2]", "{a: [3]}", {"a": [3]}, id="lists replace"),
        pytest.param("a: {b: 1}", "{a: 2}", {"a": 2}, id="a scalar replaces a mapping"),
        pytest.param("a: 1", "{a: {b: 2, c: null}}", {"a": {"b": 2}}, id="a mapping replaces a scalar"),
        pytest.param("a: {b: 1, c: 2}", "{a: {b: null, x: null}}", {"a": {"c": 2}}, id="null removes"),
        pytest.param("a: 1", "{a: null}", {}, id="null removes at the top"),
        pytest.param("a: 1", "{}", {"a": 1}, id="nothing"),
        pytest.param("name: a", "{name: b, flowrun: v2, version: '2', profiles: {}}", {"name": "a"}, id="not its name"),
        pytest.param(
            "model: {name: a, engine: {b: 1}, chat_template_kwargs: {c: 2}, tool_call_parser: d, sampling: {e: 3}}",
            "{model: {name: z, engine: {y: 1}, sampling: {x: 2}}}",
            {"model": {"name": "z", "engine": {"y": 1}, "tool_call_parser": "d", "sampling": {"e": 3, "x": 2}}},
            id="another model loses the engine of the one below",
        ),
        pytest.param(
            "models: {a: {name: b, engine: {c: 1}}}",
            "{models: {a: {backend: openai}}}",
            {"models": {"a": {"name": "b", "backend": "openai"}}},
            id="another backend too",
        ),
        pytest.param(
            "model: {name: a, engine: {b: 1, c: 2}}",
            "{model: {engine: {b: 3}}}",
            {"model": {"name": "a", "engine": {"b": 3, "c": 2}}},
            id="the engine of the same model merges",
        ),
        pytest.param(
            "flows: {f: {model: {name: a, engine: {b: 1}}}}",
            "{flows: {f: {model: {name: z}}}}",
            {"flows": {"f": {"model": {"name": "z"}}}},
            id="the model of a local flow",
        ),
        pytest.param(
            "states: {s: {type: chat, next: a, tools: []}}",
            "{states: {s: {type: end}}}",
            {"states": {"s": {"type": "end"}}},
            id="another type replaces a state",
        ),
        pytest.param(
            "states: {s: {type: chat, next: a}}",
            "{states: {s: {routes: [{to: b}]}}}",
            {"states": {"s": {"type": "chat", "routes": [{"to": "b"}]}}},
            id="routes replace next",
        ),
        pytest.param(
            "states: {s: {type: chat, routes: []}}",
            "{states: {s: {next: b}}}",
            {"states": {"s": {"type": "chat", "next": "b"}}},
            id="next replaces routes",
        ),
        pytest.param(
            "states: {s: {type: chat, routes: [1]}}",
            "{states: {s: {next: null}}}",
            {"states": {"s": {"type": "chat", "routes": [1]}}},
            id="next removed leaves the routes",
        ),
    ],
)
def test_a_profile_is_merged(base: str, profile: str, value: object) -> None:
    assert merged(base, profile) == value


SPEC = spec_text(
    """\
    model:
      name: base
      engine: {dtype: float32}
    profiles:
      big:
        model:
          name: big
          engine:
            dtype: bfloat16
      server: {}
    """
)


def test_merging_leaves_the_document_below_as_it_is() -> None:
    document = read_yaml(SPEC, "f")
    merge_profile(document, "big")
    assert document == read_yaml(SPEC, "f")


def test_places_follow_the_values_into_the_profile() -> None:
    document = parse_text(SPEC, "f", profile="big").document
    assert {
        "value": place_of(document, ("models", "default", "engine", "dtype")),
        "key": place_of(document, ("models", "default", "engine", "dtype"), key=True),
        "untouched": place_of(document, ("version",)),
    } == {"value": Place("f", 12, 16), "key": Place("f", 12, 9), "untouched": Place("f", 3, 10)}


def test_a_mistake_in_a_profile_is_reported_once_and_at_its_position() -> None:
    text = spec_text(
        "model: {name: m}\nprofiles:\n  p:\n    model: {nam: x}\n    limits: {max_rounds: 0}\n  q: {modle: {}}\n"
    )
    assert reported(text) == reported(text, profile="p")
    assert [issue.split(": ")[0] for issue in reported(text)] == [
        "7:13 FR201 profiles.p.model.nam",
        "8:26 FR206 profiles.p.limits.max_rounds",
        "9:7 FR201 profiles.q.modle",
    ]


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        pytest.param(SPEC, "bigger", "f has no profile 'bigger'; did you mean 'big'?", id="misspelt"),
        pytest.param(SPEC, "x", "f has no profile 'x'; the profiles are: big, server", id="unknown"),
        pytest.param(spec_text(""), "x", "f has no profile 'x'; there are no profiles", id="no profiles"),
    ],
)
def test_an_unknown_profile_is_the_caller_s_mistake(text: str, name: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_text(text, "f", profile=name)
    assert str(caught.value) == message


@pytest.mark.parametrize("profiles", ["5", "{p: 5}", "[p]", "{p: null}"])
def test_profiles_of_the_wrong_type_are_an_issue(profiles: str) -> None:
    assert [issue.split()[1] for issue in reported(spec_text(f"profiles: {profiles}\n"), profile="p")] == ["FR203"]
