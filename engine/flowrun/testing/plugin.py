"""The pytest plugin: ``pytest specs/`` collects ``*.test.yaml`` files, and each of their tests becomes a pytest item.

pytest loads this module in every project where flowrun is installed, so the rest of flowrun is imported only when a
test file is collected.
"""

from collections.abc import Iterable
from os import PathLike, environ
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from flowrun.testing.session import SpecTestSession
    from flowrun.testing.suite import Case, Suite

_SUFFIX = ".test.yaml"
_SESSION: "pytest.StashKey[SpecTestSession]" = pytest.StashKey()


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> "SpecFile | None":
    """Return a collector for a test file, None for other files."""
    if not file_path.name.endswith(_SUFFIX):
        return None
    return SpecFile.from_parent(parent, path=file_path)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Close the session of the tests."""
    session = config.stash.get(_SESSION, None)
    if session is not None:
        session.close()


def _session(config: pytest.Config) -> "SpecTestSession":
    if _SESSION not in config.stash:
        from flowrun.testing.readers import find_vllm_reader
        from flowrun.testing.session import SpecTestSession

        config.stash[_SESSION] = SpecTestSession(environ=environ, open_reader=find_vllm_reader())
    return config.stash[_SESSION]


class SpecFile(pytest.File):
    """The collector of a test file."""

    def collect(self) -> Iterable["SpecItem"]:
        """Yield the tests of the file.

        Raises:
            CollectError: the file has errors.
        """
        from flowrun.errors import FlowrunError
        from flowrun.testing.load import load_suite
        from flowrun.testing.verdict import explain_error, render_problem
        from flowrun.unicode import printable, printable_line

        try:
            suite = load_suite(_relative_path(self.path, self.config.invocation_params.dir))
        except FlowrunError as exc:
            lines = [line for problem in explain_error(exc) for line in render_problem(problem)]
            raise self.CollectError(printable("\n".join(lines))) from exc
        for case in suite.cases:
            yield SpecItem.from_parent(self, name=printable_line(case.name), suite=suite, case=case)


def _relative_path(path: Path, folder: Path) -> Path:
    """Return a path relative to the folder where pytest was started, if that is the current one."""
    return path.relative_to(folder) if path.is_relative_to(folder) and Path.cwd() == folder else path


class SpecItem(pytest.Item):
    """The pytest item of ``case``, one test of a test file."""

    def __init__(self, *, suite: "Suite", case: "Case", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._suite = suite
        self.case = case

    def runtest(self) -> None:
        """Run the test.

        Raises:
            SpecTestFailed: the test failed.
        """
        verdict = _session(self.config).run(self._suite, self.case)
        if verdict.status == "skipped":
            pytest.skip(verdict.reason)
        if verdict.status == "failed":
            from flowrun.testing.verdict import render_verdict

            raise SpecTestFailed(render_verdict(verdict))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], *args: Any, **kwargs: Any) -> Any:
        """Return the report of a failed test, without the traceback, which would only show flowrun's code."""
        if isinstance(excinfo.value, SpecTestFailed):
            return str(excinfo.value)
        return super().repr_failure(excinfo, *args, **kwargs)

    def reportinfo(self) -> tuple[PathLike[str], int, str]:
        """Return the file, the line (from 0) and the name of the test."""
        from flowrun.spec import place_of

        return self.path, place_of(self._suite.document, self.case.at).line - 1, self.name


class SpecTestFailed(Exception):
    """A spec test failed; the message is its report."""
