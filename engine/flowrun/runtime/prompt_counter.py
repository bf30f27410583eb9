"""Measures prompts in a child process, which loads tokenizers but no engine, and may fetch nothing."""

import json
import os
import pickle
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Self

from flowrun.backends.vllm.counting_process import LENGTH_BYTES, PromptsToMeasure
from flowrun.core.events import AskModel
from flowrun.core.fixed_prompts import MeasuredPrompt, longest_reply
from flowrun.spec.entrypoints import path_of_installed

if TYPE_CHECKING:
    from flowrun.runtime.project import BoundModel

_SECONDS: Final = 300
"""The time for one model: vLLM is imported, and a large tokenizer read from a slow disk."""

_CHILD: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from flowrun.backends.vllm.counting_process import main; main()"
)
_OFFLINE: Final = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


class PromptCounter:
    """One child process, started at the first need.

    Args:
        note: receives why the prompts of a model are not counted, once for each model.
    """

    def __init__(self, note: Callable[[str], object]) -> None:
        self._note = note
        self._child: subprocess.Popen[bytes] | None = None
        self._noted: set[tuple[str, str]] = set()
        self.measured: list[MeasuredPrompt] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def measure(self, models: "Mapping[str, BoundModel]", requests: Iterable[AskModel]) -> list[MeasuredPrompt]:
        """Return the lengths of requests' prompts, as far as they are known.

        Args:
            models: by the names of their backends.
        """
        by_model: dict[str, list[AskModel]] = {}
        for request in requests:
            if request.model in models and models[request.model].model.backend == "vllm":
                by_model.setdefault(request.model, []).append(request)
        found: list[MeasuredPrompt] = []
        for name, asked in by_model.items():
            bound = models[name]
            answer = self._ask(PromptsToMeasure(bound.model, bound.folder, tuple(asked)))
            if "error" in answer:
                self._say(bound.model.name, answer["error"])
                continue
            for request, length in zip(asked, answer["lengths"], strict=True):
                if length is not None:
                    most = longest_reply(request)
                    found.append(MeasuredPrompt(request.state, bound.model.name, length, answer["window"], most))
        self.measured += found
        return found

    def _say(self, model: str, why: str) -> None:
        if (model, why) not in self._noted:
            self._noted.add((model, why))
            self._note(f"the prompts of {model} are not counted: {why}")

    def _ask(self, wanted: PromptsToMeasure) -> dict[str, Any]:
        if "${" in wanted.model.name:
            return {"error": "its name has a variable that is not set"}
        if wanted.model.engine.get("trust_remote_code"):
            return {"error": "with trust_remote_code its tokenizer may be a program, and a check runs none"}
        order = pickle.dumps(wanted)
        child = self._running()
        assert child.stdin is not None
        try:
            child.stdin.write(len(order).to_bytes(LENGTH_BYTES, "big") + order)
            child.stdin.flush()
            return self._line(child)
        except TimeoutError:
            self._end()
            return {"error": f"its tokenizer was not loaded within {_SECONDS} s"}
        except (EOFError, OSError, ValueError) as exc:
            self._end()
            return {"error": f"the process that loads its tokenizer has ended ({type(exc).__name__})"}

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            self._child = subprocess.Popen(
                [sys.executable, "-c", _CHILD, json.dumps(path_of_installed())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **_OFFLINE},
                start_new_session=True,  # Ctrl-C is for us, and ends it too
            )
        return self._child

    def _line(self, child: subprocess.Popen[bytes]) -> dict[str, Any]:
        """Return the next line of the child.

        Raises:
            TimeoutError: there is none in time.
            EOFError: the child has ended.
        """
        assert child.stdout is not None
        pipe, deadline, line = child.stdout.fileno(), time.monotonic() + _SECONDS, b""
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                raise TimeoutError
            if not (part := os.read(pipe, 65536)):
                raise EOFError
            line += part
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        for stream in (child.stdin, child.stdout):
            assert stream is not None
            try:
                stream.close()
            except OSError:  # what was not yet written to it is lost with it
                pass
        child.kill()
        child.wait()
