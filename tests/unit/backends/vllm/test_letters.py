"""The letters of decisions: their tokens, templates in front of whose answers something stands, and the real model."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from flowrun.backends.vllm.backend import VllmBackend
from flowrun.backends.vllm.letters import Letters, Render, learn_letters
from flowrun.backends.vllm.model_files import find_model
from flowrun.core.decisions import LETTERS, write_question
from flowrun.core.events import AskModel
from flowrun.core.messages import Message
from flowrun.errors import BackendError, ModelError
from flowrun.functions.python import PythonFunctions
from flowrun.runtime.runner import Runner
from flowrun.spec.model import Model
from tests.conftest import SMALL_MODEL, SPECS
from tests.flows import graph_of
from tests.unit.backends.contract import Live, ask, started

ON = "<|im_start|>"


def template(head: str, *, answer: str = "", silent: str | None = None) -> Render:
    """Return a template like ChatML, whose prompts end in ``head``, or in ``silent`` if the model shall not reason.

    ``answer`` stands before each answer in a conversation.
    """

    def render(messages: Sequence[dict[str, Any]], variables: Mapping[str, Any]) -> str:
        turns = [f"{ON}{one['role']}\n{one['content']}" for one in messages if one["role"] != "assistant"]
        turns += [f"{head}{answer}{one['content']}" for one in messages if one["role"] == "assistant"]
        if variables.get("add_generation_prompt", True):
            turns.append(silent if silent is not None and variables.get("enable_thinking") is False else head)
        return "".join(turns)

    return render


def by_characters(text: str) -> list[int]:
    """Tokenize a text: a token a character, but a space belongs to the letter after it."""
    tokens: list[int] = []
    for at, character in enumerate(text):
        if character != " " or at + 1 == len(text):
            tokens.append(ord(character) + (1000 if text[at - 1 : at] == " " else 0))
    return tokens


PLAIN = tuple(map(ord, LETTERS))
SPACED = tuple(ord(letter) + 1000 for letter in LETTERS)


@pytest.mark.parametrize(
    ("render", "expected"),
    [
        pytest.param(template(f"{ON}assistant\n"), PLAIN, id="at the beginning of a line"),
        pytest.param(template("ASSISTANT:", answer=" "), SPACED, id="behind a space that the template writes"),
        pytest.param(template("<think>\n\n</think>\n\n"), PLAIN, id="behind a closed block of reasoning"),
        pytest.param(template("<think></think>", answer="\n"), PLAIN, id="behind a line break of its own token"),
        pytest.param(template("x", silent="x"), PLAIN, id="a template without reasoning"),
    ],
)
def test_a_letter_is_the_token_that_begins_an_answer(render: Render, expected: tuple[int, ...]) -> None:
    assert learn_letters(render, by_characters, uses_template=True) == Letters(ids=expected)


@pytest.mark.parametrize(
    ("render", "why"),
    [
        pytest.param(
            template(f"{ON}assistant\n<think>\n"), "this template opens a block of reasoning, <think>", id="tag"
        ),
        pytest.param(template("[THINK]"), "this template opens a block of reasoning, [THINK]", id="brackets"),
        pytest.param(template("<seed:think>"), "this template opens a block of reasoning, <seed:think>", id="prefix"),
        pytest.param(
            template("a", silent="a<think></think>"),
            "this model reasons first unless its template is told not to",
            id="by default",
        ),
        pytest.param(
            template("<|start|>assistant", answer="<|channel|>final<|message|>"),
            "the template writes '<|channel|>final<|message|>' first",
            id="channels",
        ),
    ],
)
def test_where_no_answer_begins_nothing_is_decided(render: Render, why: str) -> None:
    assert learn_letters(render, by_characters, uses_template=True) == Letters(
        fault=f"a decide state needs a model that answers at once, and {why}: "
        "set model.chat_template_kwargs: {enable_thinking: false}, if its template knows that"
    )


def test_a_tokenizer_with_a_format_of_its_own_gives_each_letter_alone() -> None:
    assert learn_letters(template("[/INST]"), by_characters, uses_template=False) == Letters(ids=PLAIN)


def test_each_letter_needs_a_token_of_its_own() -> None:
    learnt = learn_letters(template("x"), lambda text: [0] * len(text), uses_template=True)
    assert learnt == Letters(fault="a decide state needs a token for each letter, and the model's vocabulary has none")


def test_a_letter_without_a_log_probability_is_reported() -> None:
    with pytest.raises(ModelError, match="no log-probabilities of the letters") as failed:
        Letters(ids=PLAIN).read({}, ["high", "low"])
    assert failed.value.name == "model.request_refused"


# --- the real model -----------------------------------------------------------------------------------------------

LABELS = ("high", "medium", "low")
STORY = " ".join(f"Day {day}: the warehouse on the hill is still without any power." for day in range(20))


def decide(question: str = "How urgent is this?", labels: Sequence[str] = LABELS, **settings: Any) -> AskModel:
    """Return the request of a decide state over a thread of about 300 tokens."""
    thread = [Message(role="user", content=STORY)]
    last = Message(role="user", content=write_question(question, dict.fromkeys(labels, "")))
    return ask([*thread, last], labels=tuple(labels), **settings)


@pytest.mark.vllm
class TestRealModel:
    def test_the_probabilities_are_the_softmax_over_the_letters_of_the_same_prompt(self, small_model: Live) -> None:
        torch = pytest.importorskip("torch")
        transformers = pytest.importorskip("transformers")
        backend = small_model.backend
        assert isinstance(backend, VllmBackend)
        assert backend._chat is not None
        request = decide()
        prompt = small_model.run(backend._chat.render(request)).token_ids
        folder = small_model.run(find_model(SMALL_MODEL.name, base_dir=SPECS, revision=None))
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        with torch.inference_mode():
            logits = model(torch.tensor([list(prompt)])).logits[0, -1].double()
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        letters = [tokenizer(letter, add_special_tokens=False)["input_ids"][-1] for letter in "ABC"]
        expected = torch.softmax(logits[letters], dim=0).tolist()
        mass = torch.softmax(logits, dim=0)[letters].sum().item()
        reply = small_model.reply(request)
        assert reply.probabilities == pytest.approx(dict(zip(LABELS, expected, strict=True)), abs=1e-3)
        assert reply.mass == pytest.approx(mass, abs=1e-3)

    def test_sampling_changes_nothing(self, small_model: Live) -> None:
        plain = small_model.reply(decide())
        biased = small_model.reply(
            decide(
                sampling={"temperature": 2.0, "top_k": 1, "presence_penalty": 2.0, "bad_words": ["A"], "logprobs": 3}
            )
        )
        assert plain.probabilities is not None
        assert biased.probabilities == pytest.approx(plain.probabilities, abs=1e-4)

    def test_a_second_decision_over_a_thread_reads_it_from_the_cache(self, small_model: Live) -> None:
        small_model.reply(decide("Is this true?", ("yes", "no")))
        reply = small_model.reply(decide("Who should read it?", ("everybody", "nobody")))
        assert (reply.usage.completion_tokens, reply.usage.rerendered) == (1, 0)
        assert reply.usage.prompt_tokens > reply.usage.cached_tokens >= 256

    def test_decisions_of_any_number_of_choices_and_chats_share_a_step(self, small_model: Live) -> None:
        counts = (2, 20, 3)

        async def all_at_once() -> list[Any]:
            labels = [[f"label {number}" for number in range(count)] for count in counts]
            asked = [decide(f"Which of {len(one)}?", one) for one in labels]
            replies = [small_model.backend.reply(request) for request in (*asked, ask())]
            return await asyncio.gather(*replies)

        *decided, said = small_model.run(all_at_once())
        assert [len(reply.probabilities) for reply in decided] == list(counts)
        assert all(math.isclose(sum(reply.probabilities.values()), 1) for reply in decided)
        assert said.content
        assert said.probabilities is None


FLOW = """\
inputs: {story: {type: string}}
messages: [{role: user, content: "{{ inputs.story }} Is there power?"}]
states:
  first: {type: chat, response_format: {type: choice, choices: [there is, there is none]}, next: urgent}
  urgent: {type: decide, prompt: "Is it urgent?", choices: [urgent, harmless], next: team}
  team: {type: decide, prompt: "Whose is it?", choices: {ours: "we repair it", theirs: ""}, next: second}
  second:
    type: chat
    response_format: {type: choice, choices: [certainly, perhaps]}
    messages: [{role: user, content: Are you sure?}]
    next: done
  done: {type: end, output: ["{{ outputs.first.usage }}", "{{ outputs.second.usage }}", "{{ outputs.urgent }}"]}
"""


@pytest.mark.vllm
def test_decisions_between_chats_leave_the_threads_tokens_alone(small_model: Live) -> None:
    runner = Runner(backends={"default": small_model.backend}, functions=PythonFunctions({}))
    run = small_model.run(runner.run(graph_of(FLOW), {"story": STORY}, run_id="decides")).run
    assert run.outcome is not None
    assert run.outcome.status == "succeeded", run.outcome
    first, second, urgent = run.outcome.output
    assert [message.role for message in run.threads["main"]] == ["user", "assistant", "user", "assistant"]
    assert run.usage.rerendered == 0
    assert second["cached_tokens"] >= first["prompt_tokens"] // 128 * 128
    assert urgent["choice"] in ("urgent", "harmless")


def thinking(**settings: Any) -> Model:
    """Return the small model with a template that opens a block of reasoning unless it is told not to."""
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "<|im_start|>assistant\n<think>\n{% if not enable_thinking | default(true) %}\n</think>\n\n{% endif %}"
    )
    return Model(
        name=SMALL_MODEL.name,
        engine={"dtype": "float32", "max_model_len": 512, "max_num_seqs": 2},
        chat_template=template,
        **settings,
    )


@pytest.mark.vllm
@pytest.mark.parametrize(
    ("settings", "why"),
    [
        pytest.param({}, "opens a block of reasoning, <think>", id="it reasons"),
        pytest.param({"chat_template_kwargs": {"enable_thinking": False}}, "", id="it is told not to"),
    ],
)
def test_a_template_that_opens_a_block_of_reasoning_is_refused(
    needs_vllm: None, settings: dict[str, Any], why: str
) -> None:
    with started(VllmBackend(thinking(**settings), base_dir=SPECS)) as live:
        assert isinstance(live.backend, VllmBackend)
        if not why:
            live.backend.check_decisions()
            assert live.reply(decide()).probabilities is not None
            return
        with pytest.raises(BackendError, match=why):
            live.backend.check_decisions()
        with pytest.raises(ModelError, match=why) as refused:
            live.reply(decide())
        assert refused.value.name == "model.request_refused"
