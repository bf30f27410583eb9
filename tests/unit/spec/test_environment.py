"""References to the environment are substituted in models and in the selected profile; no issue shows their values."""

import pytest

from flowrun.spec import parse_text
from flowrun.spec.model import Limits, Seconds, TokenLimits
from tests.unit.spec.specs import reported, spec_text


def model_name(written: str, **environ: str) -> tuple[str, set[str]]:
    loaded = parse_text(spec_text(f"model: {{name: {written!r}}}\n"), environ=environ)
    return loaded.spec.models["default"].name, set(loaded.document.shown)


@pytest.mark.parametrize(
    ("written", "environ", "name", "secrets"),
    [
        pytest.param("${A}", {"A": "value"}, "value", {"value"}, id="set"),
        pytest.param("x-${A}/${B}-y", {"A": "1st", "B": "2nd"}, "x-1st/2nd-y", {"1st", "2nd"}, id="inside of a text"),
        pytest.param("${A:-else}", {}, "else", set(), id="default"),
        pytest.param("${A:-else}", {"A": ""}, "else", set(), id="default for an empty one"),
        pytest.param("${A:-else}", {"A": "value"}, "value", {"value"}, id="set beside a default"),
        pytest.param("${A:-http://x:1/v1?a=b}", {}, "http://x:1/v1?a=b", set(), id="default with colons"),
        pytest.param("m${A}", {"A": ""}, "m", set(), id="an empty one is no secret"),
        pytest.param("$${A}", {"A": "value"}, "${A}", set(), id="a literal brace"),
        pytest.param("$A $ {A} {A}", {"A": "value"}, "$A $ {A} {A}", set(), id="no reference"),
        pytest.param("${A}", {"A": "${B}", "B": "b"}, "${B}", {"${B}"}, id="values are not replaced again"),
    ],
)
def test_a_reference_is_replaced(written: str, environ: dict[str, str], name: str, secrets: set[str]) -> None:
    assert model_name(written, **environ) == (name, secrets)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        pytest.param("${LEN}", 4096, id="unquoted and alone"),
        pytest.param("${LEN:-1}", 4096, id="with a default"),
        pytest.param("${NONE:-1.5}", 1.5, id="the default itself"),
        pytest.param("${NONE:-}", None, id="an empty default"),
        pytest.param('"${LEN}"', "4096", id="quoted"),
        pytest.param("${LEN}0", "40960", id="not alone"),
        pytest.param("${TEXT}", " a: b ", id="what YAML would read as a text stays as it is"),
        pytest.param("${SPACED}", 7, id="spaces around a number"),
        pytest.param("$${LEN}", "${LEN}", id="a literal brace"),
    ],
)
def test_an_unquoted_reference_is_read_as_yaml(written: str, value: object) -> None:
    environ = {"LEN": "4096", "TEXT": " a: b ", "SPACED": " 7\n"}
    loaded = parse_text(spec_text(f"model:\n  name: m\n  engine:\n    x: {written}\n"), environ=environ)
    assert loaded.spec.models["default"].engine == {"x": value}


def test_elsewhere_a_reference_is_plain_text() -> None:
    loaded = parse_text(spec_text("description: ${A}\nvars: {model: '${A}'}\nmodel: {name: m}\n"), environ={"A": "a"})
    assert (loaded.spec.description, loaded.spec.vars, loaded.document.shown) == ("${A}", {"model": "${A}"}, {})


def test_the_models_of_local_flows_take_the_environment_too() -> None:
    loaded = parse_text(spec_text("flows: {f: {models: {m: {name: '${A}'}}}}\n"), environ={"A": "a"})
    assert loaded.spec.flows["f"].models["m"].name == "a"


PROFILES = spec_text(
    """\
    model: {name: "${BASE}", engine: {a: "${ENGINE}"}}
    profiles:
      one:
        description: ${ONE}
        model: {name: "${ONE}"}
        sampling: {seed: "$${ONE}"}
      two: {model: {name: "${TWO}"}}
    """
)


def test_only_what_is_left_after_merging_is_replaced_and_required() -> None:
    loaded = parse_text(PROFILES, profile="one", environ={"ONE": "first"})
    spec = loaded.spec
    assert (spec.description, spec.models["default"].name, spec.sampling) == ("first", "first", {"seed": "${ONE}"})
    assert set(loaded.document.shown) == {"first"}
    assert reported(PROFILES, environ={"ENGINE": "e"}) == [
        "4:15 FR130 model.name: the environment variable BASE is not set; set it, or give a default: ${BASE:-...}"
    ]


def test_a_check_needs_no_environment() -> None:
    text = spec_text('model: {name: "${A}", backend: "${B}", timeout: "${T}", api_key: "x${K}"}\n')
    model = parse_text(text, require_environment=False, environ={"T": "5m"}).spec.models["default"]
    assert (model.name, model.backend, model.timeout, model.api_key) == ("${A}", "vllm", Seconds(300), "x${K}")
    text = spec_text("profiles: {p: {limits: {max_rounds: '${N}', timeout: '${T}'}}}\n")
    assert parse_text(text, profile="p", require_environment=False).spec.limits == Limits()
    text = spec_text("profiles: {p: {limits: {tokens: {prompt: '${N}', total: '${T}'}}}}\n")
    assert parse_text(text, profile="p", require_environment=False).spec.limits == Limits()
    limits = parse_text(text.replace("'${T}'", "5000"), profile="p", require_environment=False).spec.limits
    assert limits == Limits(tokens=TokenLimits(total=5000))


@pytest.mark.parametrize("written", ["${}", "${A", "${1A}", "${A-b}", "${A:=b}", "${ A }"])
def test_what_is_no_reference_is_refused(written: str) -> None:
    assert reported(spec_text(f"model: {{name: 'x {written}'}}\n"), environ={"A": "a"}) == [
        f"4:15 FR131 model.name: {written} is not a reference to an environment variable; "
        "write ${VAR} or ${VAR:-default}, or $${ for a literal ${"
    ]


def test_a_number_that_json_does_not_have_is_refused_without_being_shown() -> None:
    assert reported(spec_text("model:\n  name: m\n  engine:\n    x: ${A}\n"), environ={"A": ".inf"}) == [
        "7:8 FR119 model.engine.x: the value of ${A} is not a number that JSON has; "
        "give it a number that JSON has, or quote it"
    ]


SECRET = 's3cr3t "quoted"\nand a second line that is rather long, longer than any message shows'


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('model: {name: m, backend: "${A}"}\n', id="one of several"),
        pytest.param('model: {name: m, timeout: "${A}"}\n', id="another form"),
        pytest.param('model: {name: m, engine: "${A}"}\n', id="another type"),
        pytest.param('model: {name: m, headers: {a: b, c: ["${A}"]}}\n', id="inside of a wrong value"),
        pytest.param('model: "${A}"\n', id="in place of a mapping"),
        pytest.param('models: "${A}"\n', id="in place of the models"),
        pytest.param('model: {name: m}\nprofiles: {p: {limits: {max_rounds: "${A}"}}}\n', id="in a profile"),
        pytest.param('model: {name: m}\nprofiles: {p: {limits: {tokens: {total: "${A}"}}}}\n', id="a limit of tokens"),
        pytest.param('model: {name: m}\nprofiles: {p: {states: {a: {type: "${A}"}}}}\n', id="a state's type"),
        pytest.param('model: {name: m}\nprofiles: {p: {start: "${A}"}}\n', id="a name"),
        pytest.param('model: {name: m}\nprofiles: {p: {messages: ["${A}", "${A}"]}}\n', id="a list"),
    ],
)
def test_no_issue_shows_a_value_from_the_environment(text: str) -> None:
    profile = "p" if "profiles" in text else None
    issues = reported(spec_text(text), profile=profile, environ={"A": SECRET})
    assert issues != []
    assert [issue for issue in issues if "s3cr3t" in issue or "second line" in issue] == []


def test_an_issue_shows_what_is_written_in_place_of_a_value_from_the_environment() -> None:
    assert reported(spec_text('model: {name: m, backend: "${A:-vllm}"}\n'), environ={"A": "vlm"}) == [
        "4:27 FR204 model.backend: backend must be one of vllm, openai, scripted, and is the text '${A:-vllm}'; "
        "write one of vllm, openai, scripted"
    ]


def test_which_variables_are_secrets() -> None:
    text = spec_text(
        """\
        model:
          name: "${NAME}"
          base_url: "http://${HOST}:${PORT:-1}/v1"
          api_key: "${KEY}"
          headers: {Authorization: "Bearer ${TOKEN}", X-Name: "${NAME}"}
          sampling: {seed: "${SEED:-1}", stop: ["${KEY}"]}
        models: {other: {name: m, base_url: "http://me:${PASS}@h/v1"}, third: {name: m, base_url: "${QUERY}"}}
        """
    )
    query = "http://h/v1?key=1"
    environ = {"NAME": "n", "HOST": "h", "KEY": "k", "TOKEN": "t", "PASS": "p", "QUERY": query, "OTHER": "o"}
    variables = parse_text(text, environ=environ).document.variables
    assert variables.values == {"NAME": "n", "SEED": "", "KEY": "k"}
    assert variables.addresses == {"HOST": "h", "PORT": ""}
    assert variables.secrets == {"KEY": "k", "TOKEN": "t", "NAME": "n", "PASS": "p", "QUERY": query}


def test_which_texts_are_masked() -> None:
    text = spec_text(
        "secrets: [TOOL, SHORT, UNSET]\n"
        "model: {name: m, api_key: '${KEY:-sk-default-key}', headers: {Authorization: '${AUTH}'}}\n"
    )
    environ = {"TOOL": "tool-secret\n", "SHORT": "1234567", "AUTH": "Bearer token-secret", "OTHER": "other-value"}
    assert parse_text(text, environ=environ).document.variables.masked() == {
        "tool-secret": "${TOOL}",
        "Bearer token-secret": "${AUTH}",
        "token-secret": "${AUTH}",
    }


def test_a_variable_that_is_no_text_is_refused() -> None:
    assert reported(spec_text("model: {name: '${A}'}\n"), environ={"A": "\udcff"}) == [
        "4:15 FR131 model.name: the environment variable A is no text: it holds '\\udcff', which is half of a "
        "character; set it to valid UTF-8"
    ]
