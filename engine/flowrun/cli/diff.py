"""``flowrun diff``: shows the changes between two versions of a spec, and checks the version number against them."""

import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import msgspec

from flowrun.changes import Change, Impact, Side, VersionVerdict, classify_sides, compare_version
from flowrun.changes.git import CommitFiles, Repository
from flowrun.cli.report import colours_wanted, render_text
from flowrun.cli.terminal import echo, echo_json, indented_json
from flowrun.errors import Bug, FlowrunError, Issue, SpecError, UsageError, crash_issue, dotted
from flowrun.evaluation.load import load_eval
from flowrun.excerpts import cut
from flowrun.files import file_errors
from flowrun.runtime.project import Project
from flowrun.spec import ON_DISK, Loaded, find_project, parse_text
from flowrun.spec.find import find_evals, find_specs, is_spec
from flowrun.spec.load import Files
from flowrun.unicode import printable_line

_COLOURS: Final[dict[Impact, str]] = {"breaking": "red", "compatible": "green", "internal": "blue"}
_LONGEST: Final = 60
_WIDEST_PATH: Final = 40


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """The comparison of two versions of a spec's file.

    Attributes:
        verdict: None if they were not compared; ``note`` then has the reason.
        issues: the issues of the new version.
        evals: the eval files that measure what the changes do, if there are any.
    """

    file: str
    changes: Sequence[Change] = ()
    verdict: VersionVerdict | None = None
    note: str = ""
    issues: Sequence[Issue] = ()
    evals: Sequence[str] = ()

    @property
    def is_unchanged(self) -> bool:
        """Return whether the versions were compared and have no differences."""
        return self.verdict is not None and not self.changes

    @property
    def passes(self) -> bool:
        """Return whether the new version is valid and its version number was raised enough."""
        return not self.issues and (self.verdict is None or self.verdict.raised_enough)


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="OLD NEW | --git BASE PATH...")
@click.option("--git", "base", metavar="BASE", help="Compare with the files of this commit, branch or tag.")
@click.option("--format", type=click.Choice(["text", "json"]), default="text", help="The report's form.")
def command(paths: tuple[Path, ...], base: str | None, format: str) -> int:
    """Show what changed in specs, and whether their versions were raised to match.

    A breaking change (an input removed or narrowed, an output's key gone, an end removed) needs a new major number, or
    minor one while the version is 0.x; a compatible change a new minor number; an internal one (prompt, sampling,
    model) a new patch number. Exits with 1 if a version was not raised enough. Without PATH, --git looks at the specs
    below the current folder.
    """
    if base is not None:
        comparisons = _with_evals(list(_compare_with_commit(base, paths or (Path(),))))
    elif len(paths) == 2:
        comparisons = [_compare(_Version(_read(paths[0]), str(paths[0])), _Version(_read(paths[1]), str(paths[1])))]
    else:
        raise UsageError("name two files, OLD and NEW, or --git BASE and the specs to compare with that commit")
    render = _render_json if format == "json" else _render_text
    if report := render(comparisons):
        if format == "json":
            echo_json(report)
        else:
            echo(report, coloured=True)
    for name in dict.fromkeys(name for comparison in comparisons for name in comparison.evals):
        echo(f"what the change does is measured by: flowrun eval {shlex.quote(name)} --against {base}", err=True)
    echo(_summary(comparisons), err=True)
    return 0 if all(comparison.passes for comparison in comparisons) else 1


# --- comparison ----------------------------------------------------------------------------------------------------


def _compare_with_commit(base: str, paths: Sequence[Path]) -> Iterator[Comparison]:
    """Compare the specs at paths with those of a commit; include new and deleted specs."""
    repository = Repository.around(paths[0])
    commit = repository.commit(base)
    now = {repository.path_of(file): file for path in paths if path.exists() for file in find_specs(path)}
    before = {name: repository.show(commit, name) for path in paths for name in repository.yaml_files(commit, path)}
    old = {name: content for name, content in before.items() if is_spec(content) or name in now}
    if missing := [path for path in paths if not path.exists() and repository.path_of(path) not in old]:
        raise UsageError(f"there is no {missing[0]}, neither here nor at {base}")
    for name in sorted({*now, *old}):
        shown = repository.shown(name)
        if name not in now:
            yield Comparison(file=shown, note=f"deleted since {base}: whoever runs it has to change")
        else:
            try:
                files = CommitFiles(repository, commit, f"{base}:")
                yield _compare_one(old.get(name), now[name], shown, base, files)
            except Exception as exc:
                if isinstance(exc, FlowrunError) and not isinstance(exc, Bug):
                    raise
                yield Comparison(file=shown, note="was not compared", issues=[crash_issue(shown, exc)])


def _compare_one(old: bytes | None, new: Path, shown: str, base: str, files: Files) -> Comparison:
    """Compare a file with its content at a commit.

    Args:
        old: the content at the commit; None if the file did not exist.
        shown: the file's path as the report shows it.
        files: those of the commit.
    """
    if old is None:
        return _only_new(_Version(_read(new), shown), f"new since {base}")
    return _compare(_Version(_decoded(old), f"{base}:{shown}", files), _Version(_read(new), shown))


def _with_evals(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return comparisons, those of changed specs with the evals whose flows they are, or are sub-flows of."""
    changed = [comparison for comparison in comparisons if comparison.changes]
    if not changed:
        return list(comparisons)
    by_file: dict[Path, list[str]] = {}
    for name in find_evals([find_project(Path(changed[0].file))]):
        for file in _files_of(name):
            by_file.setdefault(file, []).append(os.path.relpath(name))
    return [
        msgspec.structs.replace(comparison, evals=by_file.get(Path(comparison.file).resolve(), ()))
        if comparison.changes
        else comparison
        for comparison in comparisons
    ]


def _files_of(eval_file: Path) -> list[Path]:
    """Return the files of an eval's flow and its sub-flows; none if the eval or the flow is not valid."""
    try:
        flow = load_eval(eval_file).flow
        project, folder = Project(require_environment=False), find_project(flow)
        tree = project.load_flows(project.load(flow, None, ON_DISK, folder), None, ON_DISK, folder)
    except FlowrunError:
        return []
    return [Path(one.loaded.document.file).resolve() for one in tree.walk()]


class _Version(NamedTuple):
    """The text of a spec, its file as issues show it, and the source of the files of its texts."""

    text: str
    file: str
    files: Files = ON_DISK

    def load(self) -> Side:
        """Load it without environment variables, so that the comparison is the same on all machines."""
        plain = self._load(None)
        profiles = plain.document.value.get("profiles", {})
        return _as_side(plain, {name: _as_side(self._load(name)) for name in profiles})

    def _load(self, profile: str | None) -> Loaded:
        project = find_project(Path(self.file)) if self.files is ON_DISK else None
        return parse_text(
            self.text, self.file, profile=profile, require_environment=False, files=self.files, project=project
        )


def _only_new(new: _Version, note: str) -> Comparison:
    try:
        version = new.load().spec.version
    except SpecError as exc:
        return Comparison(file=new.file, note=note, issues=exc.issues)
    return Comparison(file=new.file, note=f"{note}, at version {version}")


def _compare(old: _Version, new: _Version) -> Comparison:
    try:
        after = new.load()
    except SpecError as exc:
        return Comparison(file=new.file, note="is not valid, so it was not compared", issues=exc.issues)
    try:
        before = old.load()
    except SpecError as exc:
        first = exc.issues[0]
        return Comparison(
            file=new.file, note=f"{old.file} was no valid spec ({first.message}): nothing to compare with"
        )
    changes = classify_sides(before, after)
    return Comparison(
        file=new.file, changes=changes, verdict=compare_version(before.spec.version, after.spec.version, changes)
    )


def _as_side(loaded: Loaded, profiles: dict[str, Side] | None = None) -> Side:
    """Return one version of a spec, with one profile merged in or with none."""
    lock = loaded.document.lock
    return Side(
        spec=loaded.spec,
        written=loaded.document.written,
        lock={} if lock is None else lock.models,
        profiles=profiles or {},
    )


def _read(path: Path) -> str:
    if not path.exists():
        raise UsageError(f"there is no file {path}")
    with file_errors(f"{path} cannot be read"):
        return _decoded(path.read_bytes())


def _decoded(content: bytes) -> str:
    return content.decode("utf-8", errors="replace")


# --- output -------------------------------------------------------------------------------------------------------


def _render_text(comparisons: Sequence[Comparison]) -> str:
    """Render one paragraph per comparison, without those of unchanged specs."""
    coloured = colours_wanted(sys.stdout, environ=os.environ)
    listed = [comparison for comparison in comparisons if not comparison.is_unchanged or not comparison.passes]
    blocks = [_render(comparison, coloured) for comparison in listed]
    return "\n".join(f"{block}\n" if "\n" in block else block for block in blocks).rstrip("\n")


def _summary(comparisons: Sequence[Comparison]) -> str:
    unchanged = sum(comparison.is_unchanged for comparison in comparisons)
    failing = sum(not comparison.passes for comparison in comparisons)
    summary = f"{len(comparisons)} spec{'s' if len(comparisons) != 1 else ''} compared: {unchanged} unchanged"
    return f"{summary}, {failing} with issues or too low a version" if failing else summary


def _render(comparison: Comparison, coloured: bool) -> str:
    def styled(text: str, **style: Any) -> str:
        return click.style(text, **style) if coloured else text

    note = f"  {printable_line(comparison.note)}" if comparison.note else ""
    lines = [styled(printable_line(comparison.file), bold=True) + note]
    paths = [printable_line(dotted(change.path)) for change in comparison.changes]
    width = min(max(map(len, paths), default=0), _WIDEST_PATH)
    for change, path in zip(comparison.changes, paths, strict=True):
        impact = styled(f"{change.impact:10}", fg=_COLOURS[change.impact])
        lines.append(f"  {impact}  {path:{width}}  {printable_line(change.what)}{_values(change)}")
    if comparison.verdict is not None:
        passed = comparison.verdict.raised_enough
        lines.append(f"  {styled(comparison.verdict.sentence, fg='green' if passed else 'red', bold=not passed)}")
    if comparison.issues:
        lines.append(render_text(comparison.issues))
    return "\n".join(lines)


def _values(change: Change) -> str:
    old, new = change.old, change.new
    if isinstance(old, str) and isinstance(new, str):
        old, new = _around_difference(old, new)
    shown = [_shown(value) for value in (old, new)]
    match shown:
        case ["", ""]:
            return ""
        case ["", after]:
            return f": {after}"
        case [before, ""]:
            return f": {before}"
        case [before, after]:
            return f": {before} -> {after}"
    return ""


def _around_difference(old: str, new: str) -> tuple[str, str]:
    """Cut the common beginning of two long texts, so that their difference is shown."""
    alike = next((n for n, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    cut = max(alike - 20, 0) if max(len(old), len(new)) > _LONGEST else 0
    return (f"…{old[cut:]}", f"…{new[cut:]}") if cut else (old, new)


def _shown(value: Any) -> str:
    if value is msgspec.UNSET:
        return ""
    return cut(printable_line(json.dumps(value, ensure_ascii=False)), _LONGEST, "…")


def _render_json(comparisons: Sequence[Comparison]) -> str:
    listed = [
        {
            "file": comparison.file,
            "passes": comparison.passes,
            "note": comparison.note,
            "verdict": _verdict_as_json(comparison.verdict),
            "changes": [_change_as_json(change) for change in comparison.changes],
            "evals": list(comparison.evals),
            "issues": [{**msgspec.to_builtins(issue), "path": dotted(issue.path)} for issue in comparison.issues],
        }
        for comparison in comparisons
    ]
    return indented_json(listed)


def _verdict_as_json(verdict: VersionVerdict | None) -> dict[str, Any] | None:
    return None if verdict is None else {**msgspec.to_builtins(verdict), "sentence": verdict.sentence}


def _change_as_json(change: Change) -> dict[str, Any]:
    data: dict[str, Any] = {"impact": change.impact, "path": dotted(change.path), "what": change.what}
    values = {"old": change.old, "new": change.new}
    return data | {name: value for name, value in values.items() if value is not msgspec.UNSET}
