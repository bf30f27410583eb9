"""The content of a test file as frozen data. No I/O, no logic."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from flowrun.backends.scripted import ScriptedReply
from flowrun.core.messages import Reply, Role
from flowrun.errors import Path as DocumentPath
from flowrun.spec import Document
from flowrun.spec.model import JSON, Seconds
from flowrun.templates import Scope

SUFFIX = ".test.yaml"
"""The suffix of the name of a test file."""


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base class of the parts of a test file."""


class RawReply(ScriptedReply, frozen=True, kw_only=True):
    """A reply as the raw text of the model, which a reader must parse."""

    text: str

    def reply(self) -> Reply:
        """Return a reply that holds the unparsed text."""
        return Reply(text=self.text, finish_reason=self.finish_reason or "stop", usage=self.usage.usage())


class CaseReply(msgspec.Struct, frozen=True, kw_only=True):
    """One reply of a test. ``holds`` is its compiled ``when``; None if the reply fits every request."""

    reply: ScriptedReply
    holds: Callable[[Scope], bool] | None = None


class Stub(_Part, frozen=True, kw_only=True):
    """Replaces a call of a function: after ``delay`` seconds it returns ``returns``, or fails with ``raises``."""

    returns: JSON = None
    raises: str | None = None
    delay: Seconds = Seconds(0)


class GivenAnswer(_Part, frozen=True, kw_only=True):
    """An answer that the test gives after ``delay`` seconds to a state, or to its question about a tool's call."""

    state: str
    call: str | None = None
    value: JSON
    delay: Seconds = Seconds(0)


class ExpectedCall(_Part, frozen=True, kw_only=True):
    """An expected tool call."""

    name: str
    arguments: Mapping[str, JSON] = {}


class ExpectedFunctionCall(_Part, frozen=True, kw_only=True):
    """An expected call of a ``call`` state. What is left out is not compared."""

    state: str
    entrypoint: str | msgspec.UnsetType = msgspec.UNSET
    arguments: Mapping[str, JSON] | msgspec.UnsetType = msgspec.UNSET


class ExpectedRequest(_Part, frozen=True, kw_only=True):
    """An expected question to a person. What is left out is not compared."""

    state: str
    prompt: str | msgspec.UnsetType = msgspec.UNSET
    call: ExpectedCall | msgspec.UnsetType = msgspec.UNSET


class ExpectedMove(_Part, frozen=True, kw_only=True):
    """An expected move. What is left out is not compared."""

    state: str | msgspec.UnsetType = msgspec.UNSET
    how: Literal["route", "catch", "retry", "end"] | msgspec.UnsetType = msgspec.UNSET
    to: str | msgspec.UnsetType = msgspec.UNSET
    index: int | msgspec.UnsetType = msgspec.UNSET
    error: str | msgspec.UnsetType = msgspec.UNSET


class ExpectedMessage(_Part, frozen=True, kw_only=True):
    """An expected message. What is left out is not compared."""

    role: Role | msgspec.UnsetType = msgspec.UNSET
    content: str | msgspec.UnsetType | None = msgspec.UNSET
    tool_calls: tuple[ExpectedCall, ...] | msgspec.UnsetType = msgspec.UNSET
    tool_call_id: str | msgspec.UnsetType = msgspec.UNSET
    name: str | msgspec.UnsetType = msgspec.UNSET


class Expectation(_Part, frozen=True, kw_only=True):
    """The expected result of a run. A property that is left out is not compared, except ``status``.

    Attributes:
        vars: those of the run's variables that are compared.
        messages: by thread, its last messages.
        function_calls: the calls of ``call`` states.
        requests: the questions to people.
    """

    status: Literal["succeeded", "failed", "waiting"] | None = None
    path: tuple[str, ...] | None = None
    moves: tuple[ExpectedMove, ...] | None = None
    output: JSON | msgspec.UnsetType = msgspec.UNSET
    error: str | None = None
    rounds: int | None = None
    vars: Mapping[str, JSON] = {}
    messages: Mapping[str, tuple[ExpectedMessage, ...]] = {}
    calls: tuple[ExpectedCall, ...] | None = None
    function_calls: tuple[ExpectedFunctionCall, ...] | None = None
    requests: tuple[ExpectedRequest, ...] | None = None

    @property
    def full_status(self) -> str:
        """The expected status, with its default where it is left out."""
        return self.status or ("failed" if self.error else "succeeded")


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One test of a test file. ``at`` is its path in the document."""

    name: str
    at: DocumentPath
    profile: str | None = None
    inputs: Mapping[str, JSON] = {}
    replies: tuple[CaseReply, ...] = ()
    cassette: Path | None = None
    stubs: Mapping[str, tuple[Stub, ...]] = {}
    answers: tuple[GivenAnswer, ...] = ()
    expect: Expectation = Expectation()


class Suite(msgspec.Struct, frozen=True, kw_only=True):
    """The tests of one file, which all test one flow."""

    path: Path
    document: Document
    flow: Path
    cases: tuple[Case, ...]
