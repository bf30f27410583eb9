"""``flowrun graph`` prints a drawing, or writes it to a file."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from flowrun.cli.graph import command
from flowrun.drawing import DRAWERS, draw
from flowrun.errors import SpecError, UsageError
from flowrun.spec import load_spec

ROOT = Path(__file__).parents[3]
WEATHER = ROOT / "specs" / "weather.yaml"
EVERY_STATE = ROOT / "tests" / "cases" / "valid" / "every_state.yaml"


@pytest.mark.parametrize("format", DRAWERS)
def test_a_graph_goes_to_stdout(format: str) -> None:
    done = CliRunner().invoke(command, [str(WEATHER), "--format", format], standalone_mode=False)
    assert (done.return_value, done.stdout) == (0, draw(load_spec(WEATHER).spec, format))


def test_text_is_the_default_format() -> None:
    done = CliRunner().invoke(command, [str(WEATHER)], standalone_mode=False)
    assert done.stdout.startswith("weather 1.0.0\n")


def test_a_graph_goes_to_a_file(tmp_path: Path) -> None:
    picture = tmp_path / "weather.svg"
    words = [str(WEATHER), "--format", "svg", "-o", str(picture)]
    done = CliRunner().invoke(command, words, standalone_mode=False)
    assert (done.return_value, done.stdout) == (0, "")
    assert picture.read_text(encoding="utf-8") == draw(load_spec(WEATHER).spec, "svg")


@pytest.mark.parametrize("name", ["facts", "#facts"])
def test_a_local_flow_can_be_drawn(name: str) -> None:
    done = CliRunner().invoke(command, [str(EVERY_STATE), "--flow", name], standalone_mode=False)
    assert done.stdout.splitlines()[0] == "facts 1.0.0"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param([str(ROOT / "none.yaml")], f"there is no file {ROOT / 'none.yaml'}", id="no file"),
        pytest.param(
            [str(EVERY_STATE), "--flow", "fact"],
            f"{EVERY_STATE} has no local flow 'fact'; did you mean 'facts'?",
            id="no local flow",
        ),
        pytest.param([str(WEATHER), "--profile", "x"], f"{WEATHER} has no profile 'x'; ", id="no profile"),
        pytest.param(
            [str(WEATHER), "-o", "/nowhere/a.svg"], "/nowhere/a.svg cannot be written: No such file", id="no folder"
        ),
    ],
)
def test_wrong_usage(words: list[str], message: str) -> None:
    done = CliRunner().invoke(command, words, standalone_mode=False)
    assert isinstance(done.exception, UsageError)
    assert str(done.exception).startswith(message)


def test_a_spec_that_cannot_be_read_is_not_drawn(tmp_path: Path) -> None:
    spec = tmp_path / "bad.yaml"
    spec.write_text("flowrun: v1\nname: bad\n")
    done = CliRunner().invoke(command, [str(spec)], standalone_mode=False)
    assert isinstance(done.exception, SpecError)
    assert [issue.code for issue in done.exception.issues] == ["FR202"]
