"""Every internal of vLLM that flowrun uses, each with how it is used. Data, and what differs between versions.

``contract.py`` compares this table with the vLLM that is installed, each time that an engine starts. A test compares it
with the source of a newer vLLM, and with what the modules of this package import and read: a name that is not here must
not be used. Nothing here imports vLLM before a function is called.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """How something is called: with so many positional arguments, and these keywords.

    Attributes:
        positional: None if flowrun does not call it, but another member does.
        relies_on: the defaults of parameters that are left out, where their meaning matters.
        calls: attributes that the function itself must read: flowrun replaces them, in order to be called.
    """

    positional: int | None = 0
    keywords: tuple[str, ...] = ()
    relies_on: Mapping[str, tuple[Any, ...]] = field(default_factory=lambda: MappingProxyType({}))
    calls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Internal:
    """A function, class or constant of vLLM.

    Attributes:
        module, name: where it is. ``moved``: the modules that have it in other versions.
        call: how it is called itself.
        members: the attributes that are read, set or replaced, of the class or its objects; with how they are called.
        defaults: the defaults of fields that are read, where their meaning matters.
        foreign: members that come from other packages (pydantic, transformers), which nobody looks up in vLLM.
        held_as: by the module here, the names by which its code holds such an object.
        only_on_cpus: it is used only where the engine runs on CPUs.
        optional: flowrun does without it, and loses a line of progress.
    """

    module: str
    name: str
    moved: tuple[str, ...] = ()
    call: Call | None = None
    members: Mapping[str, Call | None] = field(default_factory=dict)
    defaults: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    foreign: tuple[str, ...] = ()
    held_as: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    only_on_cpus: bool = False
    optional: bool = False


READ: Final = None
"""A member that is read, set or replaced, and not called."""

SUPPORTED: Final = ">=0.32,<0.34"
"""The versions of vLLM with which flowrun was tested: 0.32 runs in the tests.

Of 0.33, which has no build for CPUs, the Python files alone render prompts and read replies in ``tests/readers``.
"""

ENVIRONMENT: Final = (
    "VLLM_CPU_KVCACHE_SPACE",
    "VLLM_ENABLE_V1_MULTIPROCESSING",
    "VLLM_LOGGING_LEVEL",
    "VLLM_LOGGING_STREAM",
    "VLLM_NO_USAGE_STATS",
    "VLLM_USE_MODELSCOPE",
    "VLLM_WORKER_MULTIPROC_METHOD",
)
"""The environment variables of vLLM that are set or read."""

PROCESS: Final = ("vllm.v1.engine.utils", "EngineCore")
"""The module that starts the engine's processes, and with what their names begin."""

PLUGINS: Final = ("vllm.plugins", "vllm.general_plugins")
"""The module that calls plugins in each process, and the group of entry points that flowrun's is in."""

INTERNALS: Final = (
    # --- the engine ---------------------------------------------------------------------------------------------
    Internal(
        module="vllm",
        name="AsyncLLMEngine",
        members={"from_vllm_config": Call(positional=1, keywords=("disable_log_stats",))},
        held_as={"engine": ("AsyncLLMEngine",)},
    ),
    Internal(
        module="vllm.v1.engine.async_llm",
        name="AsyncLLM",
        members={
            "add_lora": Call(positional=1),
            "engine_core": READ,
            "errored": READ,
            "generate": Call(positional=3, keywords=("lora_request", "reasoning_ended", "reasoning_parser_kwargs")),
            "shutdown": Call(),  # and replaced, since vLLM's __del__ calls it again
        },
        held_as={"engine": ("_engine",)},
    ),
    Internal(
        module="vllm.v1.engine.core_client",
        name="MPClient",
        members={"resources": READ},
        held_as={"engine": ("engine_core",)},
    ),
    Internal(
        module="vllm.v1.engine.core_client",
        name="BackgroundResources",
        members={"ctx": READ},  # a context of ZeroMQ, which vLLM leaves open
        held_as={"engine": ("resources",)},
    ),
    Internal(
        module="vllm.v1.engine.core",
        name="EngineCore",
        members={"_initialize_kv_caches": READ},  # wrapped, to announce that the weights are loaded
        optional=True,
    ),
    Internal(
        module="vllm.engine.arg_utils",
        name="AsyncEngineArgs",
        call=Call(
            keywords=(
                *("model", "revision", "reasoning_parser", "enforce_eager"),
                *("enable_lora", "max_loras", "max_lora_rank"),
            )
        ),
        members={"create_engine_config": Call()},
    ),
    Internal(
        module="vllm.platforms.interface",
        name="Platform",
        members={"is_cpu": Call()},
        held_as={"engine": ("current_platform",), "engine_process": ("current_platform",)},
    ),
    Internal(module="vllm.platforms", name="current_platform"),
    Internal(module="vllm.lora.request", name="LoRARequest", call=Call(positional=3)),
    Internal(
        module="vllm.v1.worker.gpu_input_batch",
        name="CachedRequestState",  # mended, on CPUs
        members={"__post_init__": Call(), "generator": READ},
        foreign=("mended_by_flowrun",),
        held_as={"cpu_generators": ("CachedRequestState", "state")},
        only_on_cpus=True,
    ),
    Internal(module="vllm.v1.worker.gpu_input_batch", name="torch", only_on_cpus=True),
    # --- requests and outputs -----------------------------------------------------------------------------------
    Internal(
        module="vllm.sampling_params",
        name="SamplingParams",
        call=Call(keywords=("max_tokens", "temperature", "logprob_token_ids", "output_kind", "skip_clone")),
        members={
            "from_optional": Call(
                keywords=(
                    *("max_tokens", "logprobs", "structured_outputs", "skip_special_tokens"),
                    *("spaces_between_special_tokens", "output_kind", "skip_clone"),
                ),
                relies_on={"skip_special_tokens": (True,), "spaces_between_special_tokens": (True,)},
            ),
            "output_kind": READ,
        },
        held_as={"chat": ("SamplingParams",), "names": ("SamplingParams",), "engine": ("sampling",)},
    ),
    Internal(module="vllm", name="SamplingParams"),
    Internal(
        module="vllm.sampling_params",
        name="RequestOutputKind",
        members={"CUMULATIVE": READ, "FINAL_ONLY": READ},
        held_as={"chat": ("RequestOutputKind",), "engine": ("RequestOutputKind",)},
    ),
    Internal(
        module="vllm.outputs",
        name="RequestOutput",
        members={"outputs": READ, "prompt_token_ids": READ, "num_cached_tokens": READ},
        held_as={"backend": ("output",), "written_text": ("output",)},
    ),
    Internal(
        module="vllm.outputs",
        name="CompletionOutput",
        members={"finish_reason": READ, "logprobs": READ, "text": READ, "token_ids": READ},
        held_as={"backend": ("completion",), "written_text": ("completion",)},
    ),
    Internal(module="vllm.logprobs", name="Logprob", members={"logprob": READ}, held_as={"letters": ("one",)}),
    Internal(
        module="vllm.entrypoints.openai.chat_completion.protocol",
        name="ChatCompletionRequest",
        call=Call(keywords=("messages", "max_completion_tokens", "request_id")),
        members={
            "extract_structured_outputs": Call(),
            "messages": READ,
            "resolve_reasoning_ended": Call(positional=2),
            "response_format": READ,
            "skip_special_tokens": READ,
            "spaces_between_special_tokens": READ,
            "tools": READ,
        },
        # None is "as the sampling says"; see ``request_sampling``.
        defaults={"skip_special_tokens": (True, None), "spaces_between_special_tokens": (True, None)},
        foreign=("model_copy",),
        held_as={"chat": ("request",), "calls": ("request",), "written_text": ("_request",)},
    ),
    Internal(
        module="vllm.entrypoints.serve.engine.protocol",
        name="ErrorResponse",  # what ``OnlineRenderer.render_chat`` returns for a request that it refuses
        members={"error": READ},
    ),
    # --- prompts ------------------------------------------------------------------------------------------------
    Internal(module="vllm.renderers", name="renderer_from_config", call=Call(positional=1)),
    Internal(
        module="vllm.renderers.base",
        name="BaseRenderer",
        members={
            "get_eos_token_id": Call(),
            "model_config": READ,
            "render_chat": Call(positional=2, calls=("render_messages",)),
            "render_chat_async": READ,  # replaced
            "render_messages": Call(positional=2),  # replaced, and called as it was
            "shutdown": Call(),
            "tokenizer": READ,
        },
        held_as={"chat": ("_renderer",), "prompt_cache": ("renderer",), "template_input": ("renderer",)},
    ),
    Internal(
        module="vllm.renderers",
        name="ChatParams",
        call=Call(keywords=("chat_template", "chat_template_kwargs")),
        members={
            "chat_template": READ,
            "chat_template_content_format": READ,
            "chat_template_kwargs": READ,
            "get_apply_chat_template_kwargs": Call(),
        },
        held_as={"template_input": ("params",)},
    ),
    Internal(module="vllm.renderers.hf", name="HfRenderer"),  # its ``render_messages`` calls the next three
    Internal(
        module="vllm.renderers.hf",
        name="resolve_chat_template_content_format",
        call=Call(keywords=("chat_template", "tools", "given_format", "tokenizer", "model_config")),
    ),
    Internal(
        module="vllm.renderers.chat_utils",
        name="parse_chat_messages",
        call=Call(positional=2, keywords=("content_format",)),
    ),
    Internal(module="vllm.renderers.hf", name="safe_apply_chat_template", call=Call(positional=3)),
    Internal(
        module="vllm.renderers.online_renderer",
        name="OnlineRenderer",
        call=Call(
            positional=2,
            keywords=(
                *("request_logger", "chat_template", "chat_template_content_format", "enable_auto_tools"),
                *("tool_strict_level", "default_chat_template_kwargs", "tool_parser", "reasoning_parser"),
            ),
            # Left out, it is the family's own level: "auto" until 0.32, where the parser's replaces AUTO; None since
            # 0.33, where "auto" is AUTO, so that glm47 would lose its grammar of calls. See ``strict_level``.
            relies_on={"tool_strict_level": ("auto", None)},
        ),
        members={
            "effective_chat_template_kwargs": Call(positional=1),
            "preprocess_chat": Call(positional=None, calls=("render_chat_async",)),
            "render_chat": Call(positional=1, calls=("preprocess_chat",)),
        },
        held_as={"chat": ("renderer",)},
    ),
    Internal(
        module="vllm.exceptions",
        name="ChatTemplateResolutionError",
        moved=("vllm.renderers.chat_utils",),  # until 0.32
    ),
    Internal(module="vllm.utils.mistral", name="is_mistral_tokenizer", call=Call(positional=1)),
    Internal(
        module="vllm.tokenizers.protocol",
        name="TokenizerLike",
        members={
            "__call__": READ,
            "all_special_ids": READ,
            "convert_ids_to_tokens": Call(positional=1),
            "decode": Call(positional=1, keywords=("skip_special_tokens",)),
            "get_vocab": Call(),
            "max_chars_per_token": READ,
        },
        foreign=("added_tokens_decoder", "backend_tokenizer"),
        held_as={"chat": ("tokenizer",), "prompt_cache": ("_tokenizer", "tokenizer")},
    ),
    # --- configuration ------------------------------------------------------------------------------------------
    Internal(
        module="vllm.config",
        name="VllmConfig",
        members={"model_config": READ, "parallel_config": READ, "scheduler_config": READ},
        held_as={"chat": ("config",)},
    ),
    Internal(
        module="vllm.config",
        name="ModelConfig",
        members={
            "enable_prompt_embeds": READ,
            "get_diff_sampling_param": Call(),
            "hf_config": READ,
            "logprobs_mode": READ,
            "max_model_len": READ,
            "model": READ,
            "try_get_generation_config": Call(),
        },
        defaults={"logprobs_mode": ("raw_logprobs",)},
        held_as={"chat": ("_config",), "template_input": ("model_config",)},
    ),
    Internal(
        module="vllm.config",
        name="SchedulerConfig",
        members={"max_num_seqs": READ},
        held_as={"chat": ("scheduler_config",)},
    ),
    Internal(
        module="vllm.config",
        name="ParallelConfig",
        members={"data_parallel_size": READ},
        held_as={"chat": ("parallel_config",)},
    ),
    # --- parsers ------------------------------------------------------------------------------------------------
    Internal(
        module="vllm.parser",
        name="ParserManager",
        members={
            "get_parser": Call(
                keywords=(
                    *("tool_parser_name", "reasoning_parser_name", "enable_auto_tools"),
                    *("model_name", "is_harmony", "tokenizer"),
                )
            )
        },
        held_as={"chat": ("ParserManager",)},
    ),
    Internal(
        module="vllm.parser",
        name="Parser",
        call=Call(positional=2, keywords=("chat_template_kwargs", "model_config")),
        members={
            "parse": Call(positional=2, keywords=("enable_auto_tools", "model_output_token_ids")),
            "parse_delta": Call(positional=4, keywords=("finished",)),
            "reasoning_parser": READ,
            "set_prompt_token_ids": Call(positional=1),
            "tool_parser": READ,
        },
        held_as={"chat": ("parser",), "written_text": ("_parser",)},
    ),
    Internal(
        module="vllm.tool_parsers",
        name="ToolParser",
        members={"get_structural_tag": Call(positional=1, keywords=("strict_level",))},
        held_as={"calls": ("tool_parser",)},
    ),
    Internal(
        module="vllm.parser.engine.adapters",
        name="ParserEngineToolAdapter",
        members={"_parser_engine": READ},  # by which the markers of calls are found
    ),
    Internal(module="vllm.parser.engine.parser_engine", name="ParserEngine", members={"parser_engine_config": READ}),
    Internal(module="vllm.parser.engine.parser_engine_config", name="ParserEngineConfig", members={"terminals": READ}),
    Internal(
        module="vllm.tool_parsers.tool_strict_level",
        name="ToolStrictLevel",
        members={"FUNCTION": READ, "PARAMETER": READ},
        held_as={"calls": ("ToolStrictLevel",)},
    ),
    Internal(
        module="vllm.tool_parsers",
        name="ToolParserManager",
        members={"list_registered": Call()},
        held_as={"names": ("ToolParserManager",)},
    ),
    Internal(
        module="vllm.reasoning",
        name="ReasoningParserManager",
        members={"list_registered": Call()},
        held_as={"names": ("ReasoningParserManager",)},
    ),
    Internal(
        module="vllm.entrypoints.generate.base.protocol",
        name="FunctionCall",
        members={"arguments": READ, "id": READ, "name": READ},
        held_as={"calls": ("call",)},
    ),
    Internal(
        module="vllm.entrypoints.generate.base.protocol",
        name="DeltaMessage",
        members={"content": READ},
        held_as={"written_text": ("message",)},
    ),
    # --- errors, by the names of their classes (``errors.MEANINGS``) --------------------------------------------
    Internal(module="vllm.exceptions", name="VLLMClientError"),
    Internal(module="vllm.exceptions", name="VLLMServerError"),
    Internal(module="vllm.exceptions", name="GracefulHTTPError"),
    Internal(module="vllm.exceptions", name="VLLMValidationError", members={"parameter": READ}),
    Internal(module="vllm.v1.engine.exceptions", name="EngineDeadError"),
    Internal(module="vllm.v1.engine.exceptions", name="EngineGenerateError"),
)
"""The table. What is not called or read by flowrun itself stands in it where another member depends on it."""


def strict_level(*, forced: bool) -> dict[str, str]:
    """Return the argument of ``OnlineRenderer`` for how strictly calls follow their tools' schemas.

    Without one, vLLM takes the level of the model's family; the value that says so differs from version to version.

    Args:
        forced: the tool choice forces a call, whose arguments must match their schema in every family.
    """
    return {"tool_strict_level": "parameter"} if forced else {}


def request_sampling(request: Any) -> dict[str, Any]:
    """Return the sampling parameters that a chat request, or its parser, has set.

    Since 0.33 a request that says nothing of special tokens has None there, which ``SamplingParams`` would read as no.
    """
    names = ("skip_special_tokens", "spaces_between_special_tokens")
    return {name: value for name in names if (value := getattr(request, name)) is not None}


def template_missing() -> type[Exception]:
    """Return the class of the error that a model comes without a chat template."""
    try:
        from vllm.exceptions import ChatTemplateResolutionError
    except ImportError:  # until 0.32
        from vllm.renderers.chat_utils import ChatTemplateResolutionError
    found: type[Exception] = ChatTemplateResolutionError
    return found
