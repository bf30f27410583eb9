"""FR7xx: every name that a spec refers to exists."""

from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path as FilePath

from flowrun.checks.subject import Subject
from flowrun.core.graph import edges
from flowrun.errors import Issue, Path
from flowrun.spec.flows import references
from flowrun.spec.model import BACKENDS_GROUP, CAPABILITIES, CHOICES, MAIN, AgentState, ChatState, Holds, is_template
from flowrun.spec.parts import parts_of
from flowrun.spec.project import is_file
from flowrun.spec.suggestions import suggest


def check_references(subject: Subject) -> Iterator[Issue]:
    """Find names of states, tools, threads, models, flows and files that do not exist."""
    yield from _states(subject)
    yield from _names(subject)
    yield from _flows(subject)
    yield from _files(subject)
    yield from _backends(subject)


def _check_name(
    subject: Subject, code: str, path: Path, kind: str, name: str, known: Mapping[str, object]
) -> Iterator[Issue]:
    if name not in known:
        yield subject.issue(code, path, f"there is no {kind} {name!r}", suggest(name, known, f"{kind}s"))


def _states(subject: Subject) -> Iterator[Issue]:
    spec = subject.spec
    yield from _check_name(subject, "FR701", ("start",), "state", spec.start, spec.states)
    for edge in edges(spec):
        yield from _check_name(subject, "FR701", edge.path, "state", edge.target, spec.states)


def _names(subject: Subject) -> Iterator[Issue]:
    spec = subject.spec
    threads = {MAIN: (), **spec.threads}
    for name, state in spec.states.items():
        path = ("states", name)
        for part in parts_of(state, Holds.THREAD):
            yield from _check_name(subject, "FR703", (*path, *part.path), "thread", part.value, threads)
        for part in parts_of(state, Holds.MODEL):
            if is_template(part.value) and subject.spec.models:
                continue
            yield from _model(subject, (*path, *part.path), part.value)
        for part in parts_of(state, Holds.TOOL):
            yield from _check_name(subject, "FR702", (*path, *part.path), "tool", part.value, spec.tools)
        if isinstance(state, ChatState) and not (state.tool_choice in CHOICES or is_template(state.tool_choice)):
            offered = dict.fromkeys(state.tools_among(spec.tools))
            where = (*path, "tool_choice")
            yield from _check_name(subject, "FR702", where, "tool", state.tool_choice, offered)
        if isinstance(state, AgentState):
            for index, tool in enumerate(state.stop_at_tools):
                if tool in spec.tools and tool not in state.tools_among(spec.tools):
                    message = f"state {name!r} does not offer {tool!r}, so it never stops there"
                    at = (*path, "stop_at_tools", index)
                    yield subject.issue("FR702", at, message, "name it in tools too, or delete it here")
    for text in subject.texts:
        for _, tool in sorted(text.reads_if_valid().calls, key=str):
            yield from _check_name(subject, "FR702", text.path, "tool", tool, spec.tools)


def _model(subject: Subject, path: Path, name: str) -> Iterator[Issue]:
    """Check the name of a model. A flow that declares no model runs with the models of the flow that runs it."""
    if not subject.spec.models:
        message = "the flow has no model of its own, so it runs only as a sub-flow of one that has"
        remedy = "give it a model, if it shall run by itself"
        yield subject.issue("FR704", ("states",), message, remedy, key=True, severity="warning")
    else:
        yield from _check_name(subject, "FR704", path, "model", name, subject.spec.models)


def _flows(subject: Subject) -> Iterator[Issue]:
    for path, flow in references(subject.spec):
        if flow.startswith("#"):  # load_flows reports missing files
            yield from _check_name(subject, "FR705", path, "flow", flow[1:], subject.spec.flows)


def _files(subject: Subject) -> Iterator[Issue]:
    for name, model in subject.spec.models.items():
        template = model.chat_template if subject.has(("models", name)) else None
        adapter = model.adapter if model.backend == "vllm" and subject.has(("models", name)) else None
        if adapter is not None and adapter.startswith((".", "/", "~")):
            yield from _folder(subject, ("models", name, "adapter"), adapter)
        if template is not None and "\n" not in template and "{" not in template:
            yield from _file(subject, ("models", name, "chat_template"), template)


def _file(subject: Subject, path: Path, name: str) -> Iterator[Issue]:
    if not is_file(FilePath(subject.loaded.document.file).parent / name):
        yield subject.issue("FR706", path, f"there is no file {name!r}", "give its path relative to this spec's file")


def _folder(subject: Subject, path: Path, name: str) -> Iterator[Issue]:
    if not (FilePath(subject.loaded.document.file).parent / FilePath(name).expanduser()).is_dir():
        yield subject.issue("FR706", path, f"there is no folder {name!r}", "give its path relative to this spec's file")


def _backends(subject: Subject) -> Iterator[Issue]:
    """Find backends that neither flowrun nor an installed package has."""
    for name, model in subject.spec.models.items():
        if model.backend not in CAPABILITIES and subject.has(("models", name)):
            installed = {one.name: one for one in entry_points(group=BACKENDS_GROUP)}
            path = ("models", name, "backend")
            yield from _check_name(subject, "FR710", path, "backend", model.backend, {**CAPABILITIES, **installed})
