"""Renders a conversation as tokens and parses a reply, by the chat template, tokenizer and parsers of a model family.

The steps and their order are those of vLLM's own server, so a spec behaves in process as with a server. Needs vLLM's
configuration of the model, but no engine.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from flowrun.backends.chat_api import request_body
from flowrun.backends.decided import decided
from flowrun.backends.token_ids import Ids, extends, ids_of, pack_tokens
from flowrun.backends.vllm.calls import call_markers, read_call, unread_call
from flowrun.backends.vllm.forms import ChatMessage, learn_forms
from flowrun.backends.vllm.internals import request_sampling, strict_level, template_missing
from flowrun.backends.vllm.letters import Letters, learn_letters
from flowrun.backends.vllm.names import faults_of_sampling, tool_call_parsers
from flowrun.backends.vllm.prompt_cache import Asked, PromptCache
from flowrun.core.events import AskModel
from flowrun.core.messages import Message, Reply, Tokens, Usage
from flowrun.errors import BackendError, ModelError
from flowrun.excerpts import cut
from flowrun.spec.model import JSON, Model

_SHARED: Final = ("structured_outputs", "skip_special_tokens", "spaces_between_special_tokens")
"""Sampling parameters that a family's parser may change, so they are part of the chat request."""
_EXCERPT = 200  # characters
_SAMPLE_TOOL: Final = {"name": "look", "description": "Look.", "parameters": {"type": "object", "properties": {}}}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A request in the form of the engine, and the parser for its reply. vLLM's own objects.

    ``ids`` are the tokens of the prompt, packed. ``rerendered`` means that the prompt does not begin with the tokens
    that the model read and wrote in the last round.
    """

    prompt: Any
    thread: Sequence[Message]
    ids: Ids
    sampling: Any
    generate: Mapping[str, Any]
    request: Any
    parser: Any
    choice: str
    rerendered: bool

    @property
    def token_ids(self) -> list[int]:
        """The tokens of the prompt, as vLLM takes them."""
        ids: list[int] = self.prompt["prompt_token_ids"]
        return ids


class VllmChat:
    """The chat template, the tokenizer and the parsers of one model."""

    def __init__(self, model: Model, config: Any, template: str | None) -> None:
        """Load the tokenizer and the parsers.

        Args:
            config: a VllmConfig.
            template: a chat template in Jinja2; the model's own if None.

        Raises:
            BackendError: the template has a syntax error, or the parsers do not fit the model's tokenizer.
        """
        from vllm.renderers import renderer_from_config

        self._model = model
        self._config = config.model_config
        self.concurrency: int = config.scheduler_config.max_num_seqs * config.parallel_config.data_parallel_size
        self._renderer = renderer_from_config(config)
        self._sample = functools.partial(self._render_sample, template, self._renderer.render_messages)
        self.forms = learn_forms(self._sample)
        self._prompt_cache = PromptCache(
            self._renderer,
            forms=self.forms,
            ends=self._stop_token_ids(),
            max_model_len=self._config.max_model_len,
        )
        self._markers: frozenset[str] | None = None
        self._defaults = dict(self._config.get_diff_sampling_param())
        self._parser_class = self._find_parser_class()
        self._renderers = {forced: self._make_renderer(template, forced=forced) for forced in (False, True)}
        self._check_template(template)

    def _find_parser_class(self) -> Any:
        """Return the class of the model's parsers; None if it has none."""
        from vllm.parser import ParserManager

        try:
            return ParserManager.get_parser(
                tool_parser_name=self._model.tool_call_parser,
                reasoning_parser_name=self._model.reasoning_parser,
                enable_auto_tools=True,
                model_name=self._config.model,
                is_harmony=self._config.hf_config.model_type == "gpt_oss",
                tokenizer=self._renderer.tokenizer,
            )
        except (TypeError, ValueError) as exc:
            raise BackendError(
                f"the parsers do not fit the model {self._model.name!r}: {exc.__cause__ or exc}"
            ) from exc

    def _make_renderer(self, template: str | None, *, forced: bool) -> Any:
        """Build the renderer of requests whose tool choice forces a call, or of all others.

        vLLM's default depends on the family: a grammar of calls, where there is one, does not constrain the arguments
        of a tool that is not ``strict``.
        """
        from vllm.renderers.online_renderer import OnlineRenderer

        return OnlineRenderer(
            self._config,
            self._renderer,
            request_logger=None,
            chat_template=template,
            chat_template_content_format="auto",
            enable_auto_tools=True,
            **strict_level(forced=forced),
            default_chat_template_kwargs=dict(self._model.chat_template_kwargs),
            tool_parser=self._model.tool_call_parser,
            reasoning_parser=self._model.reasoning_parser,
        )

    @property
    def uses_template(self) -> bool:
        """Return whether the tokenizer uses chat templates; Mistral's own has its format built in."""
        from vllm.utils.mistral import is_mistral_tokenizer

        return not is_mistral_tokenizer(self._renderer.tokenizer)

    def _stop_token_ids(self) -> list[int]:
        """Return the ids of the tokens that end a reply."""
        ends = self._config.try_get_generation_config().get("eos_token_id")
        ids = ends if isinstance(ends, list) else [ends]
        return sorted({id for id in (*ids, self._renderer.get_eos_token_id()) if id is not None})

    def _check_template(self, template: str | None) -> None:
        from jinja2 import TemplateSyntaxError
        from vllm.renderers import ChatParams

        if not self.uses_template:
            return
        try:
            self._renderer.render_chat([[{"role": "user", "content": "Hello"}]], ChatParams(chat_template=template))
        except TemplateSyntaxError as exc:
            whose = "model.chat_template" if template else f"the chat template of {self._model.name!r}"
            raise BackendError(f"{whose}, line {exc.lineno}: {exc.message}") from exc
        except template_missing() as exc:
            raise BackendError(
                f"the model {self._model.name!r} comes without a chat template: set model.chat_template to a file"
            ) from exc
        except Exception:  # a template may refuse so short a thread; only a real request shows a fault
            return

    def _render_sample(
        self, template: str | None, render: Any, messages: Sequence[Any], variables: Mapping[str, JSON] = {}
    ) -> str:
        """Render messages, with a tool, as text. ``variables`` are those of the template that differ."""
        from vllm.renderers import ChatParams

        _, prompt = render(
            list(messages),
            ChatParams(
                chat_template=template,
                chat_template_kwargs={
                    "add_generation_prompt": True,
                    "continue_final_message": False,
                    "tools": [{"type": "function", "function": _SAMPLE_TOOL}],
                    "tokenize": not self.uses_template,
                    **self._model.chat_template_kwargs,
                    **variables,
                },
            ),
        )
        if "prompt" in prompt:
            return str(prompt["prompt"])
        return str(self._renderer.tokenizer.decode(list(prompt["prompt_token_ids"])))

    @functools.cached_property
    def letters(self) -> Letters:
        """The tokens of the letters that decide states read."""
        if self._config.logprobs_mode != "raw_logprobs":
            mode = self._config.logprobs_mode
            return Letters(fault=f"a decide state reads raw log-probabilities, and engine.logprobs_mode is {mode}")
        return learn_letters(self._sample, self._prompt_cache.tokenize, uses_template=self.uses_template)

    async def render(self, ask: AskModel, *, keeps_tokens: bool = False) -> Rendered:
        """Render a request as tokens.

        Args:
            keeps_tokens: ask for the log-probabilities of the reply's tokens.

        Raises:
            ModelError: the sampling, the tools or the prompt cannot be used.
            Exception: any error by which vLLM refuses a request.
        """
        if ask.labels:
            ask = msgspec.structs.replace(ask, sampling={})  # nothing is sampled
            if self.letters.fault:
                raise ModelError("model.request_refused", self.letters.fault)
        self._check(ask)
        choice = ask.tool_choice if ask.tools else "none"
        renderer = self._renderers[choice not in ("auto", "none")]
        with self._prompt_cache.rendering(ask) as asked:
            request = _checked_request(asked, self._prompt_cache.messages_of(asked))
            template_kwargs = renderer.effective_chat_template_kwargs(request)
            parser = self._new_parser(request, template_kwargs)
            rendered = await renderer.render_chat(request)
        if not isinstance(rendered, tuple):  # an ErrorResponse
            raise ModelError("model.request_refused", rendered.error.message)
        (prompt,) = rendered[1]
        ids = ids_of(prompt["prompt_token_ids"])
        has_reasoning = parser is not None and parser.reasoning_parser is not None
        return Rendered(
            prompt=prompt,
            thread=ask.last_thread,
            ids=ids,
            sampling=self._sampling_params(ask, request, len(ids), keeps_tokens=keeps_tokens),
            generate={
                "reasoning_ended": request.resolve_reasoning_ended(parser, prompt["prompt_token_ids"]),
                "reasoning_parser_kwargs": {"chat_template_kwargs": template_kwargs} if has_reasoning else None,
            },
            request=request,
            parser=parser,
            choice=choice,
            rerendered=not extends(ids, ask.last_thread, vocabulary=self._prompt_cache.vocabulary),
        )

    @property
    def window(self) -> int:
        """The tokens of the model's context window."""
        return int(self._config.max_model_len)

    async def read_prompt(self, ask: AskModel) -> tuple[str, list[int]]:
        """Return the text and the tokens of a request's prompt, also if it is too long for the model.

        Raises:
            ModelError, Exception: as ``render`` does, if there is no prompt.
        """
        with self._prompt_cache.seeing() as seen:
            try:
                ids = (await self.render(ask)).token_ids
            except Exception:  # a prompt that was rendered is refused for its length, or for the sampling
                if not seen:
                    raise
                found = seen[-1]
                ids = list(found.get("prompt_token_ids") or self._prompt_cache.tokenize(str(found["prompt"])))
        return str(self._renderer.tokenizer.decode(ids)), ids

    def has_read(self, prompt: Sequence[int], tokens: Tokens) -> bool:
        """Return whether the reply with these tokens was written behind this prompt, by the checksum of both."""
        both = [*prompt, *ids_of(tokens.ids)]
        if tokens.vocabulary != self._prompt_cache.vocabulary or len(both) != tokens.end:
            return False
        return extends(both, [Message(role="assistant", tokens=tokens)], vocabulary=tokens.vocabulary)

    def parser_of(self, rendered: Rendered) -> Any:
        """Return a parser that can read the reply to a request while it is written; None if the model has none."""
        renderer = self._renderers[rendered.choice not in ("auto", "none")]
        parser = self._new_parser(rendered.request, renderer.effective_chat_template_kwargs(rendered.request))
        if parser is not None:
            parser.set_prompt_token_ids(rendered.token_ids)
        return parser

    def _new_parser(self, request: Any, template_kwargs: Mapping[str, Any]) -> Any:
        if self._parser_class is None:
            return None
        return self._parser_class(
            self._renderer.tokenizer,
            request.tools,
            chat_template_kwargs=template_kwargs,
            model_config=self._config,
        )

    def check_tokens(self) -> None:
        """Check that log-probabilities are those of the model itself.

        Raises:
            BackendError: they are not.
        """
        if self._config.logprobs_mode != "raw_logprobs":
            raise BackendError(
                f"tokens are kept with raw log-probabilities, and engine.logprobs_mode is {self._config.logprobs_mode}"
            )

    def prompt_text(self, rendered: Rendered) -> str:
        """Return a rendered prompt as the text that the model reads."""
        text = rendered.prompt.get("prompt")
        return text if isinstance(text, str) else str(self._renderer.tokenizer.decode(rendered.token_ids))

    def _check(self, ask: AskModel) -> None:
        if any(message.parts for message in ask.messages):
            raise ModelError(
                "model.request_refused",
                "vLLM in this process cannot be shown images for now: ask a model behind a server (backend: openai)",
            )
        if faults := faults_of_sampling(ask.sampling):
            raise ModelError("model.request_refused", "; ".join(faults))
        if ask.tools and ask.tool_choice != "none" and not self._model.tool_call_parser:
            raise ModelError(
                "model.request_refused",
                f"state {ask.state!r} offers tools, but it is not known how this model calls them: set "
                f"model.tool_call_parser to the family's, one of {', '.join(tool_call_parsers())}; "
                "or set tool_choice: none",
            )

    def _sampling_params(self, ask: AskModel, request: Any, prompt_length: int, *, keeps_tokens: bool) -> Any:
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        available = self._config.max_model_len - prompt_length
        if available < 1:
            raise ModelError(
                "model.context_overflow",
                f"the prompt is {prompt_length} tokens long and fills the context window of "
                f"{self._config.max_model_len} tokens, which leaves none for the reply",
            )
        if ask.labels:
            return SamplingParams(
                max_tokens=1,
                temperature=0.0,
                logprob_token_ids=list(self.letters.ids[: len(ask.labels)]),
                output_kind=RequestOutputKind.FINAL_ONLY,
                skip_clone=True,
            )
        params = {**self._defaults, **{name: value for name, value in ask.sampling.items() if name not in _SHARED}}
        if keeps_tokens and params.get("logprobs") is None:
            params["logprobs"] = 0  # of the token itself
        longest = params.get("max_tokens")
        return SamplingParams.from_optional(
            **{
                **params,
                "max_tokens": available if longest is None else min(longest, available),
                "structured_outputs": request.extract_structured_outputs(),
                **request_sampling(request),
                "output_kind": RequestOutputKind.FINAL_ONLY,
                "skip_clone": True,  # only this request uses them
            }
        )

    def read(
        self,
        rendered: Rendered,
        text: str,
        *,
        token_ids: Sequence[int] = (),
        logprobs: Sequence[float] = (),
        finish_reason: str = "stop",
        usage: Usage | None = None,
    ) -> Reply:
        """Parse a model's raw text as a reply.

        Args:
            token_ids: the tokens of the text, which the parsers of some families need.
            logprobs: their log-probabilities, if the tokens are kept.
        """
        tokens = None
        if token_ids and finish_reason == "stop":
            tokens = pack_tokens(
                token_ids,
                after=rendered.ids,
                vocabulary=self._prompt_cache.vocabulary,
                thread=rendered.thread,
                logprobs=logprobs,
            )
        full = Reply(content=text, text=text, finish_reason=finish_reason, usage=usage or Usage(), tokens=tokens)
        if rendered.parser is None:
            return full
        rendered.parser.set_prompt_token_ids(rendered.token_ids)
        try:
            reasoning, content, found = rendered.parser.parse(
                text, rendered.request, enable_auto_tools=True, model_output_token_ids=token_ids
            )
        except Exception as exc:  # a family's parser may raise anything for a text that it does not expect
            why = f"the {self._parser_name} parser failed ({type(exc).__name__}: {exc}) on {cut(text, _EXCERPT)!r}"
            return msgspec.structs.replace(full, invalid_call=why)
        calls = tuple(read_call(call, text) for call in found or ())
        blank = content is None or not content.strip()
        return msgspec.structs.replace(
            full,
            content=None if calls and blank else content,
            reasoning=reasoning,
            tool_calls=calls,
            finish_reason="tool_calls" if calls and finish_reason == "stop" else finish_reason,
            invalid_call=self._unread_call(rendered, text, reasoning or "", len(calls)),
        )

    def read_decision(self, ask: AskModel, logprobs: Sequence[Mapping[int, Any]] | None, usage: Usage) -> Reply:
        """Return the probabilities of a request's labels.

        Args:
            logprobs: vLLM's ``Logprob`` by token, for each token that was read.

        Raises:
            ModelError: vLLM returned none, or no numbers.
        """
        return decided(self.letters.read(logprobs[0] if logprobs else {}, ask.labels), usage=usage)

    def _unread_call(self, rendered: Rendered, text: str, reasoning: str, read: int) -> str | None:
        """Return a message if the parser read fewer calls than the text has behind its reasoning; else None."""
        answer = text[text.index(reasoning) + len(reasoning) :] if reasoning in text else text
        form = rendered.request.response_format
        return unread_call(
            answer,
            markers=self._markers_of(rendered),
            tools=[] if form else [tool.function.name for tool in rendered.request.tools or ()],
            choice=rendered.choice,
            read=read,
            parser=self._parser_name,
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
        """Stop the tokenizer's threads."""
        self._renderer.shutdown()


def _checked_request(asked: Asked, messages: list[ChatMessage]) -> Any:
    """Return a request in vLLM's form, of whose messages only those are checked that may be wrong.

    Args:
        messages: those of the request in the form of the OpenAI chat API, for vLLM to keep.
    """
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

    shared = {name: asked.ask.sampling[name] for name in _SHARED if name in asked.ask.sampling}
    body = request_body(msgspec.structs.replace(asked.ask, sampling=shared), [], model="", template_kwargs={})
    body["messages"] = list(filter(_needs_check, asked.new_sent))
    # ``_sampling_params`` limits the reply's length. Without ``max_completion_tokens``, vLLM reads ``max_tokens``,
    # which logs a deprecation. The id is not used, but generating one takes as long as all the rest.
    request = ChatCompletionRequest(**msgspec.to_builtins(body), max_completion_tokens=1, request_id="-")
    request.messages = messages
    return request


def _needs_check(message: Mapping[str, Any]) -> bool:
    """Return whether vLLM's check of a message, 15 µs each, could find a fault; only missing content is possible."""
    return message["content"] is None and message["role"] != "assistant"
