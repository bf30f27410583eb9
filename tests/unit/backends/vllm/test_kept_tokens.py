"""The tokens of records, proved by a forward pass of the same weights: they are what the model read and wrote."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

import flowrun
from flowrun.backends.vllm.model_files import find_model
from flowrun.runtime.engines import BackendSettings
from tests.conftest import SMALL_MODEL, SPECS
from tests.records import require_record

pytestmark = [pytest.mark.vllm, pytest.mark.usefixtures("needs_vllm")]

SPEC = """\
flowrun: v1
name: talk
version: 1.0.0
inputs: {topic: {type: string}}
model:
  name: "NAME"
  chat_template: "TEMPLATE"
  engine: {dtype: float32, enforce_eager: true, max_model_len: 4096}
sampling: {temperature: 1.3, max_tokens: 400, logit_bias: {"2": 6.5}}
messages:
  - {role: system, content: You answer in one short sentence.}
  - {role: user, content: "Tell me something odd about {{ inputs.topic }}."}
states:
  first: {type: chat, next: second}
  second: {type: chat, messages: [{role: user, content: "And something else, with a made-up word?"}], next: apart}
  apart: {type: chat, history: none, messages: [{role: user, content: Say hello.}], next: done}
  done: {type: end, output: "{{ reply.content }}"}
"""
TOPICS = ("tea", "moss", "clocks", "tides", "ferries", "yeast")


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return the records of conversations at a high temperature.

    The bias towards the end keeps the small model from going on for ever, and changes no log-probability of records.
    """
    file = tmp_path_factory.mktemp("talk") / "talk.yaml"
    template = SPECS / "templates" / "chatml_tools.jinja"
    file.write_text(SPEC.replace("NAME", SMALL_MODEL.name).replace("TEMPLATE", str(template)))
    flow = flowrun.load(file)

    async def go() -> list[dict[str, Any]]:
        async with flowrun.Session(settings=BackendSettings(keeps_tokens=True)) as session:
            runs = await session.runs_of(flow)
            started = (runs.start({"topic": topic}, topic, seed=seed) for seed, topic in enumerate(TOPICS))
            return [result.to_dict() for result in await asyncio.gather(*started)]

    found = [record for record in asyncio.run(go()) if record["status"] == "succeeded"]
    assert len(found) >= len(TOPICS) - 2  # one may be cut off nevertheless
    return found


@pytest.fixture(scope="module")
def weights() -> tuple[Any, Any, Any]:
    """Return torch, the model as transformers computes it, and its tokenizer."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = asyncio.run(find_model(SMALL_MODEL.name, base_dir=SPECS, revision=None))
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return torch, model, transformers.AutoTokenizer.from_pretrained(folder)


def logprobs_of(weights: tuple[Any, Any, Any], ids: list[int]) -> list[float]:
    """Return the log-probability of each token after the first, given those before it."""
    torch, model, _ = weights
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0, :-1].double()
    chosen = torch.tensor(ids[1:]).unsqueeze(1)
    return [float(one) for one in torch.log_softmax(logits, dim=-1).gather(1, chosen).squeeze(1)]


def written(row: dict[str, Any], values: list[Any]) -> list[Any]:
    """Return the values that belong to the tokens which the model wrote."""
    return [value for value, wrote in zip(values, row["mask"], strict=True) if wrote]


def test_a_row_is_a_conversation_that_was_never_rendered_anew(records: list[dict[str, Any]]) -> None:
    for record in records:
        require_record(record)
        assert [row["states"] for row in record["tokens"]] == [["first", "second"], ["apart"]]
        assert sum(sum(row["mask"]) for row in record["tokens"]) == record["usage"]["completion_tokens"]
        assert {tuple(row["finish_reasons"]) for row in record["tokens"]} == {("stop", "stop"), ("stop",)}


def test_a_forward_pass_on_the_ids_gives_their_log_probabilities(
    records: list[dict[str, Any]], weights: tuple[Any, Any, Any]
) -> None:
    for row in (row for record in records for row in record["tokens"]):
        recorded = written(row, row["logprobs"])
        assert None not in recorded
        computed = written(row, [None, *logprobs_of(weights, row["ids"])])
        assert recorded == pytest.approx(computed, abs=1e-3)


def test_on_the_tokens_of_the_text_it_does_not(records: list[dict[str, Any]], weights: tuple[Any, Any, Any]) -> None:
    _, _, tokenizer = weights
    differing = 0
    for row in (row for record in records for row in record["tokens"]):
        again = tokenizer(tokenizer.decode(row["ids"]), add_special_tokens=False)["input_ids"]
        if again != row["ids"]:
            differing += 1
            recorded = [one for one in row["logprobs"] if one is not None]
            assert logprobs_of(weights, again)[-len(recorded) :] != pytest.approx(recorded, abs=1e-3)
    assert differing


def test_a_model_that_gives_no_tokens_is_refused(tmp_path: Path) -> None:
    (tmp_path / "replies.yaml").write_text("replies: [{content: hello}]\n")
    file = tmp_path / "talk.yaml"
    head, _, rest = SPEC.partition("model:\n")
    file.write_text(f"{head}model: {{backend: scripted, name: replies.yaml}}\n{rest[rest.index('sampling') :]}")

    async def go() -> None:
        async with flowrun.Session(settings=BackendSettings(keeps_tokens=True)) as session:
            await session.run(flowrun.load(file), {"topic": "tea"})

    with pytest.raises(flowrun.FlowrunError, match=r"the model 'default' \(scripted\) gives no tokens: --tokens needs"):
        asyncio.run(go())
