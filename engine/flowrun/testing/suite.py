"""What a test file says, as frozen data. Nothing here reads files or decides."""

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
"""The end of every test file's name."""


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all parts of a test file."""


class RawReply(ScriptedReply, frozen=True, kw_only=True):
    """A reply as the model writes it; somebody has to read it before it is one."""

    text: str

    def reply(self) -> Reply:
        """Give the text, not yet read."""
        return Reply(text=self.text, finish_reason=self.finish_reason or "stop")


class CaseReply(msgspec.Struct, frozen=True, kw_only=True):
    """One of a test's replies; ``holds`` says of a scope with ``request`` whether it is for that one, None for any."""

    reply: ScriptedReply
    holds: Callable[[Scope], bool] | None = None


class Stub(_Part, frozen=True, kw_only=True):
    """What a function gives instead of being called, after ``delay`` seconds."""

    returns: JSON = None
    raises: str | None = None
    delay: Seconds = Seconds(0)


class GivenAnswer(_Part, frozen=True, kw_only=True):
    """What somebody answers a wait state, after ``delay`` seconds."""

    state: str
    value: JSON
    delay: Seconds = Seconds(0)


class ExpectedCall(_Part, frozen=True, kw_only=True):
    """A tool call that was made."""

    name: str
    arguments: Mapping[str, JSON] = {}


class Expectation(_Part, frozen=True, kw_only=True):
    """What must come of a run. What is left out may be anything, but for ``status``."""

    status: Literal["succeeded", "failed", "waiting"] | None = None
    path: tuple[str, ...] | None = None
    output: JSON | msgspec.UnsetType = msgspec.UNSET
    error: str | None = None
    calls: tuple[ExpectedCall, ...] | None = None

    @property
    def whole_status(self) -> str:
        """The status, also where it is left out."""
        return self.status or ("failed" if self.error else "succeeded")


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One test. ``at`` is its path in the document."""

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
    """The tests of one file, which are all of one flow."""

    path: Path
    document: Document
    flow: Path
    cases: tuple[Case, ...]
