"""What a chat template is given for a thread: of each message it is made once, however long the thread becomes.

Only the template itself passes over all messages in each round, since it may change what it wrote of earlier ones.
"""

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from flowrun.backends.vllm.forms import ChatMessage, Forms
from flowrun.backends.vllm.special_texts import SpecialTexts


class TemplateInput(NamedTuple):
    """The messages of a thread, on their way to the template.

    Attributes:
        adapted: in the form that the template takes; see ``forms``.
        parsed: what vLLM makes of each of these for the template; none if its renderer does that by itself.
    """

    adapted: Sequence[ChatMessage] = ()
    parsed: Sequence[Sequence[Any]] = ()


class TemplateInputs:
    """Makes the input of a template, and applies it by vLLM's renderer.

    Attributes:
        changes_messages: vLLM changes the messages of a request before they come here.
    """

    changes_messages = True

    def __init__(self, renderer: Any, forms: Forms, special: SpecialTexts) -> None:
        """Take a renderer of vLLM as it is, before its methods are replaced."""
        self._render_messages = renderer.render_messages
        self._forms = forms
        self._special = special

    def extend(self, known: TemplateInput, messages: Sequence[ChatMessage], params: Any) -> TemplateInput:
        """Return the input for the known messages and those that follow them.

        Args:
            params: vLLM's ``ChatParams`` of the request.
        """
        return TemplateInput(self._forms.adapt(messages, after=known.adapted))

    def render(self, given: TemplateInput, params: Any) -> tuple[Any, Mapping[str, Any]]:
        """Return what the template was given in the end, and the prompt: a text, with special texts protected, or
        tokens, if the renderer tokenizes by itself.
        """
        protected = self._special.protect(given.adapted)
        if any(one is not other for one, other in zip(protected, given.adapted, strict=True)):
            conversation, prompt = self._render_messages(msgspec.to_builtins(protected), params)
            if "prompt" in prompt:
                return conversation, prompt
        conversation, prompt = self._render_messages(msgspec.to_builtins(given.adapted), params)
        return conversation, prompt


class StepwiseInputs(TemplateInputs):
    """Takes the steps of vLLM's renderer for tokenizers of Hugging Face one by one, each for new messages only.

    Its own ``render_messages`` takes each step for all messages, with the same functions.
    """

    changes_messages = False

    def __init__(self, renderer: Any, forms: Forms, special: SpecialTexts) -> None:
        """Take a renderer that has these steps."""
        super().__init__(renderer, forms, special)
        self._config = renderer.model_config
        self._tokenizer = renderer.tokenizer

    def extend(self, known: TemplateInput, messages: Sequence[ChatMessage], params: Any) -> TemplateInput:
        """Return the input for the known messages and those that follow them, parsed."""
        adapted = self._forms.adapt(messages, after=known.adapted)
        same = len(known.adapted)
        if same and adapted[same - 1] is not known.adapted[-1]:  # the last one was joined with a new one
            same -= 1
        parse = functools.partial(self._parse, content_format=self._content_format(params))
        return TemplateInput(adapted, [*known.parsed[:same], *map(parse, self._special.protect(adapted[same:]))])

    def render(self, given: TemplateInput, params: Any) -> tuple[Any, Mapping[str, Any]]:
        """Return what the template was given in the end, and the prompt, a text."""
        from vllm.renderers.hf import safe_apply_chat_template

        conversation = list(itertools.chain.from_iterable(given.parsed))
        arguments = params.get_apply_chat_template_kwargs()
        return conversation, {
            "prompt": safe_apply_chat_template(self._config, self._tokenizer, conversation, **arguments)
        }

    def _parse(self, message: ChatMessage, *, content_format: str) -> Sequence[Any]:
        from vllm.renderers.chat_utils import parse_chat_messages

        copied = msgspec.to_builtins(message)  # it is changed
        conversation: Sequence[Any]
        conversation, _, _ = parse_chat_messages([copied], self._config, content_format=content_format)
        return conversation

    def _content_format(self, params: Any) -> str:
        from vllm.renderers.hf import resolve_chat_template_content_format

        return str(
            resolve_chat_template_content_format(
                chat_template=params.chat_template,
                tools=params.chat_template_kwargs.get("tools"),
                given_format=params.chat_template_content_format,
                tokenizer=self._tokenizer,
                model_config=self._config,
            )
        )


def make_inputs(renderer: Any, forms: Forms, special: SpecialTexts) -> TemplateInputs:
    """Return what makes the inputs for a renderer of vLLM."""
    from vllm.renderers.hf import HfRenderer

    stepwise = type(renderer) is HfRenderer and not renderer.model_config.enable_prompt_embeds
    return (StepwiseInputs if stepwise else TemplateInputs)(renderer, forms, special)
