"""FR6xx: the settings of models have names and values that their backends accept. The checks do not import vLLM.

A server may accept more parameters than vLLM, so an unknown name is only a warning for models of other backends.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Final, NamedTuple

from flowrun.checks.backends import check_backend
from flowrun.checks.subject import Subject
from flowrun.checks.vllm_names import ENGINE, REASONING_PARSERS, SAMPLING, TOOL_CALL_PARSERS
from flowrun.errors import Issue, Path
from flowrun.spec.json_types import JSON_TYPES
from flowrun.spec.model import JSON, ChatState, DecideState, Model, Spec
from flowrun.spec.phrases import inline, listed, show
from flowrun.spec.suggestions import did_you_mean, suggest

OWN_PLACES: Final = {
    "model": "model.name",
    "revision": "model.revision",
    "reasoning_parser": "model.reasoning_parser",
}
"""Engine arguments that have a key of their own in a spec."""

FIXED: Final = frozenset({"n", "detokenize", "output_kind", "stream_interval", "skip_clone"})
"""Sampling parameters that flowrun sets itself: a reply is one full text."""

OVERWRITING: Final = frozenset(
    {
        *("function_call", "functions", "messages", "model", "response_format", "stream", "stream_options"),
        *("tool_choice", "tools"),
    }
)
"""Fields of a request that the state's own keys make: sampling that has them would overwrite the request."""

OPENAI_ONLY: Final[Mapping[str, tuple[str, ...]]] = {
    "audio": ("object",),
    "frequency_penalty": ("number",),
    "logit_bias": ("object",),
    "logprobs": ("boolean", "integer"),
    "max_completion_tokens": ("integer",),
    "max_tokens": ("integer",),
    "metadata": ("object",),
    "modalities": ("array",),
    "parallel_tool_calls": ("boolean",),
    "prediction": ("object",),
    "presence_penalty": ("number",),
    "prompt_cache_key": ("string",),
    "reasoning_effort": ("string",),
    "safety_identifier": ("string",),
    "seed": ("integer",),
    "service_tier": ("string",),
    "stop": ("array", "string"),
    "store": ("boolean",),
    "temperature": ("number",),
    "top_logprobs": ("integer",),
    "top_p": ("number",),
    "user": ("string",),
    "verbosity": ("string",),
    "web_search_options": ("object",),
}
"""Parameters of OpenAI's chat API (``/v1/chat/completions``), with the JSON types that they accept."""


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
    "max_completion_tokens": Range(least=1),
    "top_logprobs": Range(least=0, most=20),
}
"""The ranges that vLLM's ``SamplingParams`` or OpenAI's chat API verifies."""


def check_models(subject: Subject) -> Iterator[Issue]:
    """Find settings that the backends of the models do not accept, or that can have no effect."""
    spec = subject.spec
    for name, model in spec.models.items():
        if not subject.has(("models", name)):
            continue
        yield from check_backend(subject, ("models", name), model)
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
        elif isinstance(state, DecideState):
            yield from _decide(subject, name, state)


def _chat(subject: Subject, name: str, state: ChatState, spec: Spec) -> Iterator[Issue]:
    models = {model: spec.models[model] for model in state.models_among(spec.models) if model in spec.models}
    path = ("states", name, "sampling")
    yield from _sampling(subject, path, state.sampling, list(models.values()))
    shared: list[tuple[Path, Mapping[str, JSON]]] = [(("sampling",), spec.sampling)]
    for key, sampling in [(key, model.sampling) for key, model in models.items()] or [("", {})]:
        yield from _lengths(subject, [(path, state.sampling), (("models", key, "sampling"), sampling), *shared])
    if not state.tools_among(spec.tools) or state.tool_choice == "none":
        return
    for key, model in models.items():
        if model.capabilities.vllm_settings and model.tool_call_parser is None:
            message = f"state {name!r} offers tools, but nothing says how the model {key!r} calls them"
            remedy = (
                "set the model's tool_call_parser to that of its family, such as hermes or mistral; "
                "or tool_choice: none"
            )
            yield subject.issue("FR605", ("states", name), message, remedy, key=True)


def _decide(subject: Subject, name: str, state: DecideState) -> Iterator[Issue]:
    for named in state.models_among(subject.spec.models):
        model = subject.spec.models.get(named)
        mode = model.engine.get("logprobs_mode", _RAW) if model and model.capabilities.vllm_settings else _RAW
        if mode != _RAW and not _is_reference(mode):
            message = f"state {name!r} decides by raw log-probabilities; with {inline(mode)} the engine gives others"
            yield subject.issue("FR610", ("models", named, "engine", "logprobs_mode"), message, "leave it out")


def _lengths(subject: Subject, layers: list[tuple[Path, Mapping[str, JSON]]]) -> Iterator[Issue]:
    """Compare ``min_tokens`` with ``max_tokens``, which may stand in different places; the first one counts."""
    found = {}
    for name in ("min_tokens", "max_tokens"):
        found[name] = next(((path, own[name]) for path, own in layers if type(own.get(name)) is int), None)
    least, most = found["min_tokens"], found["max_tokens"]
    if least is not None and most is not None and least[1] > most[1] >= 1:
        message = f"min_tokens is {least[1]}, and max_tokens is {most[1]}: no reply is so long and so short"
        yield subject.issue("FR602", (*least[0], "min_tokens"), message, "lower min_tokens, or raise max_tokens")


def _engine(subject: Subject, path: Path, arguments: Mapping[str, JSON]) -> Iterator[Issue]:
    for name, value in arguments.items():
        if name in OWN_PLACES:
            remedy = f"write it as {OWN_PLACES[name]}"
            yield subject.issue("FR603", (*path, name), f"{name!r} has a place of its own", remedy, key=True)
        elif name not in ENGINE:
            remedy = _name_remedy(name, ENGINE, "engine arguments")
            yield subject.issue("FR603", (*path, name), f"vLLM has no engine argument {name!r}", remedy, key=True)
        elif ENGINE[name] and not _is_reference(value) and (expected := _other_type(ENGINE[name], value)):
            message = f"the engine argument {name!r} must be {expected}, and is {show(value)}"
            yield subject.issue("FR610", (*path, name), message, "change the value, or leave it out")
        elif name in _NO_CHAT and value in _NO_CHAT[name]:
            message = f"with {name}: {inline(value)} the engine gives no text, so no chat state gets a reply"
            yield subject.issue("FR610", (*path, name), message, "leave it out")
    if arguments.get("enable_lora") is True:
        message = "enable_lora has no effect: no request names an adapter"
        yield subject.issue("FR608", (*path, "enable_lora"), message, "leave it out", severity="warning")


def _parser(subject: Subject, path: Path, name: str | None, known: frozenset[str]) -> Iterator[Issue]:
    if name and name not in known and "${" not in name:
        kind = str(path[-1])
        yield subject.issue("FR604", path, f"vLLM has no {kind} {name!r}", suggest(name, known, f"{kind}s"))


def _sampling(subject: Subject, path: Path, parameters: Mapping[str, JSON], models: list[Model]) -> Iterator[Issue]:
    """Check sampling parameters. An unknown name is an error if one of ``models`` runs on vLLM, else a warning."""
    strict = any(model.capabilities.vllm_settings for model in models)
    known = SAMPLING.keys() if strict else SAMPLING.keys() | OPENAI_ONLY.keys()
    nor_openai = "" if strict else ", nor has OpenAI's chat API"
    for name, value in parameters.items():
        at = (*path, name)
        if name in OVERWRITING:
            remedy = f"write it as the state's own '{name}'" if name in _OWN_KEYS else "leave it out"
            yield subject.issue("FR602", at, f"sampling must not overwrite {name!r} of the request", remedy, key=True)
        elif name in FIXED and (strict or (name == "n" and value not in (None, 1))):
            remedy = "leave it out: a reply is one whole text"
            yield subject.issue("FR602", at, f"flowrun sets the sampling parameter {name!r} itself", remedy, key=True)
        elif name not in known:
            message = f"vLLM has no sampling parameter {name!r}{nor_openai}"
            remedy = _name_remedy(name, known, "sampling parameters")
            yield subject.issue("FR601", at, message, remedy, key=True, severity="error" if strict else "warning")
        elif not _is_reference(value) and (expected := _violated(name, value, strict=strict)):
            message = f"the sampling parameter {name!r} must be {expected}, and is {show(value)}"
            yield subject.issue("FR602", at, message, "change the value, or leave it out for the default")
        elif name in _UNREAD and value not in (None, False):
            also = ", and turns the prefix cache off" if name == "prompt_logprobs" else ""
            message = f"{name} has no effect{also}: nothing in a flow reads log-probabilities"
            yield subject.issue("FR608", at, message, "leave it out", key=True, severity="warning")


_RAW: Final = "raw_logprobs"
"""The engine's default for ``logprobs_mode``, and the only one that decide states can use."""

_OWN_KEYS: Final = frozenset({"messages", "model", "response_format", "tool_choice", "tools"})

_UNREAD: Final = frozenset(
    {
        *("logprob_token_ids", "logprobs", "prompt_logprob_start", "prompt_logprob_token_ids", "prompt_logprobs"),
        *("routed_experts_prompt_start", "top_logprobs", "trace_decode_token_ids"),
    }
)
"""Parameters for outputs of vLLM that no reply has."""

_NO_CHAT: Final[Mapping[str, tuple[JSON, ...]]] = {
    "runner": ("pooling", "draft"),
    "convert": ("embed", "classify"),
    "skip_tokenizer_init": (True,),
    "tokens_only": (True,),
}
"""Engine arguments and the values with which an engine is none for chats."""


def _is_reference(value: JSON) -> bool:
    """Return whether a value is that of an environment variable that is not set here."""
    return isinstance(value, str) and "${" in value


def _violated(name: str, value: JSON, *, strict: bool) -> str:
    """Return the type, range or form that a parameter's value violates, or "". Null is valid: it means the default.

    Args:
        strict: only vLLM's own types count.
    """
    types = SAMPLING.get(name, ()) if strict else (*SAMPLING.get(name, ()), *OPENAI_ONLY.get(name, ()))
    if expected := _other_type(types, value):
        return expected
    if name in RANGES and type(value) in (int, float) and not RANGES[name].admits(value):
        return str(RANGES[name])
    return _FORMS[name][1] if name in _FORMS and value is not None and not _FORMS[name][0](value) else ""


def _other_type(types: Collection[str], value: JSON) -> str:
    """Return the types that a value has none of, or ""."""
    json_type = JSON_TYPES[type(value)]
    if json_type == "null":
        return ""
    if (json_type == "number" and value.is_integer()) or (json_type == "integer" and "number" in types):
        json_type = "integer" if "integer" in types else "number"
    if json_type in types:
        return ""
    return "of type " + listed(sorted({known for known in types if known != "null"}), "or", quote="")


def _are_texts(value: JSON) -> bool:
    texts = value if isinstance(value, list) else [value]
    return all(isinstance(text, str) and text for text in texts)


def _are_token_ids(value: JSON) -> bool:
    return all(type(item) is int and item >= 0 for item in value)


def _are_biases(value: JSON) -> bool:
    return all(key.isdigit() and type(bias) in (int, float) and -100 <= bias <= 100 for key, bias in value.items())


_FORMS: Final[Mapping[str, tuple[Callable[[JSON], bool], str]]] = {
    "stop": (_are_texts, "a text or a list of texts, none of them empty"),
    "bad_words": (_are_texts, "a list of texts, none of them empty"),
    "stop_token_ids": (_are_token_ids, "a list of token ids"),
    "allowed_token_ids": (
        lambda value: bool(value) and _are_token_ids(value),
        "a list of token ids, with one at least",
    ),
    "logit_bias": (_are_biases, "a mapping of token ids to numbers from -100 to 100"),
}
"""The forms of values beyond their type and range, each with its description."""


def _name_remedy(name: str, known: Collection[str], kind: str) -> str:
    """Return a remedy with a similar name, but without the list of all names, which are hundreds."""
    return did_you_mean(name, known) or f"see vLLM's own list of its {kind}, or delete it"
