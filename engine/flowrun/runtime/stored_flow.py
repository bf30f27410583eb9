"""A flow in the form that is stored with its runs, so that a run resumes with the spec that it started with."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from flowrun.errors import FlowrunError, StoreError
from flowrun.journal import History, RunDamaged, RunRow
from flowrun.runtime.project import CompiledFlow, Project
from flowrun.runtime.snapshot import Snapshot


class StoredFlow(msgspec.Struct, frozen=True, kw_only=True):
    """The snapshot of a flow, and its path: its functions and the files of its models are loaded from there."""

    path: str
    project_dir: str | None
    snapshot: Snapshot

    @property
    def digest(self) -> str:
        """Return the id of the stored flow in the journal, a SHA-256 in hexadecimal."""
        place: list[object] = [self.path, self.project_dir, self.snapshot.digest]
        if self.snapshot.variables:
            place.append(sorted(self.snapshot.variables.items()))
        return hashlib.sha256(msgspec.json.encode(place)).hexdigest()

    def moved_to(self, project_dir: Path) -> "StoredFlow":
        """Return the flow in another project folder: its spec is where the longest end of its path leads in there."""
        parts = Path(self.path).parts
        places = [project_dir.joinpath(*parts[start:]) for start in range(1, len(parts))]
        place = next((place for place in places if place.is_file()), places[-1])
        return msgspec.structs.replace(self, path=str(place.resolve()), project_dir=str(project_dir.resolve()))

    def prepare(self, environ: Mapping[str, str]) -> CompiledFlow:
        """Compile the flow from its snapshot, to run.

        Raises:
            SpecError: the flow cannot run any more, such as because a function has changed.
        """
        return self._compile(environ, imports=True)

    def prepare_to_show(self, environ: Mapping[str, str]) -> CompiledFlow:
        """Compile the flow from its snapshot, not to run: functions are not imported, and variables may be missing."""
        return self._compile(environ, imports=False)

    def prepare_current(self, environ: Mapping[str, str], *, to_run: bool = False) -> CompiledFlow:
        """Compile the flow from its current files. Raises as ``Project.compile`` does.

        Args:
            to_run: variables that are not set are errors.
        """
        project = self._project(environ, require_environment=to_run)
        return project.compile(Path(self.path), profile=self.snapshot.profile)

    def _compile(self, environ: Mapping[str, str], *, imports: bool) -> CompiledFlow:
        snapshot = self.snapshot
        project = self._project(snapshot.environment(environ), require_environment=imports)
        return project.compile(Path(self.path), profile=snapshot.profile, snapshot=snapshot, imports=imports)

    def _project(self, environ: Mapping[str, str], *, require_environment: bool) -> Project:
        folder = None if self.project_dir is None else Path(self.project_dir)
        return Project(folder=folder, environ=environ, require_environment=require_environment)

    def what_changed(self, environ: Mapping[str, str]) -> str | None:
        """Return a description of how the flow's files have changed since; None if their digest is the same."""
        try:
            flow = self.prepare_current(environ)
        except FlowrunError as exc:
            return f"{self.path} cannot be used any more ({exc})"
        return None if flow.origin.snapshot.digest == self.snapshot.digest else f"{self.path} has changed since"


def store_flow(flow: CompiledFlow) -> StoredFlow:
    """Return a flow in the form that is stored with its runs."""
    return StoredFlow(
        path=str(flow.path.resolve()),
        project_dir=None if flow.project_dir is None else str(flow.project_dir.resolve()),
        snapshot=flow.origin.snapshot,
    )


def load_stored_flow(history: History, row: RunRow, project_dir: Path | None = None) -> StoredFlow:
    """Return the flow that a run started with.

    Args:
        project_dir: the folder that its project was moved to; None: where it was.

    Raises:
        RunDamaged: the journal does not hold it, or a newer flowrun wrote it.
    """
    try:
        stored = msgspec.json.decode(history.spec(row.spec), type=StoredFlow)
        return stored if project_dir is None else stored.moved_to(project_dir)
    except msgspec.MsgspecError as exc:
        what = f"its flow cannot be read: {exc}; was it written by a newer flowrun?"
        raise RunDamaged(f"run {row.id} is damaged: {what}") from exc
    except StoreError as exc:
        raise RunDamaged(f"run {row.id} is damaged: {exc}") from exc
