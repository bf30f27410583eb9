"""Verdicts as JUnit XML, a format that CI systems read."""

from collections.abc import Sequence
from itertools import groupby
from xml.etree import ElementTree

from flowrun.testing.verdict import Verdict, render_verdict
from flowrun.unicode import visible


def render_junit(verdicts: Sequence[Verdict]) -> str:
    """Render verdicts as one XML document, with a ``testsuite`` for each test file."""
    root = ElementTree.Element("testsuites", _counts(verdicts))
    for file, group in groupby(verdicts, key=lambda verdict: verdict.file):
        cases = list(group)
        suite = ElementTree.SubElement(root, "testsuite", {"name": _xml(file), **_counts(cases)})
        for verdict in cases:
            _add_case(suite, verdict)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _add_case(suite: ElementTree.Element, verdict: Verdict) -> None:
    case = ElementTree.SubElement(
        suite,
        "testcase",
        {
            "classname": _xml(verdict.file),
            "name": _xml(verdict.name),
            "file": _xml(verdict.file),
            "line": str(verdict.place.line),
            "time": f"{verdict.seconds:.3f}",
        },
    )
    if verdict.status == "failed":
        message = verdict.problems[0].what if verdict.problems else ""
        failure = ElementTree.SubElement(case, "failure", {"message": _xml(message)})
        failure.text = _xml(render_verdict(verdict))
    elif verdict.status == "skipped":
        ElementTree.SubElement(case, "skipped", {"message": _xml(verdict.reason)})


def _counts(verdicts: Sequence[Verdict]) -> dict[str, str]:
    return {
        "tests": str(len(verdicts)),
        "failures": str(sum(verdict.status == "failed" for verdict in verdicts)),
        "errors": "0",
        "skipped": str(sum(verdict.status == "skipped" for verdict in verdicts)),
        "time": f"{sum(verdict.seconds for verdict in verdicts):.3f}",
    }


def _xml(text: str) -> str:
    """Replace characters that XML does not allow, and those that change the direction of text."""
    return visible(text)
