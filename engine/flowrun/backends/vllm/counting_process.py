"""The process in which ``validate`` measures prompts: vLLM's tokenizers and chat templates, no engine, no network.

A request is a pickled ``PromptsToMeasure`` behind its length in 8 bytes, as only flowrun writes it; the answer is a
line of JSON. What vLLM prints goes to stderr.
"""

import asyncio
import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from flowrun.backends.vllm.reader import VllmReader
from flowrun.core.events import AskModel
from flowrun.errors import BackendError, ModelError
from flowrun.spec.model import Model

LENGTH_BYTES = 8


class PromptsToMeasure(NamedTuple):
    """Requests to one model, whose paths are relative to ``folder``."""

    model: Model
    folder: Path
    requests: tuple[AskModel, ...]


def main() -> None:
    """Answer requests until stdin ends."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    with asyncio.Runner() as runner:
        while (length := int.from_bytes(requests.read(LENGTH_BYTES), "big")) > 0:
            answers.write(json.dumps(runner.run(_answer(_read(requests, length)))) + "\n")
            answers.flush()
    os._exit(0)  # vLLM's threads would delay the end


def _read(requests: BinaryIO, length: int) -> PromptsToMeasure:
    found: PromptsToMeasure = pickle.loads(requests.read(length))  # noqa: S301 - flowrun wrote it
    return found


async def _answer(wanted: PromptsToMeasure) -> dict[str, Any]:
    """Return the lengths of prompts, None for one that cannot be rendered, and the window; or why there are none."""
    reader = VllmReader(wanted.model, base_dir=wanted.folder, fetches=False)
    try:
        await reader.start()
        lengths = [await _length(reader, request) for request in wanted.requests]
        return {"lengths": lengths, "window": reader.window}
    except BackendError as exc:
        return {"error": str(exc)}
    except Exception as exc:
        return {"error": f"{type(exc).__name__}: {exc}"}
    finally:
        await reader.stop()


async def _length(reader: VllmReader, request: AskModel) -> int | None:
    try:
        return len((await reader.read_prompt(request))[1])
    except ModelError:
        return None
