"""The case files: each spec under ``valid`` loads, each under ``invalid`` gives the issues written beside it.

A folder dropped in is a test. ``profile.txt`` in it names the profile to merge. To write ``expected.txt`` anew, run
pytest with ``FLOWRUN_WRITE_EXPECTED=1`` in the environment, and read the difference.
"""

import os
from pathlib import Path

import msgspec
import pytest

from flowrun.cli.report import render_text
from flowrun.errors import CODES, Issue
from flowrun.runtime.project import Project
from flowrun.spec import load_spec

ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests" / "cases"
VALID = sorted((CASES / "valid").glob("*.yaml"))
INVALID = sorted(path.parent for path in (CASES / "invalid").glob("*/spec.yaml"))
PROFILES = [
    pytest.param(spec, profile, id=f"{spec.stem}-{profile}")
    for spec in VALID
    for profile in load_spec(spec, environ={}).document.value.get("profiles", {})
]


def issues_of(case: Path) -> list[Issue]:
    """Check a case's spec without any environment, and name its files as if the case were the current folder."""
    named = case / "profile.txt"
    profile = named.read_text().strip() if named.exists() else None
    issues = Project().check(case / "spec.yaml", profile=profile)
    return [
        msgspec.structs.replace(issue, place=msgspec.structs.replace(issue.place, file=Path(issue.place.file).name))
        for issue in issues
    ]


@pytest.mark.parametrize("spec", VALID, ids=lambda path: path.stem)
def test_a_valid_spec_loads_without_issues(spec: Path) -> None:
    assert load_spec(spec).issues == ()


@pytest.mark.parametrize(("spec", "profile"), PROFILES)
def test_a_valid_spec_loads_with_each_of_its_profiles(spec: Path, profile: str) -> None:
    environ = {"FLOWRUN_TEST_KEY": "a secret key"}
    merged = load_spec(spec, profile=profile, environ=environ)
    assert merged.issues == ()
    assert merged.spec != load_spec(spec, environ=environ).spec


@pytest.mark.parametrize("case", INVALID, ids=lambda path: path.name)
def test_an_invalid_spec_has_the_expected_issues(case: Path) -> None:
    expected = case / "expected.txt"
    rendered = render_text(issues_of(case)).replace(str(ROOT), "ROOT") + "\n"
    if os.environ.get("FLOWRUN_WRITE_EXPECTED"):
        expected.write_text(rendered, encoding="utf-8")
    assert rendered == expected.read_text(encoding="utf-8")


@pytest.mark.parametrize("case", INVALID, ids=lambda path: path.name)
def test_every_issue_says_what_and_what_to_do_and_has_a_known_code(case: Path) -> None:
    issues = issues_of(case)
    assert issues
    assert [issue for issue in issues if not issue.message or not issue.remedy or issue.code not in CODES] == []
