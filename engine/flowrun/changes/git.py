"""Reads the files of a commit through the git command. Nothing is checked out or changed."""

import os
import shutil
import subprocess
from pathlib import Path

import msgspec

from flowrun.errors import UnreadableFile, UsageError
from flowrun.spec.load import Files


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
        arguments = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        return _git(self.top, *arguments, message=f"{name!r} names no commit of {self.top}").decode().strip()

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


def _hidden(name: str, folder: str) -> bool:
    below = name.removeprefix(folder).lstrip("/")
    return any(part.startswith(".") for part in below.split("/"))


def _git(folder: Path, *arguments: str, message: str = "") -> bytes:
    program = shutil.which("git")
    if program is None:
        raise UsageError("--git needs the git command, which is not installed")
    completed = subprocess.run([program, "-C", str(folder), *arguments], capture_output=True, check=False)
    if completed.returncode != 0:
        stderr = completed.stderr.decode(errors="replace").strip()
        raise UsageError(message or f"git {arguments[0]} failed: {stderr}")
    return completed.stdout
