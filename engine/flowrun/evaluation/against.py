"""What an evaluation is compared with: a folder of results, another spec, or the flow at a git revision."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from flowrun.changes.git import Repository
from flowrun.errors import UsageError
from flowrun.evaluation.eval_file import EvalFile, is_path

RECORDS = "records.jsonl"
"""The file of records that an evaluation writes into its folder."""

AGAINST_RECORDS = "against.jsonl"
"""That of the other side of a comparison."""


class Against(msgspec.Struct, frozen=True, kw_only=True):
    """The other side of a comparison.

    Attributes:
        what: names it for people.
        results: its records, if they are there.
        spec: the spec to run, if they are not.
        folder: the current folder for its runs.
        root: where the repository is checked out, and where it is; None without one.
    """

    what: str
    results: Path | None = None
    spec: Path | None = None
    profile: str | None = None
    folder: Path = Path()
    root: tuple[Path, Path] | None = None

    def moved(self, path: Path) -> Path:
        """Return where a path of the repository is in the checkout; a path elsewhere stays."""
        return path.resolve() if self.root is None else _moved(path, *self.root)

    def moved_module(self, folder: Path) -> Path:
        """Return where a folder of modules is in the checkout. That of flowrun itself stays: it runs both versions."""
        return folder if (folder / "flowrun" / "__init__.py").is_file() else self.moved(folder)

    def moved_modules(self, folders: Iterable[str]) -> Iterator[str]:
        """Yield the folders of modules that are in the repository, as an installation for development has them."""
        for folder in map(Path, filter(None, folders)):
            moved = self.moved_module(folder)
            if moved not in (folder, folder.resolve()) and "site-packages" not in folder.parts:
                yield str(moved)


@contextmanager
def find_against(ref: str, file: EvalFile, profile: str | None) -> Iterator[Against]:
    """Yield what a text names: a path if there is one, else a git revision, which is checked out meanwhile.

    A revision is as a checkout of it: with its Python code and its other files, and with those that are not in git. It
    runs with the profile; another spec with that of the eval file.

    Raises:
        UsageError: there is no such path and no such revision, or the flow is not in it.
    """
    path = Path(ref) if is_path(Path(ref)) else Path(os.devnull)
    if path.is_dir():
        yield Against(what=ref, results=path / RECORDS if (path / RECORDS).is_file() else path)
    elif path.is_file() and path.suffix in (".yaml", ".yml"):
        yield Against(what=ref, spec=path.resolve(), profile=file.profile, folder=Path.cwd())
    elif path.is_file():
        yield Against(what=ref, results=path)
    else:
        with _at_revision(ref, file, profile) as found:
            yield found


@contextmanager
def _at_revision(ref: str, file: EvalFile, profile: str | None) -> Iterator[Against]:
    try:
        repository = Repository.around(file.flow)
        commit = repository.commit(ref)
    except UsageError as exc:
        raise UsageError(f"--against {ref}: there is no such file or folder, and no such git revision: {exc}") from exc
    if not repository.has(commit, repository.path_of(file.flow)):
        raise UsageError(f"--against {ref}: {file.flow} was not there at {ref}")
    with repository.checkout(commit) as place:
        top = repository.top.resolve()
        spec = _moved(file.flow, place, top)
        folder = _moved(Path.cwd(), place, top)
        yield Against(
            what=f"{ref} ({commit[:12]})",
            spec=spec,
            profile=profile,
            folder=folder if folder.is_dir() else place,
            root=(place, top),
        )


def _moved(path: Path, place: Path, top: Path) -> Path:
    resolved = path.resolve()
    return Path(os.path.normpath(place / resolved.relative_to(top))) if resolved.is_relative_to(top) else resolved
