"""The process in which ``validate`` imports Python functions: requests on stdin, answers on stdout.

A request is a line of JSON: an entrypoint, the spec's file, ``--project-dir`` and the seconds that its import may take.
An answer is a line of JSON: a signature, or the error of the import. What modules print goes to stderr.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, TextIO

import msgspec

from flowrun.spec.entrypoints import EntrypointError, OtherModuleLoaded, load_entrypoint
from flowrun.spec.model import JSON
from flowrun.spec.signatures import signature_of

GRACE = 5
"""Seconds after its time limit at which an import ends the process, should nobody be there any more to end it."""


def main() -> None:
    """Answer requests until stdin ends."""
    requests, answers = _private_streams()
    _write(answers, {"ready": True})
    for line in requests:
        request = json.loads(line)
        signal.alarm(request["seconds"] + GRACE)
        _write(answers, _answer(request))
        signal.alarm(0)


def _private_streams() -> tuple[TextIO, TextIO]:
    """Return stdin and stdout under other descriptors; modules see an empty stdin, and stderr as stdout."""
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return requests, answers


def _write(answers: TextIO, answer: JSON) -> None:
    answers.write(json.dumps(answer) + "\n")  # with escapes, so that half a surrogate pair in a default passes
    answers.flush()


def _answer(request: dict[str, Any]) -> JSON:
    folder = request["project_dir"]
    try:
        function = load_entrypoint(
            request["entrypoint"], spec_file=Path(request["file"]), project_dir=None if folder is None else Path(folder)
        )
        return {"signature": msgspec.to_builtins(signature_of(function))}
    except EntrypointError as error:
        elsewhere = isinstance(error, OtherModuleLoaded)
        return {"message": error.message, "remedy": error.remedy, "elsewhere": elsewhere}
    except BaseException as error:  # KeyboardInterrupt too, and whatever reading the signature runs
        message = f"{request['entrypoint']} cannot be read: {type(error).__name__}: {error}"
        return {"message": message, "remedy": "importing a module of tools must do nothing else", "elsewhere": False}
