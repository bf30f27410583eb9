"""The content of a test file as frozen data. No I/O, no logic."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from flowrun.backends.scripted import ScriptedReply
from flowrun.core.messages import Reply
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
        return Reply(text=self.text, finish_reason=self.finish_reason or "stop")


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
    """An answer that the test gives to a wait state after ``delay`` seconds."""

    state: str
    value: JSON
    delay: Seconds = Seconds(0)


class ExpectedCall(_Part, frozen=True, kw_only=True):
    """An expected tool call."""

    name: str
    arguments: Mapping[str, JSON] = {}


class Expectation(_Part, frozen=True, kw_only=True):
    """The expected result of a run. A property that is left out is not compared, except ``status``."""

    status: Literal["succeeded", "failed", "waiting"] | None = None
    path: tuple[str, ...] | None = None
    output: JSON | msgspec.UnsetType = msgspec.UNSET
    error: str | None = None
    calls: tuple[ExpectedCall, ...] | None = None

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
