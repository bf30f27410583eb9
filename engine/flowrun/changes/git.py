"""Reads the files of a commit through the git command. No file of the repository is changed."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from flowrun.errors import UnreadableFile, UsageError
from flowrun.spec.load import Files

_COPIED: Final = 1_000_000
"""The bytes of a file that a checkout has as a copy: prompts and scripted replies must lie in the project."""


_COPIED_FILES: Final = 1_000

_OF_A_HOOK: Final = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")
"""The variables that git sets for its hooks, which say of another folder than the one that is looked at."""


class Repository(msgspec.Struct, frozen=True):
    """A git repository with the root folder ``top``. File names are relative to it, with slashes, as in git."""

    top: Path

    @classmethod
    def around(cls, path: Path) -> "Repository":
        """Find the repository that contains a path; the path itself need not exist.

        Raises:
            UsageError: the path is not in a repository, or git is not installed.
        """
        folder = path.absolute()
        while not folder.is_dir():
            folder = folder.parent
        top = _git(folder, "rev-parse", "--show-toplevel", message=f"{path} is not in a git repository")
        return cls(Path(os.fsdecode(top).rstrip("\n")))

    def commit(self, name: str) -> str:
        """Return the id of the commit that a branch, a tag or an expression such as ``HEAD~1`` names.

        Raises:
            UsageError: there is no such commit.
        """
        try:
            arguments = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
            return _git(self.top, *arguments).decode().strip()
        except UsageError as exc:
            shallow = _git(self.top, "rev-parse", "--is-shallow-repository").strip() == b"true"
            why = ", which is a shallow clone: git fetch --unshallow" if shallow else ""
            raise UsageError(f"{name!r} names no commit of {self.top}{why}") from exc

    def yaml_files(self, commit: str, path: Path) -> list[str]:
        """Return the names of the YAML files of a commit at a path or below it, without hidden ones."""
        base = self.path_of(path)
        pathspec = ("--", base) if base else ()
        listed = _git(self.top, "ls-tree", "-r", "-z", "--name-only", "--full-tree", commit, *pathspec)
        names = [os.fsdecode(name) for name in listed.split(b"\0") if name]
        return [
            name for name in names if name == base or (name.endswith((".yaml", ".yml")) and not _hidden(name, base))
        ]

    def show(self, commit: str, name: str) -> bytes:
        """Return the content of a file in a commit.

        Raises:
            UsageError: the commit has no such file.
        """
        return _git(self.top, "show", "--end-of-options", f"{commit}:{name}")

    def has(self, commit: str, name: str) -> bool:
        """Return whether a commit has a file."""
        try:
            self.show(commit, name)
        except UsageError:
            return False
        return True

    @contextmanager
    def checkout(self, commit: str) -> Iterator[Path]:
        """Yield a folder in which a commit is checked out, as ``git checkout`` would: with the files not in git.

        Those, such as models and environments, are links to where they are; small files are copies, also those of a
        folder, unless it is an environment or has many. The folder is removed at the end. Hooks do not run.

        Raises:
            UsageError: git cannot check it out.
        """
        with tempfile.TemporaryDirectory(prefix="flowrun-") as folder:
            place = Path(folder, self.top.name)
            _git(
                self.top,
                "-c",
                f"core.hooksPath={os.devnull}",
                "worktree",
                "add",
                "--detach",
                "--force",
                str(place),
                commit,
            )
            try:
                self._link_untracked(place)
                yield place
            finally:
                _git(self.top, "worktree", "remove", "--force", str(place))

    def _link_untracked(self, place: Path) -> None:
        listed = _git(self.top, "ls-files", "--others", "--directory", "--no-empty-directory", "-z")
        for name in filter(None, map(os.fsdecode, listed.split(b"\0"))):
            there, here = place / name.rstrip("/"), self.top / name.rstrip("/")
            if there.exists() or there.is_symlink():
                continue
            there.parent.mkdir(parents=True, exist_ok=True)
            _copy_or_link(here, there)

    def path_of(self, path: Path) -> str:
        """Return the name of a path in git; the name of the root folder is empty.

        Raises:
            UsageError: the path is not in this repository.
        """
        absolute = path.absolute()
        resolved = absolute.parent.resolve() / absolute.name if absolute.name not in ("", "..") else absolute.resolve()
        if not resolved.is_relative_to(self.top):
            raise UsageError(f"{path} is not in the git repository {self.top}")
        name = resolved.relative_to(self.top).as_posix()
        return "" if name == "." else name

    def shown(self, name: str) -> str:
        """Return a file's path relative to the current folder."""
        return os.path.relpath(self.top / name)


class CommitFiles(Files):
    """The files of a commit, by their paths in the folder of the repository, with a prefix before each."""

    def __init__(self, repository: Repository, commit: str, prefix: str) -> None:
        self._repository = repository
        self._commit = commit
        self._prefix = prefix

    def has(self, path: Path) -> bool:
        """Return whether the commit has a file."""
        try:
            self.read(path)
        except UnreadableFile:
            return False
        return True

    def read(self, path: Path) -> bytes:
        """Return the content of a file in the commit. See ``Files.read``."""
        try:
            name = self._repository.path_of(Path(str(path).removeprefix(self._prefix)))
            return self._repository.show(self._commit, name)
        except UsageError as exc:
            raise UnreadableFile(str(exc)) from exc


def _copy_or_link(here: Path, there: Path) -> None:
    if here.is_dir() and not here.is_symlink() and not _is_large(here):
        there.mkdir()
        for entry in here.iterdir():
            _copy_or_link(entry, there / entry.name)
    elif here.is_file() and not here.is_symlink() and here.stat().st_size <= _COPIED:
        shutil.copy2(here, there)
    else:
        there.symlink_to(here)


def _is_large(folder: Path) -> bool:
    """Return whether a folder is an environment, or has more files than are copied."""
    if folder.name == "node_modules" or (folder / "pyvenv.cfg").is_file():
        return True
    return any(True for _ in islice(folder.rglob("*"), _COPIED_FILES, None))


def _hidden(name: str, folder: str) -> bool:
    below = name.removeprefix(folder).lstrip("/")
    return any(part.startswith(".") for part in below.split("/"))


def _git(folder: Path, *arguments: str, message: str = "") -> bytes:
    program = shutil.which("git")
    if program is None:
        raise UsageError("this needs the git command, which is not installed")
    environ = {name: value for name, value in os.environ.items() if name not in _OF_A_HOOK}
    command = [program, "-C", str(folder), *arguments]
    completed = subprocess.run(command, capture_output=True, check=False, env=environ)
    if completed.returncode != 0:
        stderr = completed.stderr.decode(errors="replace").strip()
        raise UsageError(message or f"git {' '.join(arguments)} failed: {stderr}")
    return completed.stdout
