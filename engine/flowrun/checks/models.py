"""FR6xx: the settings of models have names and ranges that vLLM accepts. The checks do not import vLLM.

A server may accept more parameters than vLLM, so an unknown name is only a warning for models of other backends.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Final, NamedTuple

from flowrun.checks.subject import Subject
from flowrun.checks.vllm_names import ENGINE, REASONING_PARSERS, SAMPLING, TOOL_CALL_PARSERS
from flowrun.errors import Issue, Path
from flowrun.spec.json_types import JSON_TYPES
from flowrun.spec.model import JSON, ChatState, Model, Spec
from flowrun.spec.phrases import listed, show
from flowrun.spec.suggestions import did_you_mean, suggest

OWN_PLACES: Final = {
    "model": "model.name",
    "revision": "model.revision",
    "reasoning_parser": "model.reasoning_parser",
}
"""Engine arguments that have a key of their own in a spec."""

FIXED: Final = frozenset({"n", "detokenize", "output_kind", "stream_interval", "skip_clone"})
"""Sampling parameters that flowrun sets itself: a reply is one full text."""

OPENAI_ONLY: Final = frozenset(
    {
        *(
            "audio",
            "frequency_penalty",
            "function_call",
            "functions",
            "logit_bias",
            "logprobs",
            "max_completion_tokens",
        ),
        *("max_tokens", "metadata", "modalities", "parallel_tool_calls", "prediction", "presence_penalty"),
        *("prompt_cache_key", "reasoning_effort", "safety_identifier", "seed", "service_tier", "stop", "store"),
        *("temperature", "top_logprobs", "top_p", "user", "verbosity", "web_search_options"),
    }
)
"""Parameters of OpenAI's chat API (``/v1/chat/completions``)."""


class Range(NamedTuple):
    """The range of a parameter. ``least`` and ``most`` are inclusive bounds, ``above`` is an exclusive lower bound."""

    least: float | None = None
    most: float | None = None
    above: float | None = None

    def admits(self, value: float) -> bool:
        """Return whether a value is in the range."""
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
        )

    def __str__(self) -> str:
        bounds = [("at least", self.least), ("above", self.above), ("at most", self.most)]
        return " and ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)


RANGES: Final[Mapping[str, Range]] = {
    "temperature": Range(least=0, most=2),
    "top_p": Range(above=0, most=1),
    "top_k": Range(least=-1),
    "min_p": Range(least=0, most=1),
    "presence_penalty": Range(least=-2, most=2),
    "frequency_penalty": Range(least=-2, most=2),
    "repetition_penalty": Range(above=0),
    "max_tokens": Range(least=1),
    "min_tokens": Range(least=0),
    "logprobs": Range(least=-1),
    "prompt_logprobs": Range(least=-1),
}
"""The ranges that vLLM's ``SamplingParams`` verifies."""


def check_models(subject: Subject) -> Iterator[Issue]:
    """Find settings that the backends of the models do not accept."""
    spec = subject.spec
    for name, model in spec.models.items():
        if not subject.has(("models", name)):
            continue
        yield from _sampling(subject, ("models", name, "sampling"), model.sampling, [model])
        if model.capabilities.vllm_settings:
            yield from _engine(subject, ("models", name, "engine"), model.engine)
            yield from _parser(subject, ("models", name, "tool_call_parser"), model.tool_call_parser, TOOL_CALL_PARSERS)
            yield from _parser(subject, ("models", name, "reasoning_parser"), model.reasoning_parser, REASONING_PARSERS)
    if subject.has(("sampling",)):
        yield from _sampling(subject, ("sampling",), spec.sampling, list(spec.models.values()))
    for name, state in spec.states.items():
        if isinstance(state, ChatState):
            yield from _chat(subject, name, state, spec)


def _chat(subject: Subject, name: str, state: ChatState, spec: Spec) -> Iterator[Issue]:
    model = spec.models.get(state.model)
    yield from _sampling(subject, ("states", name, "sampling"), state.sampling, [model] if model else [])
    offered = spec.tools if state.tools is None else state.tools
    if model is None or not model.capabilities.vllm_settings or not offered or state.tool_choice == "none":
        return
    if model.tool_call_parser is None:
        message = f"state {name!r} offers tools, but nothing says how the model {state.model!r} calls them"
        remedy = (
            "set the model's tool_call_parser to that of its family, such as hermes or mistral; or tool_choice: none"
        )
        yield subject.issue("FR605", ("states", name), message, remedy, key=True)


def _engine(subject: Subject, path: Path, arguments: Mapping[str, JSON]) -> Iterator[Issue]:
    for name in arguments:
        if name in OWN_PLACES:
            remedy = f"write it as {OWN_PLACES[name]}"
            yield subject.issue("FR603", (*path, name), f"{name!r} has a place of its own", remedy, key=True)
        elif name not in ENGINE:
            remedy = _name_remedy(name, ENGINE, "engine arguments")
            yield subject.issue("FR603", (*path, name), f"vLLM has no engine argument {name!r}", remedy, key=True)


def _parser(subject: Subject, path: Path, name: str | None, known: frozenset[str]) -> Iterator[Issue]:
    if name and name not in known and "${" not in name:
        kind = str(path[-1])
        yield subject.issue("FR604", path, f"vLLM has no {kind} {name!r}", suggest(name, known, f"{kind}s"))


def _sampling(subject: Subject, path: Path, parameters: Mapping[str, JSON], models: list[Model]) -> Iterator[Issue]:
    """Check sampling parameters. An unknown name is an error if one of ``models`` runs on vLLM, else a warning."""
    strict = any(model.capabilities.vllm_settings for model in models)
    known = SAMPLING.keys() if strict else SAMPLING.keys() | OPENAI_ONLY
    nor_openai = "" if strict else ", nor has OpenAI's chat API"
    for name, value in parameters.items():
        at = (*path, name)
        if name in FIXED and (strict or (name == "n" and value not in (None, 1))):
            remedy = "leave it out: a reply is one whole text"
            yield subject.issue("FR602", at, f"flowrun sets the sampling parameter {name!r} itself", remedy, key=True)
        elif name not in known:
            message = f"vLLM has no sampling parameter {name!r}{nor_openai}"
            remedy = _name_remedy(name, known, "sampling parameters")
            yield subject.issue("FR601", at, message, remedy, key=True, severity="error" if strict else "warning")
        elif strict and not (isinstance(value, str) and "${" in value) and (expected := _violated(name, value)):
            message = f"the sampling parameter {name!r} must be {expected}, and is {show(value)}"
            yield subject.issue("FR602", at, message, "change the value, or leave it out for vLLM's default")


def _violated(name: str, value: JSON) -> str:
    """Return the type or range that a parameter's value violates, or "". Null is valid: it means the default."""
    types, json_type = SAMPLING[name], JSON_TYPES[type(value)]
    if json_type == "null":
        return ""
    if (json_type == "number" and value.is_integer()) or (json_type == "integer" and "number" in types):
        json_type = "integer" if "integer" in types else "number"
    if json_type not in types:
        return "of type " + listed([known for known in types if known != "null"], "or", quote="")
    in_range = name not in RANGES or not isinstance(value, (int, float)) or RANGES[name].admits(value)
    return "" if in_range else str(RANGES[name])


def _name_remedy(name: str, known: Collection[str], kind: str) -> str:
    """Return a remedy with a similar name, but without the list of all names, which are hundreds."""
    return did_you_mean(name, known) or f"see vLLM's own list of its {kind}, or delete it"
