"""The projects that ``flowrun init`` makes. All texts are made before the first file is written.

A project is the files of its kind's folder and those of ``common``; a README is the kind's and then the common one. The
word ``NAME`` in paths and texts stands for the project's name.
"""

import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Final

from flowrun.errors import UsageError
from flowrun.files import file_errors
from flowrun.spec.schema import FLOW_SCHEMA, TEST_SCHEMA, find_schema
from flowrun.spec.yaml.scalars import NotJSONScalar, read_scalar

KINDS: Final = ("agent", "extract", "batch", "approval")
"""The kinds of projects; each is a folder of this package."""

EXAMPLES: Final[Mapping[str, tuple[str, ...]]] = {
    "approval": ("specs/templates/chatml_tools.jinja", "tools/payments.py"),
    "weather": ("specs/templates/chatml_tools.jinja", "specs/weather.cassette.jsonl", "tools/weather.py"),
    "ask_person": (),
    "checked_query": ("specs/data/shop.sql", "tools/shop.py"),
    "database": ("specs/data/shop.sql", "tools/shop.py"),
    "evaluator": (),
    "extraction": (),
    "files": (
        "specs/templates/chatml_tools.jinja",
        "specs/files.lock.json",
        "specs/data/notes/contact.txt",
        "specs/data/notes/hours.txt",
    ),
    "handover": ("tools/payments.py",),
    "map_reduce": (),
    "panel": (),
    "patient": ("tools/reports.py",),
    "race": ("tools/rates.py",),
    "refund": ("tools/payments.py",),
    "resilient": ("tools/rates.py",),
    "router": (),
    "supervisor": ("specs/prompts/researcher.md", "specs/prompts/supervisor.md"),
    "support": ("specs/refund.yaml", "specs/router.yaml", "tools/payments.py"),
    "triage": (),
}
"""The worked examples, and the files that each needs besides its spec and its tests."""

_HERE: Final = Path(__file__).parent
_PLACEHOLDER: Final = "NAME"
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,62}[A-Za-z0-9])?")
"""What a flow, a Python project and a folder can all be called."""

Files = Mapping[PurePath, bytes]
"""The files of a project by their paths in it."""


def make_project(name: str, kind: str) -> Files:
    """Return the files of a new project.

    Args:
        kind: one of ``KINDS``.

    Raises:
        UsageError: the name cannot be that of a flow and of a project.
    """
    _require_name(name)
    files: dict[PurePath, bytes] = {}
    for folder in (_HERE / kind, _HERE / "common"):
        for path, content in _read_folder(folder).items():
            target = PurePath(str(path).replace(_PLACEHOLDER, name))
            files[target] = files.get(target, b"") + content.replace(_PLACEHOLDER.encode(), name.encode())
    return {**files, **_schemas()}


def copy_example(example: str) -> Files:
    """Return the files of a worked example as a project of their own.

    Args:
        example: one of ``EXAMPLES``.
    """
    root = _find_examples()
    names = [f"specs/{example}.yaml", f"specs/{example}.test.yaml", "tools/__init__.py", *EXAMPLES[example]]
    files = {PurePath(name): (root / name).read_bytes() for name in names}
    project = (_HERE / "common" / "pyproject.toml").read_bytes().replace(_PLACEHOLDER.encode(), example.encode())
    return {**files, **_schemas(), PurePath("pyproject.toml"): project}


def write_project(folder: Path, files: Files) -> None:
    """Write a project into a folder that is new or empty. After an error, the folder is as it was.

    Raises:
        UsageError: the folder holds something, is a file, or cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; name another folder")
    with file_errors(f"{folder} cannot be made"):
        is_new = not folder.exists()
        folder.mkdir(exist_ok=True)
        if any(folder.iterdir()):
            raise UsageError(f"{folder} is not empty; name another folder")
        try:
            with TemporaryDirectory(dir=folder) as scratch:
                for path, content in files.items():
                    file = Path(scratch) / path
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(content)
                for entry in sorted(Path(scratch).iterdir()):
                    entry.rename(folder / entry.name)
        except BaseException:
            if is_new:
                folder.rmdir()
            raise


def _require_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        form = "letters, digits, '_' and '-', beginning and ending with a letter or digit, at most 64 characters"
        raise UsageError(f"{name!r} cannot be the name of a project: it needs {form}")
    if not _is_text(name):
        raise UsageError(f"{name!r} cannot be the name of a project: in YAML it is no text; add a letter")


def _is_text(name: str) -> bool:
    """Return whether YAML reads an unquoted name as text."""
    try:
        return isinstance(read_scalar(name), str)
    except NotJSONScalar:
        return False


def _read_folder(folder: Path) -> Files:
    """Return the files below a folder, without those that Python leaves there."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.suffix != ".pyc")
    return {PurePath(file.relative_to(folder)): file.read_bytes() for file in files}


def _schemas() -> Files:
    """Return the schemas, which the first line of a spec names for editors."""
    return {PurePath("schemas", name): find_schema(name).read_bytes() for name in (FLOW_SCHEMA, TEST_SCHEMA)}


def _find_examples() -> Path:
    """Return the folder with ``specs/`` and ``tools/`` of the examples: in the installed package, or of a checkout."""
    package = _HERE.parent
    return installed if (installed := package / "examples").is_dir() else package.parents[1]
