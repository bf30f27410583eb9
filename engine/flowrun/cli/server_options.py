"""Who may ask a server: what ``--host``, ``--api-key-file``, ``--allow-host`` and ``--allow-origin`` mean together.

A server that others reach needs a key: it runs what its flows say, and shows what they were told.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec

from flowrun.errors import UsageError
from flowrun.files import file_errors

if TYPE_CHECKING:
    from flowrun.serving.gate import Access

KEY: Final = "FLOWRUN_API_KEY"

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def require_serve() -> None:
    """Check that the packages of servers are installed.

    Raises:
        UsageError: one is not.
    """
    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise UsageError("a server needs starlette and uvicorn: pip install 'flowrun[serve]'")


def read_access(
    *,
    host: str,
    api_key_file: Path | None,
    allow_host: Sequence[str],
    allow_origin: Sequence[str],
    environ: Mapping[str, str],
    max_body: int | None = None,
    body_seconds: float | None = None,
) -> "Access":
    """Return who may ask a server, by its options.

    Args:
        environ: may hold a key as ``FLOWRUN_API_KEY``.
        max_body: the most bytes of a request; None: the default.
        body_seconds: how long its body may take to arrive; None: the default.

    Raises:
        UsageError: an option is wrong, or others reach the server and no key is set.
    """
    from flowrun.serving.gate import Access

    keys = _read_keys(api_key_file, environ)
    if not keys and not _is_loopback(host):
        raise UsageError(f"--host {host}: others reach this address, so set a key in {KEY} or by --api-key-file")
    origins = frozenset(map(_read_origin, allow_origin))
    names = _LOOPBACK | {_name_of(name) for name in (host, *allow_host)}
    any_name = _is_wildcard(host) and not allow_host  # the key protects it: a browser keeps its cookie to one name
    access = Access(keys=keys, hosts=None if any_name else names, origins=origins)
    given = {"max_body": max_body, "body_seconds": body_seconds}
    return msgspec.structs.replace(access, **{name: value for name, value in given.items() if value is not None})


def _read_keys(file: Path | None, environ: Mapping[str, str]) -> tuple[str, ...]:
    written = [environ.get(KEY, "").strip()]
    if file is not None:
        with file_errors(f"--api-key-file {file}"):
            lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
        written += (line.strip() for line in lines)
        if not any(written[1:]):
            raise UsageError(f"--api-key-file {file}: it holds no key")
    keys = tuple(dict.fromkeys(filter(None, written)))
    if not all(key.isascii() and key.isprintable() and " " not in key for key in keys):
        raise UsageError("an API key consists of printable ASCII characters without spaces")
    return keys


def _read_origin(text: str) -> str:
    """Return an origin as browsers send it (RFC 6454, 6.2)."""
    try:
        parts = urlsplit(text.lower().removesuffix("/"))
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path or parts.query or "@" in parts.netloc:
        raise UsageError(f"--allow-origin {text}: write it as https://NAME or https://NAME:PORT")
    return f"{parts.scheme}://{parts.netloc}"


def _name_of(host: str) -> str:
    return host.lower().removeprefix("[").removesuffix("]")


def _is_loopback(host: str) -> bool:
    address = _address_of(host)
    return _name_of(host) == "localhost" if address is None else address.is_loopback


def _is_wildcard(host: str) -> bool:
    address = _address_of(host)
    return address is not None and address.is_unspecified


def _address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(_name_of(host))
    except ValueError:
        return None
