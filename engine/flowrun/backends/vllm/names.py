"""The names that the installed vLLM knows: engine arguments, sampling parameters, parsers."""

import dataclasses
import functools
import inspect
from collections.abc import Iterable, Mapping
from typing import Final

from flowrun.checks.models import FIXED, OWN_PLACES
from flowrun.spec.model import JSON, Model
from flowrun.spec.suggestions import did_you_mean, suggest

OWN_ENGINE_ARGUMENTS: Final = OWN_PLACES
FIXED_SAMPLING: Final = FIXED


def faults_of_model(model: Model) -> list[str]:
    """Return the faults of the names in a model's settings, with suggestions."""
    faults = [*faults_of_engine(model.engine), *faults_of_sampling(model.sampling)]
    for setting, name, known in (
        ("tool_call_parser", model.tool_call_parser, tool_call_parsers()),
        ("reasoning_parser", model.reasoning_parser, reasoning_parsers()),
    ):
        if name and name not in known:
            faults.append(f"vLLM has no {setting} {name!r}; {suggest(name, known, f'{setting}s')}")
    return faults


def faults_of_engine(arguments: Iterable[str]) -> list[str]:
    """Return a fault for each engine argument that vLLM does not have, or that a spec sets by another key."""
    from vllm.engine.arg_utils import AsyncEngineArgs

    known = {field.name for field in dataclasses.fields(AsyncEngineArgs)}
    return [
        f"model.engine.{name} has a place of its own: {OWN_ENGINE_ARGUMENTS[name]}"
        if name in OWN_ENGINE_ARGUMENTS
        else _missing("engine argument", name, known)
        for name in arguments
        if name in OWN_ENGINE_ARGUMENTS or name not in known
    ]


def faults_of_sampling(sampling: Mapping[str, JSON]) -> list[str]:
    """Return a fault for each sampling parameter that vLLM does not have, or that the backend sets itself."""
    known = sampling_names()
    return [
        f"sampling.{name} is set by flowrun itself: leave it out"
        if name in FIXED_SAMPLING
        else _missing("sampling parameter", name, known)
        for name in sampling
        if name not in known
    ]


def _missing(kind: str, name: str, known: Iterable[str]) -> str:
    suggestion = did_you_mean(name, known)
    return f"vLLM has no {kind} {name!r}{f'; {suggestion}' if suggestion else ''}"


@functools.cache
def sampling_names() -> frozenset[str]:
    """Return the names of the sampling parameters that a spec may set."""
    from vllm import SamplingParams

    return frozenset(inspect.signature(SamplingParams.from_optional).parameters) - FIXED_SAMPLING


def tool_call_parsers() -> list[str]:
    """Return the names of vLLM's parsers of tool calls."""
    from vllm.tool_parsers import ToolParserManager

    return list(ToolParserManager.list_registered())


def reasoning_parsers() -> list[str]:
    """Return the names of vLLM's parsers of reasoning."""
    from vllm.reasoning import ReasoningParserManager

    return list(ReasoningParserManager.list_registered())
