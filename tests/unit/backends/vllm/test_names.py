"""Names that vLLM does not have are reported, with suggestions."""

import pytest

from flowrun.backends.vllm.names import faults_of_model
from flowrun.spec.model import Model

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.usefixtures("needs_vllm"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # raised by the imports of torch and vLLM
]


@pytest.mark.parametrize(
    ("model", "faults"),
    [
        pytest.param(
            Model(
                name="x",
                engine={"dtype": "float32", "max_num_seqs": 8, "tokenizer_mode": "mistral"},
                sampling={"temperature": 0.0, "structured_outputs": {"regex": "a"}, "extra_args": {}},
                tool_call_parser="mistral",
                reasoning_parser="qwen3",
            ),
            [],
            id="all known",
        ),
        pytest.param(
            Model(name="x", engine={"model": "y", "reasoning_parser": "qwen3", "zzz": 1}),
            [
                "model.engine.model has a place of its own: model.name",
                "model.engine.reasoning_parser has a place of its own: model.reasoning_parser",
                "vLLM has no engine argument 'zzz'",
            ],
            id="engine",
        ),
        pytest.param(
            Model(name="x", sampling={"topp": 1, "n": 1}),
            [
                "vLLM has no sampling parameter 'topp'; did you mean 'top_p'?",
                "sampling.n is set by flowrun itself: leave it out",
            ],
            id="sampling",
        ),
        pytest.param(
            Model(name="x", tool_call_parser="mistrall", reasoning_parser="qwen"),
            [
                "vLLM has no tool_call_parser 'mistrall'; did you mean 'mistral'?",
                "vLLM has no reasoning_parser 'qwen'; did you mean 'qwen3'?",
            ],
            id="parsers",
        ),
    ],
)
def test_finds_faults(model: Model, faults: list[str]) -> None:
    assert faults_of_model(model) == faults
