"""vLLM's offline class, as its users write it. Run as ``vllm_offline.py``; what to do is JSON on stdin.

``modes`` are done one after another on one engine: ``in_turn`` (the seed's loop: one conversation after another),
``lock_step`` (all together, each round waiting for the slowest tool of the round before) and ``raw`` (the prompts of
every round at once, no tools). Prints a line of JSON for each: the seconds from the first request to the last result,
and the tokens read and written.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import conversations as work
from vllm import LLM, SamplingParams

SAMPLING = SamplingParams(**work.SAMPLING, logit_bias=work.BIAS)


class Offline:
    """The engine, with the measurements."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.llm = LLM(model=given["model"], enforce_eager=True, **work.ENGINE)
        self.template = given["template"]
        self.prompts: list[list[int]] = []
        self.read = self.written = 0

    def chat(self, threads: list[list[dict[str, Any]]]) -> None:
        """Hold a round of some conversations: append the model's reply to each."""
        copied = deepcopy(threads)  # rendering changes what it is given
        outputs = self.llm.chat(copied, SAMPLING, chat_template=self.template, use_tqdm=False)
        self._count(outputs)
        for thread, output in zip(threads, outputs, strict=True):
            thread.append({"role": "assistant", "content": output.outputs[0].text})
            self.prompts.append(list(output.prompt_token_ids))

    def raw(self, numbers: list[int]) -> None:
        """Return the prompts of every round of the mode before this one to the engine at once."""
        prompts = [{"prompt_token_ids": prompt} for prompt in self.prompts]
        self._count(self.llm.generate(prompts, SAMPLING, use_tqdm=False))

    def in_turn(self, numbers: list[int]) -> None:
        """Hold one conversation after another."""
        for number in numbers:
            self.lock_step([number])

    def lock_step(self, numbers: list[int]) -> None:
        """Hold conversations together; a round begins when the last tool of the round before is done."""
        threads = [work.first_messages(number) for number in numbers]
        self.chat(threads)
        for turn in range(1, work.ROUNDS):
            for thread, result in zip(threads, asyncio.run(_look_up(numbers, turn)), strict=True):
                thread.append(work.next_message(result))
            self.chat(threads)

    def _count(self, outputs: list[Any]) -> None:
        self.read += sum(len(output.prompt_token_ids) for output in outputs)
        self.written += sum(len(output.outputs[0].token_ids) for output in outputs)


async def _look_up(numbers: list[int], turn: int) -> list[str]:
    return await asyncio.gather(*(work.look_up(number, turn) for number in numbers))


def main(given: dict[str, Any]) -> None:
    """Measure each mode."""
    offline = Offline(given)
    offline.chat([work.first_messages(0)])  # what is made at the first request is start-up
    for mode, numbers in given["modes"]:
        hold: Callable[[list[int]], None] = getattr(offline, mode)
        if mode != "raw":
            offline.prompts = []
        if not offline.llm.reset_prefix_cache():
            raise RuntimeError("the prefix cache was not reset: no mode may read what another one left there")
        offline.read = offline.written = 0
        begun = time.perf_counter()
        hold(numbers)
        seconds = time.perf_counter() - begun
        print(
            json.dumps({"mode": mode, "seconds": seconds, "read": offline.read, "written": offline.written}), flush=True
        )


if __name__ == "__main__":
    main(json.load(sys.stdin))
