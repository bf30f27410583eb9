"""A file is loaded, or an error says why not."""

import sys
from pathlib import Path

import pytest

from flowrun.errors import SpecError, UsageError
from flowrun.spec import load_spec
from tests.unit.spec.specs import spec_text


def test_a_file_is_loaded_under_the_name_that_was_given(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(spec_text("modle: 1\n"), encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    assert [issue.place.file for issue in caught.value.issues] == [str(path)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("missing.yaml", "there is no file {}", id="missing"),
        pytest.param("folder", "{} is a directory; name a spec in it", id="directory"),
        pytest.param("file/spec.yaml", "{} cannot be read: [Errno 20] Not a directory: '{}'", id="no folder"),
        pytest.param("a\0b", "{} cannot be read: embedded null byte", id="no name"),
    ],
)
def test_a_file_that_cannot_be_read_is_the_caller_s_mistake(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    path = tmp_path / name
    with pytest.raises(UsageError) as caught:
        load_spec(path)
    assert str(caught.value) == message.replace("{}", str(path))


def test_loading_imports_neither_jsonschema_nor_docstring_parser() -> None:
    import subprocess

    program = (
        "import sys\n"
        "from flowrun.spec import parse_text\n"
        "parse_text('flowrun: v1\\nname: a\\nversion: 1.0.0\\n')\n"
        "print(sorted({'jsonschema', 'docstring_parser', 'difflib', 'vllm', 'jinja2'} & sys.modules.keys()))\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
