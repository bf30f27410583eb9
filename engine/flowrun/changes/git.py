"""The files of a commit, asked of the git command. Nothing is checked out and nothing is changed."""

import os
import shutil
import subprocess
from pathlib import Path

import msgspec

from flowrun.errors import UsageError


class Repository(msgspec.Struct, frozen=True):
    """A git repository, by its topmost folder. Names of files are relative to it, with slashes, as git has them."""

    top: Path

    @classmethod
    def around(cls, path: Path) -> "Repository":
        """Find the repository in which a path lies, which need not exist."""
        folder = path.absolute()
        while not folder.is_dir():
            folder = folder.parent
        top = _git(folder, "rev-parse", "--show-toplevel", otherwise=f"{path} is not in a git repository")
        return cls(Path(os.fsdecode(top).rstrip("\n")))

    def commit(self, name: str) -> str:
        """Give the id of the commit that a branch, a tag or an expression such as ``HEAD~1`` names."""
        arguments = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        return _git(self.top, *arguments, otherwise=f"{name!r} names no commit of {self.top}").decode().strip()

    def yaml_files(self, commit: str, path: Path) -> list[str]:
        """Give the YAML files of a commit at a path or below it, without hidden ones."""
        at = self.path_of(path)
        only = ("--", at) if at else ()
        listed = _git(self.top, "ls-tree", "-r", "-z", "--name-only", "--full-tree", commit, *only)
        names = [os.fsdecode(name) for name in listed.split(b"\0") if name]
        return [name for name in names if name == at or (name.endswith((".yaml", ".yml")) and not _hidden(name, at))]

    def show(self, commit: str, name: str) -> bytes:
        """Give a file's content in a commit."""
        return _git(self.top, "show", "--end-of-options", f"{commit}:{name}")

    def path_of(self, path: Path) -> str:
        """Give the name that git has for a path; the topmost folder's is empty."""
        absolute = path.absolute()
        resolved = absolute.parent.resolve() / absolute.name if absolute.name not in ("", "..") else absolute.resolve()
        if not resolved.is_relative_to(self.top):
            raise UsageError(f"{path} is not in the git repository {self.top}")
        name = resolved.relative_to(self.top).as_posix()
        return "" if name == "." else name

    def shown(self, name: str) -> str:
        """Give a file's path as people at the current folder would write it."""
        return os.path.relpath(self.top / name)


def _hidden(name: str, folder: str) -> bool:
    below = name.removeprefix(folder).lstrip("/")
    return any(part.startswith(".") for part in below.split("/"))


def _git(folder: Path, *arguments: str, otherwise: str = "") -> bytes:
    program = shutil.which("git")
    if program is None:
        raise UsageError("--git needs the git command, which is not installed")
    done = subprocess.run([program, "-C", str(folder), *arguments], capture_output=True, check=False)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise UsageError(otherwise or f"git {arguments[0]} failed: {said}")
    return done.stdout
