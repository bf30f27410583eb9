"""What a model read in a step: its text and tokens, or the JSON body that its server was sent. Asks no model."""

import msgspec

from flowrun.core.events import AskModel
from flowrun.core.messages import Reply, as_openai
from flowrun.errors import FlowrunError
from flowrun.runtime.project import BoundModel, CompiledFlow
from flowrun.spec.model import JSON


class PromptRead(msgspec.Struct, frozen=True, kw_only=True):
    """The prompt of one request.

    Attributes:
        model: its name, as the spec has it; ``backend`` is what runs it.
        messages: those of the request, in the form of the OpenAI chat API, as the flow has them.
        text, token_ids: what a model in this process read.
        body: what a server was sent.
        same: whether the tokens are those that the model read, by the checksum that is kept with its reply; None if
            none is kept, so that the prompt is rendered anew.
    """

    run: str
    step: int
    state: str
    model: str
    backend: str
    messages: list[JSON]
    tools: list[JSON]
    text: str | None = None
    token_ids: list[int] | None = None
    body: JSON = None
    same: bool | None = None


async def read_prompt(
    flow: CompiledFlow, request: AskModel, reply: Reply | None, *, keeps_tokens: bool = False
) -> PromptRead:
    """Return what the model of a flow read for a request.

    Args:
        reply: the reply to it, whose tokens tell whether the prompt is the same.
        keeps_tokens: the run keeps tokens, for which a server is asked.

    Raises:
        FlowrunError: its backend reads no prompt, vLLM or the model is missing, or the request cannot be rendered.
    """
    bound = flow.models[request.model]
    prompt = PromptRead(
        run=request.run,
        step=request.step,
        state=request.state,
        model=bound.model.name,
        backend=bound.model.backend,
        messages=list(map(as_openai, request.messages)),
        tools=[tool.as_openai() for tool in request.tools],
    )
    match bound.model.backend:
        case "vllm":
            return await _rendered(prompt, bound, request, reply)
        case "openai":
            from flowrun.backends.openai import body_of

            body = body_of(bound.model, request, keeps_tokens=keeps_tokens)
            return msgspec.structs.replace(prompt, body=msgspec.to_builtins(body))
        case "scripted":
            raise FlowrunError(
                f"step {request.step}, state {request.state!r}, was answered by a script (backend: scripted), which "
                "reads no prompt; without --prompt its messages are shown"
            )
        case name:
            raise FlowrunError(f"the backend {name!r} of another package does not say what its model reads")


async def _rendered(prompt: PromptRead, bound: BoundModel, request: AskModel, reply: Reply | None) -> PromptRead:
    from flowrun.backends.vllm.reader import VllmReader

    reader = VllmReader(bound.model, base_dir=bound.folder)
    await reader.start()
    try:
        text, ids = await reader.read_prompt(request)
        same = None if reply is None or reply.tokens is None else reader.has_read(ids, reply.tokens)
    finally:
        await reader.stop()
    return msgspec.structs.replace(prompt, text=text, token_ids=ids, same=same)
