"""``flowrun lock``: writes which models a spec runs, as they are on this machine, into its lock."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from flowrun.cli.options import profile_option, spec_argument
from flowrun.cli.streams import answer_stream, real_path
from flowrun.cli.terminal import echo, hide
from flowrun.errors import BackendError, UsageError
from flowrun.files import file_errors
from flowrun.spec import Loaded, load_spec
from flowrun.spec.lock_file import encode_member, lock_path
from flowrun.spec.model import Model, Spec
from flowrun.spec.model_lock import MEMBER, LockedModel, as_data, compare_models, key_of, read_models


@click.command()
@spec_argument
@profile_option
@click.option("--check", is_flag=True, help="Write nothing: exit with 1 if the lock is not what is here.")
def command(spec: Path, profile: str | None, check: bool) -> int:
    """Write which models SPEC runs into its lock, NAME.lock.json beside it, and say what changed.

    For each model that runs in this process: the commit of its repository in the hub's cache, or the SHA-256 of its
    files; its tokenizer, chat template, parsers and adapter; vLLM's version. No engine is started.
    """
    path = lock_path(spec)
    with answer_stream():
        loaded = load_spec(real_path(spec), profile=profile, environ=os.environ, locked=False)
        hide(loaded.document.variables.masked())
        with file_errors(f"{path} cannot be read"):
            before = path.read_text(encoding="utf-8") if path.exists() else None
        try:
            old = {} if before is None else read_models(before)
        except ValueError as exc:
            raise UsageError(f"{path} cannot be read: {exc}: delete it, or mend it") from exc
        found = _describe(loaded, spec, profile)
    kept = {key: model for key, model in old.items() if _is_kept(key, profile)}
    after = encode_member(MEMBER, as_data({**kept, **found}), before)
    for line in _changes(old, {**kept, **found}):
        echo(line, err=True)
    if after == before:
        echo(f"{path}: nothing changed", err=True)
        return 0
    if check:
        named = f" --profile {profile}" if profile else ""
        echo(f"{path} is not what is here: flowrun lock {spec}{named}", err=True)
        return 1
    with file_errors(f"{path} cannot be written"):
        path.write_text(after, encoding="utf-8")
    echo(f"{path}: {len(found)} model{'s' if len(found) != 1 else ''}", err=True)
    return 0


def _describe(loaded: Loaded, spec: Path, profile: str | None) -> dict[str, LockedModel]:
    """Return the models that run in this process, as they are here.

    Raises:
        UsageError: there are none.
        BackendError: one of them is not here.
    """
    from flowrun.backends.vllm.described import describe_model

    models = dict(_models(loaded.spec, (), profile))
    if not models:
        raise UsageError(f"{spec} has no model that runs in this process (backend: vllm): there is nothing to lock")
    folder = Path(loaded.document.file).resolve().parent
    found, faults = {}, []
    for key, model in models.items():
        try:
            described = describe_model(model, base_dir=folder)
        except BackendError as exc:
            faults.append(f"{key}: {exc}")
            continue
        found[key] = described.model
        for member in sorted(described.unknown - {"commit"}):
            echo(f"{key}: its {member} cannot be looked at from here, and is not locked", err=True)
    if faults:
        raise BackendError("\n".join(faults))
    return found


def _models(spec: Spec, base: tuple[str, ...], profile: str | None) -> Iterator[tuple[str, Model]]:
    """Yield the models of a spec and its local flows that run in this process, by their keys in the lock."""
    for name, model in spec.models.items():
        if model.capabilities.in_process:
            yield key_of(base, name, profile), model
    for name, flow in spec.flows.items():
        yield from _models(flow, (*base, "flows", name), profile)


def _is_kept(key: str, profile: str | None) -> bool:
    """Return whether what the lock has of a model stays: of other profiles; of this one it is written anew."""
    return key.partition("@")[2] != (profile or "")


def _changes(old: Mapping[str, LockedModel], new: Mapping[str, LockedModel]) -> Iterator[str]:
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if before is None:
            yield f"{key} is new"
        elif after is None:
            yield f"{key} has gone"
        else:
            yield from (f"{key}: {one}" for one in compare_models(before, after))
