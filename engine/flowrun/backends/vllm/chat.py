"""How a model family puts a conversation into tokens, and reads a reply: its chat template, tokenizer and parsers.

The same steps in the same order as in vLLM's own server, so a spec gets in process what it gets from a server. Needs
vLLM's configuration of the model, but no engine.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from flowrun.backends.chat_api import request_body
from flowrun.backends.vllm.calls import call_markers, read_call, unread_call
from flowrun.backends.vllm.names import faults_of_sampling, tool_call_parsers
from flowrun.backends.vllm.prompt_cache import PromptCache, extends, written
from flowrun.core.events import AskModel
from flowrun.core.messages import Reply, Usage
from flowrun.errors import BackendError, ModelError
from flowrun.spec.model import JSON, Model

_SHARED: Final = ("structured_outputs", "skip_special_tokens", "spaces_between_special_tokens")
"""Sampling parameters that a family's parser may change, so they travel in the request."""
_EXCERPT = 200  # characters


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A request as the engine takes it, and what is needed to read the reply. vLLM's own objects.

    ``rerendered`` says that the prompt does not begin with what the model read and wrote in the round before.
    """

    prompt: Any
    token_ids: Sequence[int]
    sampling: Any
    generate: Mapping[str, Any]
    request: Any
    parser: Any
    choice: str
    rerendered: bool


class VllmChat:
    """The chat template, the tokenizer and the parsers of one model."""

    def __init__(self, model: Model, config: Any, template: str | None) -> None:
        """Load the tokenizer; ``config`` is a VllmConfig, ``template`` Jinja text.

        Raises:
            BackendError: the template has a syntax error, or the parsers do not fit the model's tokenizer.
        """
        from vllm.parser import ParserManager
        from vllm.renderers import renderer_from_config
        from vllm.renderers.online_renderer import OnlineRenderer

        self._model = model
        self._config = config.model_config
        self.concurrency: int = config.scheduler_config.max_num_seqs * config.parallel_config.data_parallel_size
        self._renderer = renderer_from_config(config)
        self._history = PromptCache(
            self._renderer, ends=self._ends_of_turns(), max_model_len=self._config.max_model_len
        )
        self._markers: frozenset[str] | None = None
        self._defaults = dict(self._config.get_diff_sampling_param())
        parsers = {"tool_parser": model.tool_call_parser, "reasoning_parser": model.reasoning_parser}
        try:
            self._parser_class = ParserManager.get_parser(
                **{f"{kind}_name": name for kind, name in parsers.items()},
                enable_auto_tools=True,
                model_name=self._config.model,
                is_harmony=self._config.hf_config.model_type == "gpt_oss",
                tokenizer=self._renderer.tokenizer,
            )
        except (TypeError, ValueError) as exc:
            raise BackendError(f"the parsers do not fit the model {model.name!r}: {exc.__cause__ or exc}") from exc
        # A call that is forced keeps to its tool's schema in every family: vLLM's way of forcing depends on the family,
        # and where it has a grammar for it, that leaves the arguments of a tool that is not ``strict`` free.
        self._renderers = {
            forced: OnlineRenderer(
                self._config,
                self._renderer,
                request_logger=None,
                chat_template=template,
                chat_template_content_format="auto",
                enable_auto_tools=True,
                tool_strict_level="parameter" if forced else "auto",
                default_chat_template_kwargs=dict(model.chat_template_kwargs),
                **parsers,
            )
            for forced in (False, True)
        }
        self._check_template(template)

    @property
    def takes_template(self) -> bool:
        """Tell whether the tokenizer works with chat templates; Mistral's own has its format built in."""
        from vllm.utils.mistral import is_mistral_tokenizer

        return not is_mistral_tokenizer(self._renderer.tokenizer)

    def _ends_of_turns(self) -> list[int]:
        """Give the tokens at which the engine ends a reply."""
        ends = self._config.try_get_generation_config().get("eos_token_id")
        several = ends if isinstance(ends, list) else [ends]
        return sorted({one for one in (*several, self._renderer.get_eos_token_id()) if one is not None})

    def _check_template(self, template: str | None) -> None:
        from jinja2 import TemplateSyntaxError
        from vllm.renderers import ChatParams
        from vllm.renderers.chat_utils import ChatTemplateResolutionError

        if not self.takes_template:
            return
        try:
            self._renderer.render_chat([[{"role": "user", "content": "Hello"}]], ChatParams(chat_template=template))
        except TemplateSyntaxError as exc:
            whose = "model.chat_template" if template else f"the chat template of {self._model.name!r}"
            raise BackendError(f"{whose}, line {exc.lineno}: {exc.message}") from exc
        except ChatTemplateResolutionError as exc:
            raise BackendError(
                f"the model {self._model.name!r} comes without a chat template: set model.chat_template to a file"
            ) from exc
        except Exception:  # a template may refuse so short a thread; only a real request shows what is wrong
            return

    async def render(self, ask: AskModel) -> Rendered:
        """Put a request into tokens. Raises ModelError, or whatever vLLM raises for a request that it refuses."""
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

        self._check(ask)
        body = chat_request(ask)
        messages = body.pop("messages")
        # The reply's length is bounded below, by the room that there is. Without this one, vLLM reads ``max_tokens``,
        # which warns of being deprecated. Nobody reads the id, but making one up takes as long as all the rest.
        request = ChatCompletionRequest(
            **body, messages=list(filter(_odd, messages)), max_completion_tokens=1, request_id="-"
        )
        request.messages = messages
        choice = ask.tool_choice if ask.tools else "none"
        renderer = self._renderers[choice not in ("auto", "none")]
        template_kwargs = renderer.effective_chat_template_kwargs(request)
        parser = None
        if self._parser_class is not None:
            parser = self._parser_class(
                self._renderer.tokenizer,
                request.tools,
                chat_template_kwargs=template_kwargs,
                model_config=self._config,
            )
        with self._history.of(ask):
            rendered = await renderer.render_chat(request)
        if not isinstance(rendered, tuple):  # an ErrorResponse
            raise ModelError("model.request_refused", rendered.error.message)
        (prompt,) = rendered[1]
        token_ids = prompt["prompt_token_ids"]
        thinks = parser is not None and parser.reasoning_parser is not None
        return Rendered(
            prompt=prompt,
            token_ids=token_ids,
            sampling=self._sampling_params(ask.sampling, request, len(token_ids)),
            generate={
                "reasoning_ended": request.resolve_reasoning_ended(parser, token_ids),
                "reasoning_parser_kwargs": {"chat_template_kwargs": template_kwargs} if thinks else None,
            },
            request=request,
            parser=parser,
            choice=choice,
            rerendered=not extends(token_ids, ask.messages, vocabulary=self._history.vocabulary),
        )

    def prompt_text(self, rendered: Rendered) -> str:
        """Give a rendered prompt as the text that the model reads."""
        text = rendered.prompt.get("prompt")
        return text if isinstance(text, str) else str(self._renderer.tokenizer.decode(list(rendered.token_ids)))

    def _check(self, ask: AskModel) -> None:
        if faults := faults_of_sampling(ask.sampling):
            raise ModelError("model.request_refused", "; ".join(faults))
        if ask.tools and ask.tool_choice != "none" and not self._model.tool_call_parser:
            raise ModelError(
                "model.request_refused",
                f"state {ask.state!r} offers tools, but it is not known how this model calls them: set "
                f"model.tool_call_parser to the family's, one of {', '.join(tool_call_parsers())}; "
                "or set tool_choice: none",
            )

    def _sampling_params(self, wanted: Mapping[str, JSON], request: Any, prompt_length: int) -> Any:
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        room = self._config.max_model_len - prompt_length
        if room < 1:
            raise ModelError(
                "model.context_overflow",
                f"the prompt is {prompt_length} tokens long and fills the context window of "
                f"{self._config.max_model_len} tokens, which leaves none for the reply",
            )
        params = {**self._defaults, **{name: value for name, value in wanted.items() if name not in _SHARED}}
        longest = params.get("max_tokens")
        return SamplingParams.from_optional(
            **{
                **params,
                "max_tokens": room if longest is None else min(longest, room),
                "structured_outputs": request.extract_structured_outputs(),
                "skip_special_tokens": request.skip_special_tokens,
                "spaces_between_special_tokens": request.spaces_between_special_tokens,
                "output_kind": RequestOutputKind.FINAL_ONLY,
                "skip_clone": True,  # these are this request's own
            }
        )

    def read(
        self,
        rendered: Rendered,
        text: str,
        *,
        token_ids: Sequence[int] = (),
        finish_reason: str = "stop",
        usage: Usage | None = None,
    ) -> Reply:
        """Read a model's raw text as a reply; ``token_ids`` are the text's, which some families' parsers need."""
        tokens = None
        if token_ids and finish_reason == "stop":
            tokens = written(token_ids, after=rendered.token_ids, vocabulary=self._history.vocabulary)
        whole = Reply(content=text, text=text, finish_reason=finish_reason, usage=usage or Usage(), tokens=tokens)
        if rendered.parser is None:
            return whole
        rendered.parser.set_prompt_token_ids(rendered.token_ids)
        try:
            reasoning, content, found = rendered.parser.parse(
                text, rendered.request, enable_auto_tools=True, model_output_token_ids=token_ids
            )
        except Exception as exc:  # a parser of a model family, surprised by what the model wrote
            why = f"the {self._parser_name} parser failed ({type(exc).__name__}: {exc}) on {text[:_EXCERPT]!r}"
            return msgspec.structs.replace(whole, invalid_call=why)
        calls = tuple(read_call(call, text) for call in found or ())
        spoken = text[text.index(reasoning) + len(reasoning) :] if reasoning and reasoning in text else text
        blank = content is None or not content.strip()
        return msgspec.structs.replace(
            whole,
            content=None if calls and blank else content,
            reasoning=reasoning,
            tool_calls=calls,
            finish_reason="tool_calls" if calls and finish_reason == "stop" else finish_reason,
            invalid_call=unread_call(
                spoken,
                markers=self._markers_of(rendered),
                choice=rendered.choice,
                read=len(calls),
                parser=self._parser_name,
            ),
        )

    def _markers_of(self, rendered: Rendered) -> frozenset[str]:
        if rendered.choice == "none" or rendered.parser.tool_parser is None:
            return frozenset()
        if self._markers is None:
            self._markers = call_markers(rendered.parser.tool_parser, rendered.request)
        return self._markers

    @property
    def _parser_name(self) -> str:
        return self._model.tool_call_parser or self._model.reasoning_parser or ""

    def close(self) -> None:
        """Let go of the tokenizer's threads."""
        self._renderer.shutdown()


def chat_request(ask: AskModel) -> dict[str, Any]:
    """Give a request in the form of the OpenAI chat API; rendering changes it, so no part of it is shared."""
    shared = {name: ask.sampling[name] for name in _SHARED if name in ask.sampling}
    body = request_body(msgspec.structs.replace(ask, sampling=shared), model="", template_kwargs={})
    copied: dict[str, Any] = msgspec.to_builtins(body)
    return copied


def _odd(message: Mapping[str, Any]) -> bool:
    """Tell whether vLLM's check of a message, 15 µs each, could find anything: the others are of the right form."""
    return message["content"] is None and message["role"] != "assistant"
